//! The kinds of checks, one file each.

mod cpu;
pub(crate) mod disk;
mod fd;
pub(crate) mod http;
mod kernel;
mod load;
mod memory;
mod oom;
mod pressure;
mod process;
mod procs;
mod swap;
mod systemd;
pub(crate) mod tcp;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    cpu::KIND,
    disk::KIND,
    fd::KIND,
    http::KIND,
    kernel::KIND,
    load::KIND,
    memory::KIND,
    oom::KIND,
    pressure::KIND,
    process::KIND,
    procs::KIND,
    swap::KIND,
    systemd::KIND,
    tcp::KIND,
];
