//! Which TCP connection gives way when all places are taken: of the address that holds the most,
//! the one that has been idle for longest. So no address can keep the others out, and one with few
//! connections loses none to one with many.
//!
//! The places are only counted here; whoever admits a connection closes the other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use dogwatch_dns_core::moment::Moment;

#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    holder: IpAddr,
    active: Moment,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: BTreeMap::new() }
    }

    /// Gives a connection a place. Returns the one that has to give way to it.
    pub(super) fn admit(&mut self, id: u64, peer: IpAddr, now: Moment) -> Option<u64> {
        let holder = holder_of(peer);
        let victim = (self.taken.len() >= self.most).then(|| self.victim(holder)).flatten();
        if let Some(victim) = victim {
            self.taken.remove(&victim);
        }
        self.taken.insert(id, Place { holder, active: now });
        victim
    }

    /// A query came, or an answer was written.
    pub(super) fn on_active(&mut self, id: u64, now: Moment) {
        if let Some(place) = self.taken.get_mut(&id) {
            place.active = now;
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    /// Whether idle connections should be closed soon.
    pub(super) fn crowded(&self) -> bool {
        self.taken.len() > self.most - self.most / 4
    }

    fn victim(&self, newcomer: IpAddr) -> Option<u64> {
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for place in self.taken.values() {
            *held.entry(place.holder).or_default() += 1;
        }
        // The newcomer's own address first: it must not gain by asking for more.
        let most = held.into_iter().max_by_key(|&(holder, held)| (held, holder == newcomer))?.0;
        let of_it = self.taken.iter().filter(|(_, place)| place.holder == most);
        of_it.min_by_key(|(id, place)| (place.active, **id)).map(|(id, _)| *id)
    }
}

/// An IPv6 host has a whole /64 to connect from.
fn holder_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn s9_four_hundred_connections_of_one_address_keep_nobody_else_out() {
        let mut places = Places::new(128);
        let victims: Vec<_> = (0..400).filter_map(|id| places.admit(id, v4(1), at(id))).collect();
        assert_eq!(victims, (0..272).collect::<Vec<_>>(), "the longest idle of its own");
        // Others get in, and stay, however many more it opens.
        for id in 1_000..1_020 {
            let victim = places.admit(id, v4(2), at(500)).unwrap();
            assert!(victim < 400);
        }
        for id in 2_000..3_000 {
            let victim = places.admit(id, v4(1), at(600)).unwrap();
            assert!(!(1_000..1_020).contains(&victim), "{victim}");
        }
        assert_eq!(places.taken.len(), 128);
    }

    #[test]
    fn s9_of_the_largest_holder_the_longest_idle_gives_way() {
        let mut places = Places::new(4);
        for (id, peer) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
            assert_eq!(places.admit(id, v4(peer), at(id)), None);
        }
        places.on_active(1, at(10));
        assert_eq!(places.admit(5, v4(3), at(11)), Some(2));
        assert_eq!(places.admit(6, v4(3), at(12)), Some(3));
        assert_eq!(places.admit(7, v4(1), at(13)), Some(5), "now the third address holds the most");
        assert_eq!(places.admit(8, v4(1), at(14)), Some(1), "as many as another: its own gives way");
        places.leave(4);
        assert_eq!(places.admit(9, v4(1), at(15)), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_holder_and_a_mapped_address_is_ipv4() {
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(holder_of(v6("2001:db8::1")), holder_of(v6("2001:db8::ffff:1:2:3")));
        assert_ne!(holder_of(v6("2001:db8::1")), holder_of(v6("2001:db8:0:1::1")));
        assert_eq!(holder_of(v6("::ffff:192.0.2.1")), v4(1));
    }

    #[test]
    fn it_is_crowded_above_three_quarters() {
        let mut places = Places::new(8);
        (0..6).for_each(|id| _ = places.admit(id, v4(1), at(0)));
        assert!(!places.crowded());
        places.admit(6, v4(1), at(0));
        assert!(places.crowded());
    }
}
