//! Where an upstream is asked. Always an address, never a name: finding an upstream must not need DNS.

use std::{fmt, net::SocketAddr};

/// One upstream as an operator names it. Equal endpoints are one upstream to a zone, and keep what is known of it
/// through a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
