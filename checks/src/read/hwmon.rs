//! Sensors of the kernel's hardware monitoring (`/sys/class/hwmon`, the kernel's
//! `hwmon/sysfs-interface.rst`), in °C, RPM, V, A and W.
//!
//! The numbers of the chips change from boot to boot, so a sensor is named after its chip and its
//! label: `coretemp/Package id 0`. Chips of one name get the name of their device too; disks are
//! named after the disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::root::Root;

/// What a sensor measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Temperature,
    Fan,
    Voltage,
    Current,
    Power,
}

/// A sensor and its limits, as the chip or its driver gives them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sensor {
    /// `coretemp/Package id 0`.
    pub(crate) name: String,
    /// Name of the driver's chip: `coretemp`.
    pub(crate) chip: String,
    /// `Package id 0`; `temp1` without a label.
    pub(crate) label: String,
    pub(crate) value: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) low_crit: Option<f64>,
    pub(crate) crit: Option<f64>,
    pub(crate) alarm: bool,
    /// Not connected, says the chip.
    pub(crate) fault: bool,
    /// Of a fan: how much it is driven, from 0 to 255.
    pub(crate) drive: Option<f64>,
}

impl Quantity {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Temperature => "temp",
            Self::Fan => "fan",
            Self::Voltage => "in",
            Self::Current => "curr",
            Self::Power => "power",
        }
    }

    /// Millivolts, milliamperes, microwatts, millidegrees.
    const fn divisor(self) -> f64 {
        match self {
            Self::Temperature | Self::Voltage | Self::Current => 1e3,
            Self::Power => 1e6,
            Self::Fan => 1.0,
        }
    }
}

/// The sensors of one quantity, except those whose name is not wanted: these are not even read,
/// because reading a disk's temperature may keep it from spinning down.
pub(crate) fn sensors(root: &Root, quantity: Quantity, wanted: impl Fn(&str) -> bool) -> Vec<Sensor> {
    let mut all = Vec::new();
    for (chip, name, at) in chips(root) {
        for index in indices(&at, quantity) {
            let label = text(&at.join(format!("{}{index}_label", quantity.prefix())));
            let label = label.unwrap_or_else(|| format!("{}{index}", quantity.prefix()));
            let name = format!("{name}/{label}");
            if wanted(&name) {
                all.push(Sensor { name, chip: chip.clone(), label, ..sensor(&at, quantity, index) });
            }
        }
    }
    tell_apart(&mut all);
    all
}

/// Whether there is a sensor of this quantity.
pub(crate) fn any(root: &Root, quantity: Quantity) -> bool {
    chips(root).iter().any(|(_, _, at)| !indices(at, quantity).is_empty())
}

/// Chip, name for its sensors, and directory of its files.
fn chips(root: &Root) -> Vec<(String, String, PathBuf)> {
    let Ok(entries) = fs::read_dir(root.path("/sys/class/hwmon")) else { return Vec::new() };
    let mut chips = Vec::new();
    for entry in entries.flatten() {
        // Old drivers have their files in the directory of the device.
        let dirs = [entry.path(), entry.path().join("device")];
        let found = dirs.into_iter().find_map(|at| Some((text(&at.join("name"))?, at)));
        if let Some((chip, at)) = found {
            chips.push((chip, device(&entry.path()), at));
        }
    }
    chips.sort();
    let mut count = BTreeMap::<String, usize>::new();
    for (chip, ..) in &chips {
        *count.entry(chip.clone()).or_default() += 1;
    }
    chips
        .into_iter()
        .map(|(chip, device, at)| {
            let several = count.get(&chip).is_some_and(|&count| count > 1);
            let name = match device.as_str() {
                _ if chip == "drivetemp" => disk(&at).unwrap_or(device),
                device if chip == "nvme" && !device.is_empty() => device.to_owned(),
                device if several && device.starts_with(&chip) => device.to_owned(),
                device if several => format!("{chip} {device}"),
                _ => chip.clone(),
            };
            (chip, name, at)
        })
        .collect()
}

/// `nvme0`, `coretemp.1`, `0000:00:18.3`.
fn device(at: &Path) -> String {
    let target = fs::read_link(at.join("device")).unwrap_or_default();
    target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `sda`, for a chip of a SATA disk.
fn disk(at: &Path) -> Option<String> {
    let mut disks = fs::read_dir(at.join("device/block")).ok()?.flatten();
    disks.next()?.file_name().into_string().ok()
}

fn indices(at: &Path, quantity: Quantity) -> Vec<u32> {
    let Ok(files) = fs::read_dir(at) else { return Vec::new() };
    let index = |file: fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let name = name.strip_prefix(quantity.prefix())?;
        // Some power meters have only an average.
        name.strip_suffix("_input").or_else(|| name.strip_suffix("_average"))?.parse().ok()
    };
    let mut indices: Vec<u32> = files.flatten().filter_map(index).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn sensor(at: &Path, quantity: Quantity, index: u32) -> Sensor {
    let raw = |what: &str| -> Option<f64> {
        text(&at.join(format!("{}{index}_{what}", quantity.prefix())))?.parse().ok()
    };
    let scaled = |what: &str| raw(what).map(|value| value / quantity.divisor());
    let set = |what: &str| raw(what).is_some_and(|bit| bit != 0.0);
    Sensor {
        value: scaled("input").or_else(|| scaled("average")),
        min: scaled("min"),
        max: scaled("max"),
        low_crit: scaled("lcrit"),
        crit: scaled("crit"),
        // Not `min_alarm` of a temperature: a host is never too cold.
        alarm: ALARMS.iter().any(|alarm| set(alarm))
            || (quantity != Quantity::Temperature && LOW_ALARMS.iter().any(|alarm| set(alarm))),
        fault: set("fault"),
        drive: match quantity {
            Quantity::Fan => text(&at.join(format!("pwm{index}"))).and_then(|pwm| pwm.parse().ok()),
            _ => None,
        },
        ..Sensor::default()
    }
}

const ALARMS: [&str; 4] = ["alarm", "max_alarm", "crit_alarm", "emergency_alarm"];
const LOW_ALARMS: [&str; 2] = ["min_alarm", "lcrit_alarm"];

/// Gives a number to sensors of one name.
fn tell_apart(sensors: &mut [Sensor]) {
    let mut seen = BTreeMap::<String, u32>::new();
    for sensor in sensors {
        let count = seen.entry(sensor.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            sensor.name = format!("{} #{count}", sensor.name);
        }
    }
}

/// A file's line; `None` if it cannot be read: a sensor that sleeps returns an error.
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
