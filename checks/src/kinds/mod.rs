//! The kinds of checks, one file each.

mod btrfs;
pub(crate) mod disk;
mod diskio;
mod file;
pub(crate) mod http;
mod ioerrors;
mod load;
mod lvm;
mod memory;
mod raid;
mod systemd;
pub(crate) mod tcp;
mod zfs;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    btrfs::KIND,
    disk::KIND,
    diskio::KIND,
    file::KIND,
    http::KIND,
    ioerrors::KIND,
    load::KIND,
    lvm::KIND,
    memory::MEMORY,
    memory::SWAP,
    raid::KIND,
    systemd::KIND,
    tcp::KIND,
    zfs::KIND,
];
