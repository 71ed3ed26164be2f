//! `btrfs`: missing devices, and metadata that cannot grow.
//!
//! btrfs gives whole chunks to data or to metadata. When all devices are given away and the chunks
//! for metadata are full, nothing can be written, whatever `df` says. Errors of devices are in
//! `ioerrors`, free space in `disk`.

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::Reader,
    perfdata::Perf,
    read::btrfs::{self, Btrfs},
    result::CheckResult,
    root::{Root, in_container},
    space::{human, percent},
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "btrfs",
    about: "btrfs: missing devices, metadata that cannot grow",
    options: &[],
    lane: Lane::Local,
    built_in: BuiltIn::With("btrfs filesystems of its own", |host| {
        !in_container(&host.root) && !btrfs::read(&host.root).is_empty()
    }),
    interval: None,
    things: Things::Names,
    make,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(_: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Filesystems(host.root.clone())))
}

struct Filesystems(Root);

impl Blocking for Filesystems {
    fn run(&self) -> Judgement {
        let filesystems = btrfs::read(&self.0);
        Judgement::new(move |past| {
            Findings::all(filesystems.iter().map(|filesystem| judge(filesystem, past)).collect())
        })
    }
}

fn judge(filesystem: &Btrfs, past: &mut Past) -> Finding {
    let name = filesystem.name.as_str();
    let was = past.was(Some(name));
    let missing: Vec<_> =
        filesystem.devices.iter().filter(|device| device.missing).map(|device| device.id.as_str()).collect();
    let mut perfdata = Vec::new();
    let mut said = Vec::new();
    let mut state = State::Ok;
    if !missing.is_empty() {
        let all = filesystem.devices.len();
        said.push(format!("degraded: device {} of {all} missing", missing.join(", ")));
        state = State::Critical;
    }
    if let (Some(metadata), Some(allocated)) = (filesystem.metadata, filesystem.allocated)
        && filesystem.size > 0
    {
        let used = percent(bytes(metadata.used), bytes(metadata.total));
        let unallocated = filesystem.size.saturating_sub(allocated);
        // A chunk of metadata has 1 GiB at most, and less on a small filesystem.
        let cannot_grow = unallocated < GIB.min(filesystem.size / 50);
        let above = |limit: f64, broken: bool| used >= if broken { limit - 1.0 } else { limit };
        let space = match () {
            () if !cannot_grow => State::Ok,
            () if above(CRIT, was == State::Critical && missing.is_empty()) => State::Critical,
            () if above(WARN, was != State::Ok) => State::Warning,
            () => State::Ok,
        };
        let limit = match space {
            State::Critical => format!(" (limit {CRIT}%)"),
            State::Warning => format!(" (limit {WARN}%)"),
            State::Ok | State::Unknown => String::new(),
        };
        said.push(format!("metadata {used:.0}% full{limit}, {} unallocated", human(bytes(unallocated))));
        if space != State::Ok {
            said.push("run btrfs balance start -dusage=10".into());
        }
        state = state.max(space);
        perfdata.push(
            Perf::new(format!("{name} metadata"), bytes(metadata.used), "B")
                .bounds(0.0, bytes(metadata.total)),
        );
        perfdata.push(
            Perf::new(format!("{name} allocated"), bytes(allocated), "B").bounds(0.0, bytes(filesystem.size)),
        );
    }
    if said.is_empty() {
        said.push("all devices present".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of devices")]
    perfdata.push(
        Perf::new(format!("{name} missing"), missing.len() as f64, "")
            .thresholds(None, Some(Range::above(0.0))),
    );
    let finding = Finding::of(name, CheckResult::new(state, said.join(", ")).with_perfdata(perfdata));
    if missing.is_empty() { finding } else { finding.at_once() }
}

#[expect(clippy::cast_precision_loss, reason = "bytes; the error does not matter")]
fn bytes(count: u64) -> f64 {
    count as f64
}

/// netdata: `btrfs_metadata` 90 and 95 % while `btrfs_allocated` is above 98 %.
const WARN: f64 = 90.0;
const CRIT: f64 = 95.0;
const GIB: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::testing::{findings, lines};

    struct World {
        dir: tempfile::TempDir,
        host: Host,
        past: Past,
    }

    impl World {
        /// 100 GiB on two devices.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::new(Root::captured(dir.path()));
            let world = Self { dir, host, past: Past::default() };
            world.set("label", "data");
            for (id, disk) in [("1", "sda1"), ("2", "sdb1")] {
                world.set(&format!("devinfo/{id}/missing"), "0");
                world.set(&format!("devices/{disk}/size"), &(100_u64 << 20).to_string());
            }
            world
        }

        fn set(&self, path: &str, text: &str) {
            let path = self.dir.path().join("sys/fs/btrfs/0ab3ff6b-44f2-4a8e-b5a1-0123456789ab").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        /// GiB of chunks of data, and MiB of metadata in 2 GiB of chunks.
        fn space(&mut self, data_gib: u64, metadata_mib: u64) -> Vec<String> {
            self.set("allocation/data/disk_total", &(data_gib << 30).to_string());
            self.set("allocation/metadata/disk_total", &(4_u64 << 30).to_string());
            self.set("allocation/metadata/total_bytes", &(2_u64 << 30).to_string());
            self.set("allocation/metadata/bytes_used", &(metadata_mib << 20).to_string());
            self.set("allocation/system/disk_total", &(64_u64 << 20).to_string());
            self.run()
        }

        fn run(&mut self) -> Vec<String> {
            lines(&findings("btrfs", &[], &self.host, &mut self.past, Duration::from_hours(1)))
        }
    }

    #[test]
    fn full_metadata_is_a_problem_only_if_it_cannot_grow() {
        let mut world = World::new();
        assert_eq!(world.space(50, 2_000), ["data OK metadata 98% full, 45.9 GiB unallocated"]);
        assert_eq!(world.space(96, 1_000), ["data OK metadata 49% full, 0 B unallocated"]);
        let balance = "run btrfs balance start -dusage=10";
        assert_eq!(
            world.space(96, 1_860),
            [format!("data WARNING metadata 91% full (limit 90%), 0 B unallocated, {balance}")]
        );
        assert!(world.space(96, 1_990)[0].starts_with("data CRITICAL metadata 97% full (limit 95%)"));
        assert!(world.space(96, 1_935)[0].starts_with("data CRITICAL"), "not yet clear");
        assert!(world.space(96, 1_900)[0].starts_with("data WARNING"));
    }

    #[test]
    fn a_missing_device_is_critical_at_once() {
        let mut world = World::new();
        assert_eq!(world.run(), ["data OK all devices present"], "an old kernel tells no space");
        world.set("devinfo/2/missing", "1");
        assert_eq!(world.run(), ["data CRITICAL degraded: device 2 of 2 missing"]);
        let found = findings("btrfs", &[], &world.host, &mut world.past, Duration::from_hours(1));
        assert_eq!(found.list[0].lasting, Some(Duration::ZERO));
    }
}
