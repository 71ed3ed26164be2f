//! Whether the network has changed: from which of this host's addresses each upstream would be
//! asked. A cable that is plugged in again, a new lease or another default route shows here.
//!
//! Connecting a UDP socket sends no packet; the kernel only chooses the route.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// The last known routes.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    routes: BTreeMap<SocketAddr, Option<IpAddr>>,
}

impl Watch {
    /// Whether the route to an upstream has changed since the last call.
    pub(crate) fn look(&mut self, upstreams: impl Iterator<Item = SocketAddr>) -> bool {
        self.compare(upstreams.map(|upstream| (upstream, local_address(upstream))).collect())
    }

    fn compare(&mut self, now: BTreeMap<SocketAddr, Option<IpAddr>>) -> bool {
        let before = std::mem::replace(&mut self.routes, now);
        self.routes.iter().any(|(upstream, route)| before.get(upstream).is_some_and(|old| old != route))
    }
}

fn local_address(upstream: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if upstream.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(upstream).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_a_lost_route_and_its_return_are_changes_but_new_upstreams_are_not() {
        let upstream = |last: u8| SocketAddr::from(([192, 0, 2, last], 53));
        let address = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let mut watch = Watch::default();
        assert!(!watch.compare(BTreeMap::from([(upstream(1), address(1))])));
        assert!(!watch.compare(BTreeMap::from([(upstream(1), address(1)), (upstream(2), address(1))])));
        assert!(watch.compare(BTreeMap::from([(upstream(1), address(2)), (upstream(2), address(1))])));
        assert!(watch.compare(BTreeMap::from([(upstream(1), None), (upstream(2), address(1))])));
        assert!(watch.compare(BTreeMap::from([(upstream(1), address(2)), (upstream(2), address(1))])));
        assert!(!watch.compare(BTreeMap::from([(upstream(2), address(1))])));
    }

    #[test]
    fn the_kernel_says_from_which_address_loopback_is_asked() {
        assert_eq!(local_address(([127, 0, 0, 1], 9).into()), Some(IpAddr::from([127, 0, 0, 1])));
        let mut watch = Watch::default();
        let upstreams = || std::iter::once(SocketAddr::from(([127, 0, 0, 1], 9)));
        assert!(!watch.look(upstreams()) && !watch.look(upstreams()));
    }
}
