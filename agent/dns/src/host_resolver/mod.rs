//! `dogwatch dns enable|disable`, and the host part of `status`: whether programs on this host use
//! the cache.
//!
//! | module | | task |
//! | --- | --- | --- |
//! | [`layout`] | shell | reads the host's resolver files, below a given root |
//! | [`plan`] | pure | finds out what manages resolv.conf, and what has to change |
//! | [`text`] | pure | adds our lines to resolver files and removes them |
//! | [`journal`] | shell | records each change on disk before it is made; writes and restores files |
//! | [`switch`] | shell | the procedure: check, change, verify, revert on failure |
//! | [`system`] | shell | commands, DNS queries, lookups; a trait, so that tests can inject failures |
//! | [`report`] | | the output of these commands |
//!
//! The promise: the host is never worse off than without the cache. The old servers stay configured
//! after the cache, and undoing restores every file byte for byte. It never edits a file that it
//! cannot restore, and never guesses what manages resolv.conf.

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

/// The listen address that resolv.conf can use: it must have port 53.
pub fn address_for_hosts(listen: &[SocketAddr]) -> Option<IpAddr> {
    let first = listen.iter().find(|address| address.port() == 53)?.ip();
    Some(match first {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    })
}
