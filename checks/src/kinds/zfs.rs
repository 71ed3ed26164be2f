//! `zfs`: the state of each pool, as the kernel module tells it. It needs no right and no program.

use std::time::Duration;

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, State, Things,
    options::Reader,
    read::block::{names, text},
    result::CheckResult,
    root::{Root, in_container},
};

pub(crate) const KIND: Kind = Kind {
    name: "zfs",
    about: "the state of ZFS pools",
    options: &[],
    lane: Lane::Local,
    built_in: BuiltIn::With("ZFS pools of its own", |host| {
        !in_container(&host.root) && !pools(&host.root).is_empty()
    }),
    interval: None,
    things: Things::Names,
    make,
};

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(_: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Zfs(host.root.clone())))
}

struct Zfs(Root);

impl Blocking for Zfs {
    fn run(&self) -> Judgement {
        Findings::all(pools(&self.0).iter().map(|(pool, state)| judge(pool, state)).collect()).into()
    }
}

/// The imported pools and their states. (The other entries are statistics of the module.)
fn pools(root: &Root) -> Vec<(String, String)> {
    const STATS: &str = "/proc/spl/kstat/zfs";
    let state = |pool: String| Some((text(root, &format!("{STATS}/{pool}/state"))?, pool));
    names(root, STATS).into_iter().filter_map(state).map(|(state, pool)| (pool, state)).collect()
}

fn judge(pool: &str, state: &str) -> Finding {
    let (verdict, said) = match state {
        "ONLINE" => (State::Ok, "online"),
        // Still works, with less redundancy.
        "DEGRADED" => (State::Warning, "degraded: a disk is missing or has failed; see zpool status"),
        "FAULTED" => (State::Critical, "faulted: too many disks have failed; see zpool status"),
        "UNAVAIL" => (State::Critical, "unavailable: too many disks are missing; see zpool status"),
        "SUSPENDED" => (State::Critical, "suspended after I/O errors: all writes wait; see zpool status"),
        "OFFLINE" | "REMOVED" => (State::Critical, "offline; see zpool status"),
        other => {
            let result = CheckResult::unknown(format!("state {other:?}"));
            return Finding::of(pool, result).lasting(Duration::from_mins(1));
        }
    };
    Finding::of(pool, CheckResult::new(verdict, said)).at_once()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Past,
        testing::{findings, lines},
    };

    #[test]
    fn each_pool_has_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let stats = dir.path().join("proc/spl/kstat/zfs");
        for (pool, state) in
            [("backup", "DEGRADED"), ("rpool", "ONLINE"), ("tank", "SUSPENDED"), ("x", "NEW")]
        {
            fs::create_dir_all(stats.join(pool)).unwrap();
            fs::write(stats.join(pool).join("state"), format!("{state}\n")).unwrap();
        }
        fs::write(stats.join("arcstats"), "9 1 0x01\n").unwrap();
        let host = Host::new(Root::captured(dir.path()));
        assert!(KIND.is_built_in(&host));
        fs::write(dir.path().join(".dockerenv"), "").unwrap();
        assert!(!KIND.is_built_in(&host), "the pools of another host");
        let found = findings("zfs", &[], &host, &mut Past::default(), Duration::ZERO);
        assert_eq!(
            lines(&found),
            [
                "backup WARNING degraded: a disk is missing or has failed; see zpool status",
                "rpool OK online",
                "tank CRITICAL suspended after I/O errors: all writes wait; see zpool status",
                "x UNKNOWN state \"NEW\"",
            ]
        );
    }

    #[test]
    fn a_host_with_the_module_and_no_pool_has_no_check() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/spl/kstat/zfs")).unwrap();
        assert!(!KIND.is_built_in(&Host::new(Root::captured(dir.path()))));
    }
}
