//! The kinds of checks, one file each.

pub(crate) mod disk;
mod diskio;
pub(crate) mod http;
mod ioerrors;
mod load;
mod memory;
mod systemd;
pub(crate) mod tcp;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    disk::KIND,
    diskio::KIND,
    http::KIND,
    ioerrors::KIND,
    load::KIND,
    memory::MEMORY,
    memory::SWAP,
    systemd::KIND,
    tcp::KIND,
];
