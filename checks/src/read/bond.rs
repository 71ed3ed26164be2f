//! Bonds and their ports (`/sys/class/net/*/bonding`, the kernel's `bonding.rst`).

use std::{ffi::OsStr, fs, path::Path};

use crate::{
    name::escaped,
    root::{ReadError, Root},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bond {
    pub(crate) name: String,
    /// Not taken down by an administrator.
    pub(crate) up: bool,
    /// `802.3ad`, `active-backup`.
    pub(crate) mode: String,
    pub(crate) ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) state: PortState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortState {
    Active,
    NoLink,
    /// It has a link, but LACP has not put it into the aggregate that carries the traffic.
    LeftOut,
}

/// All bonds, by name.
pub(crate) fn bonds(root: &Root) -> Result<Vec<Bond>, ReadError> {
    let path = root.path("/sys/class/net");
    let entries = fs::read_dir(&path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut bonds: Vec<_> = names.filter_map(|name| bond(&path, &name)).collect();
    bonds.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bonds)
}

fn bond(class: &Path, name: &OsStr) -> Option<Bond> {
    let at = class.join(name);
    let read = |file: &str| fs::read_to_string(at.join(file)).map(|text| text.trim().to_owned()).ok();
    let slaves = read("bonding/slaves")?;
    // "802.3ad 4"
    let mode = read("bonding/mode").unwrap_or_default();
    let mode = mode.split(' ').next().unwrap_or_default().to_owned();
    let aggregate = read("bonding/ad_aggregator").filter(|_| mode == "802.3ad");
    let ports = slaves.split_whitespace().map(|port| Port {
        name: port.to_owned(),
        state: port_state(&class.join(port), aggregate.as_deref()),
    });
    Some(Bond {
        ports: ports.collect(),
        up: read("flags")
            .and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok())
            .is_none_or(|flags| flags & 1 != 0),
        mode,
        name: escaped(name),
    })
}

fn port_state(at: &Path, aggregate: Option<&str>) -> PortState {
    let read = |file: &str| fs::read_to_string(at.join(file)).map(|text| text.trim().to_owned()).ok();
    let up = match read("bonding_slave/mii_status") {
        Some(status) => status == "up",
        // Before Linux 3.14.
        None => read("carrier").as_deref() == Some("1"),
    };
    let own = read("bonding_slave/ad_aggregator_id");
    match (up, aggregate, own.as_deref()) {
        (false, ..) => PortState::NoLink,
        (true, Some(active), Some(own)) if own != active => PortState::LeftOut,
        (true, ..) => PortState::Active,
    }
}
