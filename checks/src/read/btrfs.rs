//! Reads `/sys/fs/btrfs` (Documentation/ABI/testing/sysfs-fs-btrfs and fs/btrfs/sysfs.c).

use super::block::{names, number, text};
use crate::{name::escaped, root::Root};

/// One mounted filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Btrfs {
    /// The label, or else the UUID.
    pub(crate) name: String,
    pub(crate) devices: Vec<Device>,
    pub(crate) metadata: Option<Chunks>,
    /// Bytes of all devices, and of them those that belong to a chunk.
    pub(crate) size: u64,
    pub(crate) allocated: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) missing: bool,
    /// Names and counts: `write_errs`, `corruption_errs`. `None` before Linux 5.14.
    pub(crate) errors: Option<Vec<(String, u64)>>,
}

/// The bytes of all chunks of a sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    pub(crate) total: u64,
    pub(crate) used: u64,
}

pub(crate) fn read(root: &Root) -> Vec<Btrfs> {
    let mut all: Vec<_> = names(root, "/sys/fs/btrfs")
        .into_iter()
        // The other entry is `features`.
        .filter(|name| name.len() == 36)
        .map(|uuid| read_one(root, uuid))
        .collect();
    // Two clones may have one label.
    let labels: Vec<_> = all.iter().map(|(_, filesystem)| filesystem.name.clone()).collect();
    for (uuid, filesystem) in &mut all {
        if labels.iter().filter(|label| **label == filesystem.name).count() > 1 {
            filesystem.name.clone_from(uuid);
        }
    }
    all.into_iter().map(|(_, filesystem)| filesystem).collect()
}

fn read_one(root: &Root, uuid: String) -> (String, Btrfs) {
    let base = format!("/sys/fs/btrfs/{uuid}");
    let device = |id: String| Device {
        missing: number(root, &format!("{base}/devinfo/{id}/missing")) == Some(1),
        errors: text(root, &format!("{base}/devinfo/{id}/error_stats")).map(|text| error_stats(&text)),
        id,
    };
    let chunks = |sort: &str, field: &str| number(root, &format!("{base}/allocation/{sort}/{field}"));
    // Sectors of 512 bytes.
    let size_of = |name: String| number(root, &format!("{base}/devices/{name}/size")).unwrap_or_default();
    let allocated = ["data", "metadata", "system"].map(|sort| chunks(sort, "disk_total"));
    let label = text(root, &format!("{base}/label")).filter(|label| !label.is_empty());
    let filesystem = Btrfs {
        name: label.map_or_else(|| uuid.clone(), escaped),
        devices: names(root, &format!("{base}/devinfo")).into_iter().map(device).collect(),
        metadata: chunks("metadata", "total_bytes")
            .zip(chunks("metadata", "bytes_used"))
            .map(|(total, used)| Chunks { total, used }),
        size: names(root, &format!("{base}/devices"))
            .into_iter()
            .map(size_of)
            .fold(0, u64::saturating_add)
            .saturating_mul(512),
        allocated: allocated.into_iter().try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?))),
    };
    (uuid, filesystem)
}

/// `write_errs 0`, one a line.
fn error_stats(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|[0-9]{1,22}| |\\n|write_errs){0,40}") {
            error_stats(&text);
        }
    }
}
