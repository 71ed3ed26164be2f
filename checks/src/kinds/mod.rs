//! The kinds of checks, one file each.

pub(crate) mod disk;
mod dnsquery;
pub(crate) mod http;
mod load;
mod memory;
mod ping;
mod systemd;
pub(crate) mod tcp;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    load::KIND,
    memory::MEMORY,
    memory::SWAP,
    disk::KIND,
    systemd::KIND,
    dnsquery::KIND,
    ping::KIND,
    tcp::KIND,
    http::KIND,
];
