//! `systemd`: failed units, except ignored ones.
//!
//! Runs `systemctl list-units --failed --output=json` instead of keeping a D-Bus connection.
//! Measured on Debian 12 (systemd 252, 50 queries each, in a booted container):
//!
//! | method | resident memory | CPU per query | adds to the program |
//! | --- | --- | --- | --- |
//! | `systemctl` | 0.2 MB | 4 ms | nothing |
//! | zbus 6, `ListUnitsFiltered` | 0.4 MB | below 0.2 ms | 24 crates, 0.75 MB of code |
//!
//! With one run per minute, 4 ms are 0.007 % of a core, so memory and code size count more. For a
//! query per second, or for signals instead of polling, D-Bus would be better.
//!
//! If systemd is not the init of the host, this check is not built in; if it is configured, it is
//! UNKNOWN.

use std::{fmt::Write as _, pin::Pin, process::Stdio, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::{
    Async, Check, Host, Judgement, Kind, Lane,
    options::{OptionSpec, Reader},
    output::clean,
    perfdata::Perf,
    result::CheckResult,
    root::runs_systemd,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "systemd",
    about: "failed systemd units",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: booted,
    interval: None,
    has_things: false,
    make,
};

fn booted(host: &Host) -> bool {
    runs_systemd(&host.root)
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "ignore", value: "UNIT", help: "ignore this unit; * matches any text; can be a list" },
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range for the number of failed units [0]" },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range for the number of failed units [never]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, _: &Host) -> Option<Check> {
    let warn = reader.range("warn").or(Some(Range::above(0.0)));
    Some(Check::asynchronous(Systemd {
        ignore: reader.list("ignore").unwrap_or_default(),
        thresholds: Thresholds { warn, crit: reader.range("crit") },
    }))
}

struct Systemd {
    ignore: Vec<String>,
    thresholds: Thresholds,
}

/// One row of `systemctl list-units --output=json`.
#[derive(Debug, Deserialize)]
struct Unit {
    unit: String,
    #[serde(default)]
    description: String,
}

impl Async for Systemd {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let asked = timeout(limit, ask("systemctl")).await;
            let asked =
                asked.unwrap_or_else(|_| Err(format!("systemctl timed out after {} s", limit.as_secs_f64())));
            match asked.and_then(|printed| parse(&printed)) {
                Ok(failed) => judge(failed, &self.ignore, self.thresholds).into(),
                Err(problem) => CheckResult::unknown(problem).into(),
            }
        })
    }
}

