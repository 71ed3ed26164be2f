//! `dogwatch dns enable|disable`, and the part of `status` about the host: whether programs on this host ask the cache.
//!
//! | module | | what it does |
//! | --- | --- | --- |
//! | [`layout`] | shell | reads what is on the host, below a root |
//! | [`plan`] | pure | who manages resolv.conf; what has to change |
//! | [`text`] | pure | our lines in and out of resolver configurations |
//! | [`journal`] | shell | what was changed, on disk before it is; files put and put back |
//! | [`switch`] | shell | the order of it all: check, change, prove, or back |
//! | [`system`] | shell | commands, questions, lookups; a trait, so that tests fail where they like |
//! | [`report`] | | what `status` says of it |
//!
//! The promise: the host is never worse off than without us. The old servers stay configured behind the cache, and what is
//! undone is restored to the byte. It never edits a file that it cannot put back, and never guesses who manages resolv.conf.

pub mod journal;
pub mod layout;
pub mod plan;
pub mod report;
pub mod switch;
pub mod system;
#[cfg(test)]
mod tests;
pub mod text;

use std::net::{IpAddr, SocketAddr};

pub use self::{
    plan::Manager,
    report::HostStatus,
    switch::{Disabled, Enabled, Preview, Switch, SwitchError},
    system::Real,
};

/// The address that a resolv.conf can name: port 53, which it cannot say otherwise.
pub fn address_for_hosts(listen: &[SocketAddr]) -> Option<IpAddr> {
    let first = listen.iter().find(|address| address.port() == 53)?.ip();
    Some(match first {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    })
}
