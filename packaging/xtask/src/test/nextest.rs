//! cargo-nextest: every test in a process of its own, more at a time than there are cores.
//!
//! Most tests with real processes wait for something, so they run beside one another; how many is
//! in `.config/nextest.toml`. Results are read from the JUnit report that nextest writes.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use crate::{
    outcome::{Count, Outcome},
    sh,
};

/// Tests at a time for each core.
const TESTS_PER_CORE: usize = 3;
/// In the table of the slowest.
const SLOWEST: usize = 15;

/// One test of a report.
#[derive(Debug, PartialEq)]
pub(super) struct Case {
    /// `dogwatch-tests::processes irc::a_person_acknowledges`
    pub(super) name: String,
    pub(super) seconds: f64,
    pub(super) failed: bool,
    /// Lines in which it says what it skipped.
    skips: Vec<String>,
}

pub(super) fn is_installed() -> bool {
    sh::output(&mut sh::cargo(&["nextest", "--version"])).is_ok()
}

/// `cargo nextest run` with our profile and these further arguments.
pub(super) fn command(arguments: &[&str]) -> Command {
    let cores = thread::available_parallelism().map_or(1, Into::into);
    let mut command = sh::cargo(&["nextest", "run", "--profile", "xtask", "--color", "never"]);
    command.arg("--test-threads").arg((TESTS_PER_CORE * cores).to_string()).args(arguments);
    command
}

/// Runs tests and prints failures, skips and the slowest.
pub(super) fn run(command: &mut Command, count: &mut Count, verbose: bool) -> Result<Outcome> {
    command.args(["--status-level", if verbose { "all" } else { "slow" }]);
    let (cases, ended) = cases(command, count)?;
    for case in &cases {
        for line in &case.skips {
            println!("{}: {line}", case.name);
        }
    }
    print_slowest(&cases);
    if !ended || count.failed > 0 {
        return Ok(Outcome::Failed(format!("{} of the tests failed", count.failed.max(1))));
    }
    if count.passed == 0 {
        return Ok(Outcome::Failed("no test ran".into()));
    }
    Ok(Outcome::Passed)
}

/// Runs tests; returns what the report says of each, and whether nextest ended well.
pub(super) fn cases(command: &mut Command, count: &mut Count) -> Result<(Vec<Case>, bool)> {
    let report = sh::target().join("nextest/xtask/junit.xml");
    let _ = fs::remove_file(&report);
    let mut child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start cargo nextest")?;
    let said = child.stderr.take().context("nextest has no stderr")?;
    for line in BufReader::new(said).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        // Tests with `#[ignore]` are in the closing line only.
        if line.trim_start().starts_with("Summary [") {
            count.skipped += number_before(&line, " skipped");
        }
        println!("{line}");
    }
    let ended = child.wait()?.success();
    let cases = fs::read_to_string(&report).map(|text| parse(&text)).unwrap_or_default();
    for case in &cases {
        count.passed += u32::from(!case.failed);
        count.failed += u32::from(case.failed);
        count.skipped += u32::try_from(case.skips.len()).unwrap_or(u32::MAX);
    }
    Ok((cases, ended))
}

fn print_slowest(cases: &[Case]) {
    let mut slowest: Vec<_> = cases.iter().collect();
    slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    println!(
        "\nthe slowest of {} tests, {:.0} s in all:",
        cases.len(),
        cases.iter().map(|case| case.seconds).sum::<f64>()
    );
    for case in slowest.iter().take(SLOWEST) {
        println!("{:>7.1} s  {}", case.seconds, case.name);
    }
}

/// The cases of a JUnit report. Only what nextest writes is understood.
fn parse(text: &str) -> Vec<Case> {
    let cases = text.split("<testcase ").skip(1).map(|case| {
        let (head, body) = case.split_once('>').unwrap_or((case, ""));
        // A case without output closes itself; what follows belongs to the report.
        let body =
            if head.ends_with('/') { "" } else { body.split("</testcase>").next().unwrap_or_default() };
        let skips = body.lines().filter(|line| line.contains("SKIPPED")).map(unescaped);
        Case {
            name: format!("{} {}", attribute(head, "classname"), attribute(head, "name")),
            seconds: attribute(head, "time").parse().unwrap_or(0.0),
            failed: body.contains("<failure") || body.contains("<error"),
            skips: skips.collect(),
        }
    });
    cases.collect()
}

fn attribute(head: &str, name: &str) -> String {
    let from = head.split_once(&format!(" {name}=\"")).or_else(|| head.split_once(&format!("{name}=\"")));
    from.and_then(|(_, rest)| rest.split('"').next()).map(unescaped).unwrap_or_default()
}

/// Without the tags around the first line of an output, and with the characters that XML escapes.
fn unescaped(text: &str) -> String {
    let text = text.rsplit('>').next().unwrap_or(text);
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// 12 in "10 tests run: 10 passed, 12 skipped" for " skipped".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split_once(word).map(|(before, _)| before);
    before.and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_failures_and_skips_are_read_from_the_report() {
        let text = r#"<testsuites name="xtask"><testsuite name="a::b">
            <testcase name="m::good" classname="a::b" timestamp="2026" time="0.250"/>
            <testcase name="m::bad" classname="a::b" time="1.5">
                <failure type="test failure" message="x">assertion</failure>
            </testcase>
            <testcase name="m::poor" classname="a::b" time="0.1">
                <system-err>SKIPPED: dig is not installed (&quot;x&quot;)
</system-err></testcase></testsuite></testsuites>"#;
        let cases = parse(text);
        let short: Vec<_> =
            cases.iter().map(|case| (case.name.as_str(), case.failed, case.skips.len())).collect();
        assert_eq!(short, [("a::b m::good", false, 0), ("a::b m::bad", true, 0), ("a::b m::poor", false, 1)]);
        assert_eq!(cases[2].skips, ["SKIPPED: dig is not installed (\"x\")"]);
        assert!((cases[1].seconds - 1.5).abs() < 0.001);
        assert_eq!(number_before("Summary [ 1.2s] 10 tests run: 10 passed, 12 skipped", " skipped"), 12);
    }
}
