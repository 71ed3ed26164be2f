//! The kinds of checks, one file each.

mod bond;
pub(crate) mod disk;
pub(crate) mod http;
mod load;
mod memory;
mod nic;
mod systemd;
pub(crate) mod tcp;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    bond::KIND,
    disk::KIND,
    http::KIND,
    load::KIND,
    memory::MEMORY,
    memory::SWAP,
    nic::KIND,
    systemd::KIND,
    tcp::KIND,
];
