//! The kinds of checks, one file each.

mod certificate;
pub(crate) mod disk;
pub(crate) mod http;
mod kmsg;
mod load;
mod memory;
mod oldcode;
mod reboot;
pub(crate) mod tcp;
mod unit;
mod updates;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    load::KIND,
    memory::MEMORY,
    memory::SWAP,
    certificate::KIND,
    disk::KIND,
    kmsg::KIND,
    oldcode::KIND,
    reboot::KIND,
    tcp::KIND,
    unit::KIND,
    updates::KIND,
    http::KIND,
];
