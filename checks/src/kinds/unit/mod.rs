//! `unit`: failed units, restart loops, enabled services that are stopped, late timers.
//!
//! A run is one `systemctl show`: a glob that systemd reduces to the units with a problem, and the
//! enabled services and timers by name. So thousands of scopes and mounts cost nothing. Measured on
//! Debian 12 (systemd 252, 134 units, 20 of them enabled; CPU of `systemctl` and of PID 1):
//!
//! | query | systemctl | PID 1 |
//! | --- | --- | --- |
//! | `show` of the units with a problem and the enabled ones | 24 ms | 13 ms |
//! | `show` of all services, timers, sockets and mounts | 75 ms | 50 ms |
//! | `list-units --failed` (no restarts, no timers) | 4 ms | 2 ms |
//!
//! Which units have a result: those with a problem, those of `units`, and the enabled services that
//! keep running. A unit that is well again has one more result. Without systemd the check is not
//! built in; if it is configured there, it is UNKNOWN.

mod judge;
mod timer;

use std::{fs, pin::Pin, process::Stdio, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::{
    Async, BuiltIn, Check, Host, Judgement, Kind, Lane, Things, clock,
    options::{OptionSpec, PerThing, Reader},
    output::clean,
    pattern::Pattern,
    read::systemctl,
    result::CheckResult,
    root::{Root, runs_systemd},
    things::has_unit_type,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "unit",
    about: "systemd: failed units, restart loops, stopped services, late timers",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("systemd as its init", booted),
    interval: None,
    things: Things::Units,
    make,
};

fn booted(host: &Host) -> bool {
    runs_systemd(&host.root)
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "units",
        value: "UNIT",
        help: "CRITICAL if this unit is not active or does not exist; * matches any text; can be a list",
    },
    OptionSpec { name: "exclude", value: "UNIT", help: "skip this unit; * matches any text; can be a list" },
    OptionSpec { name: "ignore", value: "UNIT", help: "another name of exclude" },
    OptionSpec {
        name: "warn_restarts",
        value: "RANGE",
        help: "WARNING range for restarts within 10 minutes [2]",
    },
    OptionSpec {
        name: "crit_restarts",
        value: "RANGE",
        help: "CRITICAL range for restarts within 10 minutes [9]",
    },
    OptionSpec {
        name: "stopped",
        value: "warn|ignore",
        help: "what to do about an enabled service that does not run although nobody stopped it [warn]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let settings = Arc::new(settings(reader));
    Some(Check::asynchronous(Units { root: host.root.clone(), settings }))
}

fn settings(reader: &mut Reader<'_>) -> Settings {
    let mut exclude = reader.list("exclude").unwrap_or_default();
    exclude.extend(reader.list("ignore").unwrap_or_default());
    let patterns = |names: Vec<String>| names.into_iter().map(|name| Pattern::new(full(name))).collect();
    Settings {
        named: patterns(reader.list("units").unwrap_or_default()),
        exclude: patterns(exclude),
        limits: reader.per_thing(|reader| Limits {
            restarts: Thresholds {
                warn: reader.range("warn_restarts").or(Some(Range::above(2.0))),
                crit: reader.range("crit_restarts").or(Some(Range::above(9.0))),
            },
            warn_stopped: reader.parsed("stopped", warn_or_ignore).unwrap_or(true),
        }),
    }
}

fn warn_or_ignore(text: &str) -> Result<bool, String> {
    match text {
        "warn" => Ok(true),
        "ignore" => Ok(false),
        _ => Err(format!("{text:?} must be \"warn\" or \"ignore\"")),
    }
}

/// `nginx` means `nginx.service`, as for systemctl.
fn full(name: String) -> String {
    let has_type = has_unit_type(&name) || name.ends_with('*');
    if has_type { name } else { format!("{name}.service") }
}

struct Units {
    root: Root,
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    named: Vec<Pattern>,
    exclude: Vec<Pattern>,
    limits: PerThing<Limits>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    restarts: Thresholds,
    warn_stopped: bool,
}

/// What a run has read.
#[derive(Debug)]
struct Reading {
    units: Vec<systemctl::Unit>,
    /// Names of services and timers that a target of [`TARGETS`] starts, and that target.
    enabled: Vec<(String, &'static str)>,
    /// `CLOCK_MONOTONIC`, which the times of units are in.
    monotonic: Duration,
    unix: i64,
}

/// The targets of a host that is up. What other targets want may well be stopped.
const TARGETS: &[&str] = &["multi-user.target", "graphical.target", "timers.target"];

impl Async for Units {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            if !runs_systemd(&self.root) {
                return CheckResult::unknown("systemd is not the init of this host").into();
            }
            match timeout(limit, self.read()).await {
                Ok(Ok(reading)) => {
                    let settings = Arc::clone(&self.settings);
                    Judgement::new(move |past| judge::judge(&reading, &settings, past))
                }
                Ok(Err(problem)) => unknown(problem),
                Err(_) => unknown(format!("systemd did not answer within {} s", limit.as_secs_f64())),
            }
        })
    }
}

/// The check as a whole is UNKNOWN; nothing is known about its units.
fn unknown(problem: String) -> Judgement {
    Judgement::new(move |_| crate::Findings {
        list: vec![crate::Finding::whole(CheckResult::unknown(problem))],
        ..crate::Findings::default()
    })
}

