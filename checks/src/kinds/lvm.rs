//! `lvm`: thin pools of LVM that fill up.
//!
//! A pool that is full stops all writes of its volumes, or fails them. Only `dmsetup` tells how
//! full it is, and it needs root. Without that right, the pools are listed as blind.

use std::{path::Path, pin::Pin, process::Stdio, sync::Arc, time::Duration};

use tokio::process::Command;

use crate::{
    Async, Blind, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, PerThing, Reader},
    perfdata::Perf,
    read::block::{names, text},
    result::CheckResult,
    root::{Root, in_container},
    space::percent,
    threshold::{Number, Range},
};

pub(crate) const KIND: Kind = Kind {
    name: "lvm",
    about: "data and metadata of LVM thin pools",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("thin pools and RAID volumes of LVM of its own", |host| {
        !in_container(&host.root) && !pools(&host.root).is_empty()
    }),
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "warn", value: "PERCENT", help: "WARNING above this use of data or metadata [90]" },
    OptionSpec { name: "crit", value: "PERCENT", help: "CRITICAL above this use [98]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = reader.per_thing(|reader| {
        let limits = Limits {
            warn: reader.parsed("warn", percentage).unwrap_or(90.0),
            crit: reader.parsed("crit", percentage).unwrap_or(98.0),
        };
        let both = [Some(&limits.warn), Some(&limits.crit)];
        reader.refuse_inverted(["warn", "crit"], both, |percent| format!("{percent}%"));
        limits
    });
    Some(Check::asynchronous(Lvm { root: host.root.clone(), limits: Arc::new(limits) }))
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = crate::threshold::number(text.trim_end_matches('%').trim_end());
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("{text:?} is not a percentage; write for example \"90%\""))
}

struct Lvm {
    root: Root,
    limits: Arc<PerThing<Limits>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    warn: f64,
    crit: f64,
}

impl Async for Lvm {
    fn run(self: Arc<Self>, timeout: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let pools = pools(&self.root);
            let status = tokio::time::timeout(timeout, dmsetup());
            let status = status.await.unwrap_or_else(|_| Err("dmsetup does not answer".into()));
            let limits = Arc::clone(&self.limits);
            Judgement::new(move |past| judge(&pools, &status, &limits, past))
        })
    }
}

/// The names of the thin pools in device mapper, without `-tpool`.
fn pools(root: &Root) -> Vec<String> {
    let devices = names(root, "/sys/block").into_iter().filter(|name| name.starts_with("dm-"));
    let pool = |device: String| {
        let uuid = text(root, &format!("/sys/block/{device}/dm/uuid"))?;
        (uuid.starts_with("LVM-") && uuid.ends_with("-tpool")).then_some(())?;
        Some(shown(&text(root, &format!("/sys/block/{device}/dm/name"))?))
    };
    devices.filter_map(pool).collect()
}

/// `vg-pool-tpool` is the pool `vg/pool`; a hyphen within a name is doubled.
fn shown(name: &str) -> String {
    let name = name.strip_suffix("-tpool").unwrap_or(name);
    name.replace("--", "\0").replacen('-', "/", 1).replace('\0', "-")
}

