//! The kinds of checks, one file each.

mod bond;
mod conntrack;
mod cpu;
pub(crate) mod disk;
mod ecc;
mod fan;
mod fd;
pub(crate) mod http;
mod kernel;
mod listen;
mod load;
mod memory;
mod nic;
mod oom;
mod power;
mod pressure;
mod process;
mod procs;
mod sockets;
mod swap;
mod systemd;
pub(crate) mod tcp;
mod temperature;
mod voltage;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    bond::KIND,
    conntrack::KIND,
    cpu::KIND,
    disk::KIND,
    ecc::KIND,
    fan::KIND,
    fd::KIND,
    http::KIND,
    kernel::KIND,
    listen::KIND,
    load::KIND,
    memory::KIND,
    nic::KIND,
    oom::KIND,
    power::KIND,
    pressure::KIND,
    process::KIND,
    procs::KIND,
    sockets::KIND,
    swap::KIND,
    systemd::KIND,
    tcp::KIND,
    temperature::KIND,
    voltage::KIND,
];
