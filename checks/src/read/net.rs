//! Network interfaces: what each is and whether it has a link (`/sys/class/net`), and what it has
//! carried (`/proc/net/dev`).

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use super::Source;
use crate::{
    name::escaped,
    root::{ReadError, Root},
};

/// What an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A network card, real or of a virtual machine.
    Card,
    /// Wi-Fi, or a modem.
    Wireless,
    Bond,
    /// A bridge with a port to the outside.
    Bridge,
    Vlan,
    /// veth, tap, bridges for containers, tunnels, loopback, and functions that a card lends to
    /// virtual machines.
    Virtual,
}

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the kernel that do not depend on each other")]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) sort: Sort,
    /// Not taken down by an administrator.
    pub(crate) up: bool,
    pub(crate) promiscuous: bool,
    /// `None` if the kernel does not say, as for an interface that is down.
    pub(crate) carrier: Option<bool>,
    /// Mbit/s.
    pub(crate) speed: Option<u32>,
    pub(crate) half_duplex: bool,
    /// Of the card: `igb`.
    pub(crate) driver: String,
    /// A port of a bond, which has a check of its own.
    pub(crate) bonded: bool,
    /// A port of a bridge, a bond or a virtual switch.
    pub(crate) port: bool,
}

/// All interfaces, by name.
pub(crate) fn interfaces(root: &Root) -> Result<Vec<Interface>, ReadError> {
    let path = root.path(CLASS);
    let entries = fs::read_dir(&path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    // `bonding_masters` is a file.
    names.retain(|name| path.join(name).is_dir());
    Ok(names.iter().map(|name| interface(&path, name)).collect())
}

const CLASS: &str = "/sys/class/net";

fn interface(class: &Path, name: &OsStr) -> Interface {
    let at = class.join(name);
    let read = |file: &str| fs::read_to_string(at.join(file)).map(|text| text.trim().to_owned()).ok();
    let flags = read("flags").and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    let flags = flags.unwrap_or(0);
    let sort = sort(class, &at);
    // These take a lock of the kernel that a host with many containers needs all the time.
    let setting = |file: &str| if sort == Sort::Virtual { None } else { read(file) };
    Interface {
        sort,
        up: flags & IFF_UP != 0,
        promiscuous: flags & IFF_PROMISC != 0,
        carrier: read("carrier").map(|carrier| carrier == "1"),
        speed: setting("speed").and_then(|speed| speed.parse().ok()).filter(|speed| SPEEDS.contains(speed)),
        half_duplex: setting("duplex").is_some_and(|duplex| duplex == "half"),
        driver: variable(&at.join("device/uevent"), "DRIVER").unwrap_or_default(),
        bonded: at.join("bonding_slave").exists(),
        port: at.join("brport").exists() || fs::symlink_metadata(at.join("master")).is_ok(),
        name: escaped(name),
    }
}

fn sort(class: &Path, at: &Path) -> Sort {
    let kind = variable(&at.join("uevent"), "DEVTYPE").unwrap_or_default();
    if at.join("device").exists() {
        let link = fs::read_to_string(at.join("type")).unwrap_or_default();
        return if at.join("wireless").exists()
            || at.join("phy80211").exists()
            || kind == "wlan"
            || kind == "wwan"
        {
            Sort::Wireless
        } else if !LINK_TYPES.contains(&link.trim()) || is_lent(at) {
            Sort::Virtual
        } else {
            Sort::Card
        };
    }
    match kind.as_str() {
        "bond" => Sort::Bond,
        "vlan" => Sort::Vlan,
        "bridge" if has_real_port(class, at) => Sort::Bridge,
        _ => Sort::Virtual,
    }
}

/// A function of the card that a virtual machine or a container may get, or the host's end of it
/// (`pf0vf3`, `pf0sf88`).
fn is_lent(at: &Path) -> bool {
    if at.join("device/physfn").exists() {
        return true;
    }
    let port = fs::read_to_string(at.join("phys_port_name")).unwrap_or_default();
    port.split_once("pf").is_some_and(|(_, function)| function.contains("vf") || function.contains("sf"))
}

fn has_real_port(class: &Path, at: &Path) -> bool {
    let Ok(ports) = fs::read_dir(at.join("brif")) else { return false };
    ports.flatten().any(|port| {
        let port = class.join(port.file_name());
        let kind = variable(&port.join("uevent"), "DEVTYPE");
        port.join("device").exists() || kind.is_some_and(|kind| kind == "bond" || kind == "vlan")
    })
}

/// A variable of a `uevent` file.
pub(crate) fn variable(uevent: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(uevent).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;
/// Ethernet and InfiniBand (ARPHRD_*).
const LINK_TYPES: [&str; 2] = ["1", "32"];
/// 0, 65 535 and 4 294 967 295 mean that the driver does not know.
const SPEEDS: std::ops::Range<u32> = 1..10_000_000;

/// What every interface has carried since it exists.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct NetDev(BTreeMap<String, Carried>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Carried {
    pub(crate) received: Counters,
    pub(crate) sent: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) drops: u64,
}

impl NetDev {
    pub(crate) fn get(&self, interface: &str) -> Option<Carried> {
        self.0.get(interface).copied()
    }
}

impl Source for NetDev {
    const PATH: &'static str = "/proc/net/dev";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines().skip(2).filter(|line| !line.trim().is_empty()).peekable();
        lines.peek().ok_or("expected a line for each interface")?;
        lines
            .map(|line| line_of(line).ok_or("expected 16 numbers for each interface"))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn line_of(line: &str) -> Option<(String, Carried)> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let counters = |from: usize| {
        let [bytes, packets, errors, drops] = *numbers.get(from..from + 4)? else { return None };
        Some(Counters { bytes, packets, errors, drops })
    };
    Some((escaped(name.trim()), Carried { received: counters(0)?, sent: counters(8)? }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPTURED: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 2991470023 30450453    0    0    0     0          0         0 2991470023 30450453    0    0    0     0       0          0
enp0s31f6:436777821   14455    1    2    0     0          0         0   799329    8260    3    4    0     0       0          0
";

    #[test]
    fn counters_are_read_even_if_no_space_follows_the_colon() {
        let dev = NetDev::parse(CAPTURED).unwrap();
        let card = dev.get("enp0s31f6").unwrap();
        assert_eq!(card.received, Counters { bytes: 436_777_821, packets: 14_455, errors: 1, drops: 2 });
        assert_eq!(card.sent, Counters { bytes: 799_329, packets: 8_260, errors: 3, drops: 4 });
        assert!(dev.get("eth0").is_none());
        assert!(NetDev::parse("").is_err());
        assert!(NetDev::parse("a\nb\n eth0: 1 2 3\n").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).*", line in " *[a-z0-9:]*: *[0-9 ]*") {
            let _ = NetDev::parse(&text);
            let _ = NetDev::parse(&format!("a\nb\n{line}\n"));
        }
    }
}
