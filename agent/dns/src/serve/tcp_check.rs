//! Checks whether the addresses of a pinned name accept TCP connections. Sends no data.

use std::{net::IpAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use dogwatch_dns_core::resolver::{Accepting, TcpCheck};

/// For old and new addresses together: clients wait for the result.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses tried on each side.
const ADDRESSES_MAX: usize = 4;

pub(crate) async fn run(check: &TcpCheck) -> Accepting {
    let (old, new) = tokio::join!(any(&check.old, check.port), any(&check.new, check.port));
    Accepting { old, new }
}

async fn any(addresses: &[IpAddr], port: u16) -> bool {
    let mut tries = JoinSet::new();
    for &address in addresses.iter().take(ADDRESSES_MAX) {
        tries.spawn(TcpStream::connect((address, port)));
    }
    let first = async {
        while let Some(tried) = tries.join_next().await {
            if matches!(tried, Ok(Ok(_))) {
                return true;
            }
        }
        false
    };
    timeout(PATIENCE, first).await.unwrap_or(false)
}
