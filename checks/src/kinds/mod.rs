//! The kinds of checks, one file each.

mod cpu;
pub(crate) mod disk;
pub(crate) mod http;
mod load;
mod memory;
mod oom;
mod pressure;
mod swap;
mod systemd;
pub(crate) mod tcp;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    cpu::KIND,
    disk::KIND,
    http::KIND,
    load::KIND,
    memory::KIND,
    oom::KIND,
    pressure::KIND,
    swap::KIND,
    systemd::KIND,
    tcp::KIND,
];