impl Units {
    async fn read(&self) -> Result<Reading, String> {
        let enabled = enabled(&self.root);
        let mut names: Vec<String> = TARGETS.iter().map(|&target| target.to_owned()).collect();
        names.extend(enabled.iter().map(|(name, _)| name.clone()));
        let (literal, globs): (Vec<_>, Vec<_>) =
            self.settings.named.iter().partition(|pattern| pattern.is_literal());
        names.extend(literal.into_iter().map(|pattern| pattern.as_str().to_owned()));
        if !globs.is_empty() {
            let mut arguments = vec!["list-units", "--all", "--full", "--plain", "--no-legend", "--"];
            arguments.extend(globs.iter().map(|pattern| pattern.as_str()));
            let listed = ask("systemctl", &arguments).await?;
            names.extend(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
        }
        let mut arguments =
            vec!["show", "--all", "--state=failed,auto-restart,activating", "-p", systemctl::PROPERTIES];
        arguments.extend(["--", "*"]);
        arguments.extend(names.iter().map(String::as_str));
        let shown = ask("systemctl", &arguments).await?;
        let units = systemctl::parse(&shown);
        if units.is_empty() {
            return Err("systemctl printed no units".into());
        }
        Ok(Reading { units, enabled, monotonic: clock::monotonic(), unix: clock::unix_seconds() })
    }
}

/// Enabling a unit creates a link in one of these directories, so no process is needed to find it.
/// They are on the root filesystem and small.
fn enabled(root: &Root) -> Vec<(String, &'static str)> {
    let mut enabled = Vec::new();
    for &target in TARGETS {
        for (base, by) in [("/etc", "wants"), ("/etc", "requires"), ("/run", "wants"), ("/run", "requires")] {
            let directory = root.path(format!("{base}/systemd/system/{target}.{by}"));
            let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(ENABLED_MAX);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            enabled.extend(
                names
                    .filter(|name| matches!(name.rsplit_once('.'), Some((_, "service" | "timer"))))
                    .map(|name| (name, target)),
            );
        }
    }
    enabled
}

const ENABLED_MAX: usize = 1_000;

/// Runs systemctl and returns its output. Dropping the future kills it.
async fn ask(systemctl: &str, arguments: &[&str]) -> Result<String, String> {
    let mut child = Command::new(systemctl)
        .args(["--no-pager", "--no-ask-password"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run systemctl: {error}"))?;
    let (mut printed, mut complaint) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Err("systemctl has no output".into()) };
    let read = tokio::try_join!(async { stdout.take(PRINTED_MAX).read_to_end(&mut printed).await }, async {
        stderr.take(COMPLAINT_MAX).read_to_end(&mut complaint).await
    },);
    let (length, _) = read.map_err(|error| format!("cannot read from systemctl: {error}"))?;
    if length as u64 == PRINTED_MAX {
        return Err("systemctl printed more than 8 MiB".into());
    }
    let status = child.wait().await.map_err(|error| format!("cannot wait for systemctl: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&printed).into_owned());
    }
    let complaint = clean(&String::from_utf8_lossy(&complaint));
    Err(format!("systemctl: {}", complaint.lines().next().unwrap_or("failed without an error message")))
}

/// Enough for ten thousand units with a problem.
const PRINTED_MAX: u64 = 8 * 1_024 * 1_024;
const COMPLAINT_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{State, kind, testing::run_async};

    #[tokio::test]
    async fn errors_of_systemctl_are_reported() {
        assert!(ask("/no/such/systemctl", &[]).await.unwrap_err().starts_with("cannot run systemctl"));
        assert_eq!(ask("/bin/false", &[]).await.unwrap_err(), "systemctl: failed without an error message");
    }

    #[tokio::test]
    async fn without_systemd_there_is_one_unknown_that_says_so() {
        let result = run_async("unit", &[("units", "nginx")]).await;
        if runs_systemd(&Root::live()) {
            assert_eq!(result.state, State::Critical, "{}", result.summary);
            assert!(result.summary.contains("nginx.service no unit has this name"), "{}", result.summary);
        } else {
            assert_eq!(result.state, State::Unknown);
            assert_eq!(result.summary, "systemd is not the init of this host");
        }
    }

    #[test]
    fn what_is_enabled_is_found_without_a_process() {
        let root = Root::captured(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/units"));
        let enabled = enabled(&root);
        assert!(enabled.contains(&("web.service".into(), "multi-user.target")), "{enabled:?}");
        assert!(enabled.contains(&("daily.timer".into(), "timers.target")), "{enabled:?}");
        assert!(!enabled.iter().any(|(name, _)| name == "remote-fs.target"), "{enabled:?}");
    }

    #[test]
    fn a_name_without_a_type_is_a_service_and_options_are_checked() {
        assert_eq!(full("nginx".into()), "nginx.service");
        assert_eq!(full("php8.2-fpm".into()), "php8.2-fpm.service");
        assert_eq!(full("backup.timer".into()), "backup.timer");
        assert_eq!(full("app@*".into()), "app@*");
        let options = [("stopped", "never")].into_iter().collect();
        let errors = kind("unit").unwrap().build(&options, &Host::live()).unwrap_err();
        assert_eq!(errors[0].to_string(), "stopped: \"never\" must be \"warn\" or \"ignore\"");
    }
}
