//! The kinds of checks, one file each.

mod bond;
mod conntrack;
pub(crate) mod disk;
mod ecc;
mod fan;
pub(crate) mod http;
mod listen;
mod load;
mod memory;
mod nic;
mod power;
mod sockets;
mod systemd;
pub(crate) mod tcp;
mod temperature;
mod time;
mod voltage;

use crate::Kind;

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    bond::KIND,
    conntrack::KIND,
    disk::KIND,
    ecc::KIND,
    fan::KIND,
    http::KIND,
    listen::KIND,
    load::KIND,
    memory::MEMORY,
    memory::SWAP,
    nic::KIND,
    power::KIND,
    sockets::KIND,
    systemd::KIND,
    tcp::KIND,
    temperature::KIND,
    time::KIND,
    voltage::KIND,
];