/// The status of all thin pools, or why there is none.
async fn dmsetup() -> Result<String, String> {
    let program = ["/usr/sbin/dmsetup", "/sbin/dmsetup"].into_iter().find(|path| Path::new(path).exists());
    let program = program.ok_or("dmsetup is not installed")?;
    let mut command = Command::new(program);
    command
        .args(["status", "--target", "thin-pool"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("cannot run dmsetup: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(match stderr.lines().next() {
        Some(line) if line.contains("ermission denied") => "no permission: dmsetup needs root".into(),
        Some(line) => format!("dmsetup: {line}"),
        None => format!("dmsetup: {}", output.status),
    })
}

fn judge(
    pools: &[String],
    status: &Result<String, String>,
    limits: &PerThing<Limits>,
    past: &mut Past,
) -> Findings {
    let text = match status {
        Ok(text) => text,
        Err(why) => {
            let blind = pools.iter().map(|pool| Blind { thing: pool.clone(), why: why.clone() });
            return Findings::default().with_blind(blind.collect());
        }
    };
    let pools = text.lines().filter_map(parse);
    Findings::all(pools.map(|(name, pool)| judge_one(name, &pool, limits, past)).collect())
}

/// The status of one pool.
#[derive(Debug, Clone, PartialEq)]
enum Pool {
    /// The kernel refuses all I/O.
    Failed,
    /// Shares of data and metadata that are used, in percent.
    Used { data: f64, metadata: f64, mode: String, needs_check: bool },
}

/// `vg-pool-tpool: 0 2097152 thin-pool 1 400/4096 1000/3200 - rw no_discard_passdown
/// queue_if_no_space - 1024` (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
fn parse(line: &str) -> Option<(String, Pool)> {
    let (name, fields) = line.split_once(": ")?;
    let fields: Vec<_> = fields.split_whitespace().skip(2).collect();
    let name = shown(name);
    match fields[..] {
        ["thin-pool", "Fail" | "Error", ..] => Some((name, Pool::Failed)),
        ["thin-pool", _, metadata, data, _, mode, ref rest @ ..] => {
            let share = |text: &str| {
                let (used, total) = text.split_once('/')?;
                Some(percent(crate::threshold::number(used)?, crate::threshold::number(total)?))
            };
            let (data, metadata) = (share(data)?, share(metadata)?);
            let needs_check = rest.contains(&"needs_check");
            Some((name, Pool::Used { data, metadata, mode: mode.to_owned(), needs_check }))
        }
        _ => None,
    }
}

fn judge_one(name: String, pool: &Pool, limits: &PerThing<Limits>, past: &mut Past) -> Finding {
    let limits = *limits.of(&name);
    let was = past.was(Some(&name));
    let Pool::Used { data, metadata, mode, needs_check } = pool else {
        return Finding::of(name, CheckResult::new(State::Critical, "failed: all reads and writes fail"))
            .at_once();
    };
    let state_of = |used: f64| {
        // A tenth of what is free clears a limit.
        let above =
            |limit: f64, broken: bool| used > limit - if broken { (100.0 - limit) * 0.1 } else { 0.0 };
        match () {
            () if above(limits.crit, was == State::Critical) => State::Critical,
            () if above(limits.warn, was != State::Ok) => State::Warning,
            () => State::Ok,
        }
    };
    let said = |what: &str, used: f64| {
        let limit = match state_of(used) {
            State::Critical => format!(" (limit {}%)", Number(limits.crit)),
            State::Warning => format!(" (limit {}%)", Number(limits.warn)),
            State::Ok | State::Unknown => String::new(),
        };
        format!("{what} {used:.0}% used{limit}")
    };
    let mut parts = vec![said("data", *data), said("metadata", *metadata)];
    let mut state = state_of(*data).max(state_of(*metadata));
    let stopped = match mode.as_str() {
        "rw" => None,
        "out_of_data_space" => Some("out of data space".to_owned()),
        "ro" => Some("read-only".to_owned()),
        other => Some(format!("mode {other}")),
    };
    if let Some(stopped) = &stopped {
        parts.insert(0, stopped.clone());
        state = State::Critical;
    }
    if *needs_check {
        parts.push("needs a check: lvconvert --repair".into());
        state = State::Critical;
    }
    let perf = |what: &str, used: f64| {
        Perf::new(format!("{name} {what}"), used, "%")
            .thresholds(Some(Range::above(limits.warn)), Some(Range::above(limits.crit)))
            .bounds(0.0, 100.0)
    };
    let perfdata = vec![perf("data", *data), perf("metadata", *metadata)];
    let result = CheckResult::new(state, parts.join(", ")).with_perfdata(perfdata);
    let finding = Finding::of(name, result);
    if stopped.is_some() { finding.at_once() } else { finding }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::lines;

    fn judged(text: &str) -> Vec<String> {
        let limits = PerThing::from(Limits { warn: 90.0, crit: 98.0 });
        lines(&judge(&[], &Ok(text.into()), &limits, &mut Past::default()))
    }

    #[test]
    fn pools_are_judged_by_data_and_metadata() {
        assert_eq!(
            judged(
                "vg-pool-tpool: 0 2097152 thin-pool 1 400/4000 1000/3200 - rw discard_passdown queue_if_no_space - 1024\n\
                 my--vg-thin--pool-tpool: 0 8 thin-pool 1 3700/4000 2976/3200 - rw discard_passdown queue_if_no_space - 1024\n\
                 a-b-tpool: 0 8 thin-pool 1 1/4000 3200/3200 - out_of_data_space discard_passdown queue_if_no_space - 1024\n\
                 a-c-tpool: 0 8 thin-pool 1 1/4000 1/3200 - ro discard_passdown error_if_no_space needs_check 1024\n\
                 a-d-tpool: 0 8 thin-pool Fail\n\
                 No devices found\n"
            ),
            [
                "vg/pool OK data 31% used, metadata 10% used",
                "my-vg/thin-pool WARNING data 93% used (limit 90%), metadata 92% used (limit 90%)",
                "a/b CRITICAL out of data space, data 100% used (limit 98%), metadata 0% used",
                "a/c CRITICAL read-only, data 0% used, metadata 0% used, needs a check: lvconvert --repair",
                "a/d CRITICAL failed: all reads and writes fail",
            ]
        );
    }

    #[test]
    fn without_the_right_to_ask_the_pools_are_blind_and_not_unknown() {
        let limits = PerThing::from(Limits { warn: 90.0, crit: 98.0 });
        let why = "no permission: dmsetup needs root";
        let found = judge(&["vg/pool".into()], &Err(why.into()), &limits, &mut Past::default());
        assert_eq!(found.list, []);
        assert_eq!(found.blind, [Blind { thing: "vg/pool".into(), why: why.into() }]);
        assert!(!found.all);
        assert_eq!(
            found.summed_up().summary,
            "nothing can be checked: vg/pool: no permission: dmsetup needs root"
        );
    }

    #[test]
    fn thin_pools_are_found_without_any_right() {
        let dir = tempfile::tempdir().unwrap();
        for (device, name, uuid) in [
            ("dm-0", "vg-root", "LVM-abcdef"),
            ("dm-1", "vg-pool-tpool", "LVM-abcdef-tpool"),
            ("dm-2", "vg-pool_tdata", "LVM-abcdef-tdata"),
        ] {
            let dm = dir.path().join("sys/block").join(device).join("dm");
            std::fs::create_dir_all(&dm).unwrap();
            std::fs::write(dm.join("name"), format!("{name}\n")).unwrap();
            std::fs::write(dm.join("uuid"), format!("{uuid}\n")).unwrap();
        }
        assert_eq!(pools(&Root::captured(dir.path())), ["vg/pool"]);
    }

    #[test]
    fn limits_are_percentages() {
        assert_eq!(percentage("90%"), Ok(90.0));
        assert!(["", "ten", "120%", "-1"].iter().all(|wrong| percentage(wrong).is_err()));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|[0-9]{1,22}| |/|: |thin-pool|Fail){0,30}") {
            parse(&text);
        }
    }
}
