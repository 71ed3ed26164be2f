//! Reads the arrays of md from `/sys/block/md*/md` (Documentation/admin-guide/md.rst).
//!
//! `/proc/mdstat` is for people: what it calls `recovery`, `DELAYED` and so on has changed, and it
//! does not say that a disk was removed (node_exporter#2384).

use super::block::{names, number, text};
use crate::root::Root;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) name: String,
    /// `raid1`, `raid0`; empty for the container of arrays whose metadata the firmware wrote.
    pub(crate) level: String,
    /// `clean`, `active`, `inactive`, `broken`.
    pub(crate) state: String,
    pub(crate) disks: u64,
    /// Missing disks. 0 for levels without redundancy.
    pub(crate) degraded: u64,
    /// `idle`, `resync`, `recover`, `check`, `repair`, `reshape`, `frozen`.
    pub(crate) action: String,
    /// Sectors that are done, of all. `None` if the action has not begun.
    pub(crate) completed: Option<(u64, u64)>,
    pub(crate) kib_per_second: u64,
    /// Sectors that differed at the last check.
    pub(crate) mismatches: u64,
    pub(crate) faulty: Vec<String>,
}

/// The arrays that exist, started or not.
pub(crate) fn read(root: &Root) -> Vec<Array> {
    let all = names(root, "/sys/block").into_iter().filter(|name| name.starts_with("md"));
    all.filter_map(|name| read_one(root, name)).collect()
}

fn read_one(root: &Root, name: String) -> Option<Array> {
    let base = format!("/sys/block/{name}/md");
    let get = |file: &str| text(root, &format!("{base}/{file}"));
    let count = |file: &str| number(root, &format!("{base}/{file}")).unwrap_or_default();
    let state = get("array_state")?;
    let metadata = get("metadata_version").unwrap_or_default();
    // `external:/md127/0` is an array in the container `external:imsm`.
    let is_container = metadata.starts_with("external:") && !metadata.starts_with("external:/");
    // A stopped array may leave its name behind.
    if state == "clear" || is_container {
        return None;
    }
    let members = names(root, &base).into_iter().filter_map(|entry| {
        let disk = entry.strip_prefix("dev-")?;
        let flags = get(&format!("{entry}/state"))?;
        flags.split(',').any(|flag| flag == "faulty").then(|| disk.to_owned())
    });
    Some(Array {
        level: get("level").unwrap_or_default(),
        state,
        disks: count("raid_disks"),
        degraded: count("degraded"),
        action: get("sync_action").unwrap_or_default(),
        completed: get("sync_completed").and_then(|text| completed(&text)),
        kib_per_second: count("sync_speed"),
        mismatches: count("mismatch_cnt"),
        faulty: members.collect(),
        name,
    })
}

/// `1234 / 5678`; `none` and `delayed` are no progress (node_exporter#3500).
fn completed(text: &str) -> Option<(u64, u64)> {
    let (done, all) = text.split_once('/')?;
    Some((done.trim().parse().ok()?, all.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn progress_is_a_fraction_or_a_word() {
        assert_eq!(completed("1234 / 5678"), Some((1_234, 5_678)));
        assert_eq!(["none", "delayed", "", "1 /", "a / b"].map(completed), [None; 5]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|[0-9]{1,22}| |/){0,20}") {
            completed(&text);
        }
    }
}
