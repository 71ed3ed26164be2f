//! Reads `/sys/block` (Documentation/ABI/stable/sysfs-block).

use std::fs;

use crate::root::Root;

/// The names in a directory, sorted. Empty if there is no such directory.
pub(crate) fn names(root: &Root, absolute: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.path(absolute)) else { return Vec::new() };
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The text of a file in `/sys`, without the newline; `None` if it cannot be read.
pub(crate) fn text(root: &Root, absolute: &str) -> Option<String> {
    Some(root.read(absolute).ok()?.trim().to_owned())
}

/// A number in a file of its own.
pub(crate) fn number(root: &Root, absolute: &str) -> Option<u64> {
    text(root, absolute)?.parse().ok()
}

/// The devices that hold data themselves: no partitions, and nothing that is made of other devices
/// or of memory.
pub(crate) fn disks(root: &Root) -> Vec<String> {
    let mut disks = names(root, "/sys/block");
    disks.retain(|name| holds_data(name));
    disks
}

fn holds_data(name: &str) -> bool {
    const DERIVED: &[&str] =
        &["loop", "ram", "zram", "dm-", "md", "sr", "fd", "zd", "bcache", "drbd", "nullb", "mtdblock"];
    let derived = DERIVED.iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    });
    // `nvme2c2n1` is one path to `nvme2n1`.
    let is_path = name
        .strip_prefix("nvme")
        .is_some_and(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('c'));
    !derived && !is_path
}

/// Whether a seek takes time. A virtual disk usually says yes.
pub(crate) fn spins(root: &Root, disk: &str) -> bool {
    number(root, &format!("/sys/block/{disk}/queue/rotational")) == Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_hold_data_are_disks() {
        let yes = ["sda", "vda", "xvda", "nvme0n1", "mmcblk0", "nbd0", "rbd0", "dasda", "mda", "cciss!c0d0"];
        assert!(yes.iter().all(|name| holds_data(name)));
        let no = ["loop0", "ram1", "zram0", "dm-3", "md127", "md_d0", "sr0", "zd16", "bcache0", "nvme2c2n1"];
        assert!(!no.iter().any(|name| holds_data(name)));
    }
}
