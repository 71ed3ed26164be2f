//! Whether a host is a laptop or a tablet: its cables come and go, and its battery runs empty.

use std::fs;

use crate::root::Root;

/// By the chassis type of the SMBIOS tables; without one (ARM boards), by its battery.
pub(crate) fn is_portable(root: &Root) -> bool {
    match root.read("/sys/class/dmi/id/chassis_type").ok().and_then(|text| text.trim().parse().ok()) {
        // 1 and 2 are "other" and "unknown".
        Some(chassis @ 3_u8..) => PORTABLE.contains(&chassis),
        _ => has_battery(root),
    }
}

/// Not the battery of a mouse (its scope is `Device`).
fn has_battery(root: &Root) -> bool {
    let Ok(supplies) = fs::read_dir(root.path("/sys/class/power_supply")) else { return false };
    supplies.flatten().any(|supply| {
        let read = |file| fs::read_to_string(supply.path().join(file)).unwrap_or_default();
        read("type").trim() == "Battery" && read("scope").trim() != "Device"
    })
}

/// Portable, laptop, notebook, hand held, sub-notebook, tablet, convertible, detachable (SMBIOS
/// 3.7, §7.4.1). A docking station is not a chassis of its own.
const PORTABLE: [u8; 8] = [8, 9, 10, 11, 14, 30, 31, 32];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chassis_decides_and_without_one_the_battery() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::captured(tree.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(!is_portable(&root));
        write("/sys/class/power_supply/hidpp_battery_0/type", "Battery\n");
        write("/sys/class/power_supply/hidpp_battery_0/scope", "Device\n");
        assert!(!is_portable(&root), "a mouse");
        write("/sys/class/power_supply/BAT0/type", "Battery\n");
        assert!(is_portable(&root));
        write("/sys/class/dmi/id/chassis_type", "1\n");
        assert!(is_portable(&root));
        write("/sys/class/dmi/id/chassis_type", "23\n");
        assert!(!is_portable(&root), "a rack server whose RAID battery is a power supply");
        write("/sys/class/dmi/id/chassis_type", "10\n");
        assert!(is_portable(&root));
    }
}
