//! Thermal zones (`/sys/class/thermal`, the kernel's `sysfs-api.rst`), for boards whose sensors are
//! not in [`super::hwmon`].

use std::{fs, path::Path};

use super::hwmon::{Sensor, text};
use crate::root::Root;

/// The zones that no chip in `chips` shows, too.
pub(crate) fn zones(root: &Root, chips: &[Sensor], wanted: impl Fn(&str) -> bool) -> Vec<Sensor> {
    let Ok(entries) = fs::read_dir(root.path("/sys/class/thermal")) else { return Vec::new() };
    let mut zones: Vec<_> =
        entries.flatten().filter_map(|entry| zone(&entry.path(), chips, &wanted)).collect();
    zones.sort_by(|one, other| one.name.cmp(&other.name));
    // Several zones of one type: the kernel numbers them in the order of its tables.
    for at in 1..zones.len() {
        if zones[at].chip == zones[at - 1].chip {
            let count = zones[..at].iter().filter(|zone| zone.chip == zones[at].chip).count();
            zones[at].name = format!("{} #{}", zones[at].chip, count + 1);
        }
    }
    zones
}

fn zone(at: &Path, chips: &[Sensor], wanted: impl Fn(&str) -> bool) -> Option<Sensor> {
    let name = at.file_name()?.to_str()?;
    name.strip_prefix("thermal_zone")?;
    let kind = text(&at.join("type"))?;
    let shown = |chip: &str| chips.iter().any(|sensor| sensor.chip == chip);
    if shown(&kind.replace('-', "_")) || kind == "x86_pkg_temp" && shown("coretemp") || !wanted(&kind) {
        return None;
    }
    let number = |file: &str| -> Option<f64> { Some(text(&at.join(file))?.parse::<f64>().ok()? / 1e3) };
    let critical = (0..TRIPS_MAX)
        .map_while(|trip| Some((trip, text(&at.join(format!("trip_point_{trip}_type")))?)))
        .find(|(_, kind)| kind == "critical")
        .and_then(|(trip, _)| number(&format!("trip_point_{trip}_temp")));
    Some(Sensor {
        value: number("temp"),
        crit: critical,
        label: kind.clone(),
        chip: kind.clone(),
        name: kind,
        ..Sensor::default()
    })
}

const TRIPS_MAX: u32 = 16;
