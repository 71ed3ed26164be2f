//! `ecc`: memory errors that the hardware has corrected or not (EDAC), and machine checks.
//!
//! A few corrected errors are normal; ten in an hour mean that a module wears out. One error that
//! was not corrected is CRITICAL until the reboot. The kernel counts no machine checks that a
//! program could read, but marks itself as tainted by one.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::hwmon::text,
    result::CheckResult,
    root::Root,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "ecc",
    about: "memory errors and machine checks",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("counters of memory errors", has_sources),
    interval: None,
    things: Things::Names,
    make,
};

const CONTROLLERS: &str = "/sys/devices/system/edac/mc";
const MACHINE_CHECKS: &str = "/sys/devices/system/machinecheck";
const TAINTED: &str = "/proc/sys/kernel/tainted";

fn has_sources(host: &Host) -> bool {
    !controllers(&host.root).is_empty() || host.root.path(MACHINE_CHECKS).exists()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range for corrected errors in an hour [9]" },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range for corrected errors in an hour [never]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let warn = reader.range("warn").or(Some(Range::above(9.0)));
    let corrected = Thresholds { warn, crit: reader.range("crit") };
    Some(Check::blocking(Ecc { root: host.root.clone(), corrected }))
}

struct Ecc {
    root: Root,
    corrected: Thresholds,
}

/// Errors of a memory controller since boot.
#[derive(Debug, Clone, PartialEq)]
struct Controller {
    /// `mc0`
    name: String,
    corrected: u64,
    uncorrected: u64,
    /// Modules with errors: name, corrected, uncorrected.
    modules: Vec<(String, u64, u64)>,
}

fn controllers(root: &Root) -> Vec<Controller> {
    let mut controllers: Vec<_> =
        dirs(&root.path(CONTROLLERS), &["mc"]).iter().filter_map(|at| controller(at)).collect();
    controllers.sort_by(|one, other| one.name.cmp(&other.name));
    controllers
}

fn controller(at: &Path) -> Option<Controller> {
    let module = |at: &PathBuf| {
        let name = text(&at.join("dimm_label")).or_else(|| at.file_name()?.to_str().map(str::to_owned))?;
        let count = |file| count(&at.join(file)).unwrap_or(0);
        Some((name, count("dimm_ce_count"), count("dimm_ue_count")))
    };
    let mut modules: Vec<_> = dirs(at, &["dimm", "rank"]).iter().filter_map(module).collect();
    modules.retain(|(_, corrected, uncorrected)| corrected + uncorrected > 0);
    modules.sort();
    Some(Controller {
        name: at.file_name()?.to_str()?.to_owned(),
        corrected: count(&at.join("ce_count"))?,
        uncorrected: count(&at.join("ue_count")).unwrap_or(0),
        modules,
    })
}

fn count(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Directories whose name is one of `prefixes` and a number.
fn dirs(at: &Path, prefixes: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(at) else { return Vec::new() };
    let numbered = |name: &str| {
        let mut rests = prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix));
        rests.any(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(numbered))
        .map(|entry| entry.path())
        .collect()
}

impl Blocking for Ecc {
    fn run(&self) -> Judgement {
        let controllers = controllers(&self.root);
        let tainted = text(&self.root.path(TAINTED)).and_then(|bits| bits.parse::<u64>().ok());
        let tainted = tainted.filter(|_| self.root.path(MACHINE_CHECKS).exists());
        let limits = self.corrected;
        Judgement::new(move |past| {
            let mut list: Vec<_> = controllers.iter().map(|one| judge(past, one, limits)).collect();
            list.extend(tainted.map(judge_machine_checks));
            Findings::all(list)
        })
    }
}