/// Runs systemctl and returns its output. Dropping the future kills it.
async fn ask(systemctl: &str) -> Result<Vec<u8>, String> {
    let mut child = Command::new(systemctl)
        .args(["list-units", "--failed", "--output=json", "--no-pager", "--no-ask-password"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
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
    read.map_err(|error| format!("cannot read from systemctl: {error}"))?;
    let status = child.wait().await.map_err(|error| format!("cannot wait for systemctl: {error}"))?;
    if status.success() {
        return Ok(printed);
    }
    let complaint = clean(&String::from_utf8_lossy(&complaint));
    Err(format!("systemctl: {}", complaint.lines().next().unwrap_or("failed without an error message")))
}

/// Enough for ten thousand failed units.
const PRINTED_MAX: u64 = 2 * 1_024 * 1_024;
const COMPLAINT_MAX: u64 = 4_096;

fn parse(printed: &[u8]) -> Result<Vec<Unit>, String> {
    serde_json::from_slice(printed).map_err(|error| format!("cannot parse the output of systemctl: {error}"))
}

fn judge(failed: Vec<Unit>, ignore: &[String], thresholds: Thresholds) -> CheckResult {
    let (ignored, failed): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|unit| ignore.iter().any(|pattern| matches(pattern, &unit.unit)));
    #[expect(clippy::cast_precision_loss, reason = "a number of units")]
    let count = failed.len() as f64;
    let names = failed.iter().take(NAMED_MAX).map(|unit| clean(&unit.unit)).collect::<Vec<_>>().join(", ");
    let more = failed.len().saturating_sub(NAMED_MAX);
    let mut summary = match failed.len() {
        0 => "no failed units".to_owned(),
        1 => format!("1 failed unit: {names}"),
        n => format!("{n} failed units: {names}"),
    };
    if more > 0 {
        let _ = write!(summary, " and {more} more");
    }
    if !ignored.is_empty() {
        let _ = write!(summary, " ({} ignored)", ignored.len());
    }
    let detail: Vec<_> =
        failed.iter().map(|unit| format!("{}: {}", clean(&unit.unit), clean(&unit.description))).collect();
    CheckResult::new(thresholds.judge(count), summary).with_detail(detail.join("\n")).with_perfdata(vec![
        Perf::new("failed", count, "").thresholds(thresholds.warn, thresholds.crit).bounds(0.0, None),
    ])
}

/// How many names are in the summary. The detail has all of them.
const NAMED_MAX: usize = 5;

/// Whether `name` matches `pattern`, in which `*` matches any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(start) else { return false };
    (0..=tail.len()).filter(|&at| tail.is_char_boundary(at)).any(|at| matches(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{State, root, testing::run_async};

    /// Captured from systemd 252 after two units had failed.
    const TWO_FAILED: &[u8] = br#"[{"unit":"certbot.service","load":"loaded","active":"failed","sub":"failed","description":"Certbot"},{"unit":"user-job@1000.service","load":"loaded","active":"failed","sub":"failed","description":"Job of 1000"}]"#;

    fn judged(ignore: &[&str]) -> CheckResult {
        let ignore: Vec<_> = ignore.iter().map(|&unit| unit.to_owned()).collect();
        let thresholds = Thresholds { warn: Some(Range::above(0.0)), crit: None };
        judge(parse(TWO_FAILED).unwrap(), &ignore, thresholds)
    }

    #[test]
    fn failed_units_are_named() {
        assert_eq!(
            judged(&[]).to_nagios("systemd"),
            "SYSTEMD WARNING - 2 failed units: certbot.service, user-job@1000.service | failed=2;0;;0\n\
             certbot.service: Certbot\nuser-job@1000.service: Job of 1000"
        );
    }

    #[test]
    fn ignored_units_are_counted() {
        let result = judged(&["user-job@*.service"]);
        assert_eq!(result.summary, "1 failed unit: certbot.service (1 ignored)");
        let result = judged(&["user-job@*", "certbot.service"]);
        assert_eq!((result.state, result.summary.as_str()), (State::Ok, "no failed units (2 ignored)"));
    }

    #[test]
    fn no_failed_unit_is_ok_and_garbage_is_an_error() {
        let thresholds = Thresholds { warn: Some(Range::above(0.0)), crit: None };
        assert_eq!(judge(parse(b"[]").unwrap(), &[], thresholds).state, State::Ok);
        assert!(parse(b"UNIT LOAD ACTIVE").is_err());
    }

    #[test]
    fn a_star_matches_any_text() {
        assert!(
            ["a*", "*", "*.service", "a*c*e", "a.service"]
                .iter()
                .all(|pattern| matches(pattern, "a.service"))
        );
        assert!(!["b*", "a", "*.timer", "a*x*"].iter().any(|pattern| matches(pattern, "a.service")));
    }

    #[tokio::test]
    async fn errors_of_systemctl_are_reported() {
        assert!(ask("/no/such/systemctl").await.unwrap_err().starts_with("cannot run systemctl"));
        assert_eq!(ask("/bin/false").await.unwrap_err(), "systemctl: failed without an error message");
    }

    #[tokio::test]
    async fn the_units_of_this_host_can_be_read() {
        let result = run_async("systemd", &[]).await;
        let booted = Path::is_dir(&root::Root::live().path("/run/systemd/system"));
        assert_eq!(result.state != State::Unknown, booted, "{}", result.summary);
    }
}
