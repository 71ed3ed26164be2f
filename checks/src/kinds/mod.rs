//! The kinds of checks, one file each.

mod bond;
mod btrfs;
mod conntrack;
mod cpu;
pub(crate) mod disk;
mod diskio;
mod dnsquery;
mod ecc;
mod fan;
mod fd;
mod file;
pub(crate) mod http;
mod ioerrors;
mod kernel;
mod listen;
mod load;
mod lvm;
mod memory;
mod nic;
mod oom;
mod ping;
mod power;
mod pressure;
mod process;
mod procs;
mod raid;
mod reboot;
mod sockets;
mod swap;
pub(crate) mod tcp;
mod temperature;
mod unit;
mod updates;
mod voltage;
mod zfs;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    bond::KIND,
    btrfs::KIND,
    conntrack::KIND,
    cpu::KIND,
    disk::KIND,
    diskio::KIND,
    dnsquery::KIND,
    ecc::KIND,
    fan::KIND,
    fd::KIND,
    file::KIND,
    http::KIND,
    ioerrors::KIND,
    kernel::KIND,
    listen::KIND,
    load::KIND,
    lvm::KIND,
    memory::KIND,
    nic::KIND,
    oom::KIND,
    ping::KIND,
    power::KIND,
    pressure::KIND,
    process::KIND,
    procs::KIND,
    raid::KIND,
    reboot::KIND,
    sockets::KIND,
    swap::KIND,
    tcp::KIND,
    temperature::KIND,
    unit::KIND,
    updates::KIND,
    voltage::KIND,
    zfs::KIND,
];