fn judge(past: &mut Past, controller: &Controller, limits: Thresholds) -> Finding {
    let name = &controller.name;
    let recent = past.increase_within(name, controller.corrected, HOUR);
    let mut state = limits.judge(recent);
    if controller.uncorrected > 0 {
        state = State::Critical;
    }
    let mut summary = format!(
        "memory errors since boot: {} uncorrected, {} corrected",
        controller.uncorrected, controller.corrected
    );
    if recent > 0.0 {
        let _ = write!(summary, " ({recent} in the last hour)");
    }
    let worst =
        controller.modules.iter().max_by_key(|(_, corrected, uncorrected)| (*uncorrected, *corrected));
    if let Some((module, ..)) = worst.filter(|_| state != State::Ok) {
        let _ = write!(summary, ", most in {module}");
    }
    let line = |(module, corrected, uncorrected): &(String, u64, u64)| {
        format!("{module}: {uncorrected} uncorrected, {corrected} corrected")
    };
    let detail = controller.modules.iter().map(line).collect::<Vec<_>>().join("\n");
    #[expect(clippy::cast_precision_loss, reason = "a count of errors")]
    let perf = |what, count: u64| Perf::new(format!("{name} {what}"), count as f64, "c").bounds(0.0, None);
    let perfdata = vec![perf("corrected", controller.corrected), perf("uncorrected", controller.uncorrected)];
    Finding::of(name, CheckResult::new(state, summary).with_detail(detail).with_perfdata(perfdata)).at_once()
}

const HOUR: Duration = Duration::from_hours(1);

fn judge_machine_checks(tainted: u64) -> Finding {
    let result = if tainted & TAINT_MACHINE_CHECK == 0 {
        CheckResult::new(State::Ok, "no machine check since boot")
    } else {
        CheckResult::new(
            State::Warning,
            "the processor reported a machine check since boot (see the kernel log)",
        )
    };
    Finding::of("machine checks", result).at_once()
}

/// `M` (the kernel's `tainted-kernels.rst`).
const TAINT_MACHINE_CHECK: u64 = 1 << 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        built_in,
        testing::{findings, fixture, lines},
    };

    #[test]
    fn ten_corrected_errors_in_an_hour_are_a_warning_and_one_uncorrected_is_critical() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let write = |file: &str, count: u64| {
            let path = tree.path().join("sys/devices/system/edac/mc/mc0").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{count}\n")).unwrap();
        };
        let mut past = Past::default();
        let mut line = |minute, corrected, uncorrected| {
            write("ce_count", corrected);
            write("ue_count", uncorrected);
            write("dimm3/dimm_ce_count", corrected);
            let found = findings("ecc", &[], &host, &mut past, Duration::from_mins(minute));
            lines(&found).join("\n")
        };
        let since_boot = "memory errors since boot:";
        assert_eq!(line(60, 500, 0), format!("mc0 OK {since_boot} 0 uncorrected, 500 corrected"));
        let few = format!("mc0 OK {since_boot} 0 uncorrected, 509 corrected (9 in the last hour)");
        assert_eq!(line(61, 509, 0), few);
        let many = "0 uncorrected, 510 corrected (10 in the last hour), most in dimm3";
        assert_eq!(line(62, 510, 0), format!("mc0 WARNING {since_boot} {many}"));
        assert_eq!(line(200, 510, 0), format!("mc0 OK {since_boot} 0 uncorrected, 510 corrected"));
        let lost = "1 uncorrected, 510 corrected, most in dimm3";
        assert_eq!(line(201, 510, 1), format!("mc0 CRITICAL {since_boot} {lost}"));
        assert_eq!(line(202, 0, 0), format!("mc0 OK {since_boot} 0 uncorrected, 0 corrected"), "rebooted");
    }

    #[test]
    fn a_server_with_a_bad_module_and_a_machine_check() {
        let host = fixture("ecc");
        let found = findings("ecc", &[], &host, &mut Past::default(), Duration::from_hours(1));
        assert_eq!(
            lines(&found),
            [
                "mc0 CRITICAL memory errors since boot: 2 uncorrected, 57 corrected, \
                 most in CPU_SrcID#0_MC#0_Chan#1_DIMM#0",
                "mc1 OK memory errors since boot: 0 uncorrected, 0 corrected",
                "machine checks WARNING the processor reported a machine check since boot (see the kernel log)",
            ]
        );
        assert!(built_in(&host).any(|kind| kind.name == "ecc"));
        assert!(!built_in(&fixture("debian12-vm")).any(|kind| kind.name == "ecc"));
    }
}
