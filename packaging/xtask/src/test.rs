//! `cargo xtask test`: everything that must hold before a change lands, in one command, with one table at the end.
//!
//! A step passes, fails, or is skipped with its reason. With `--strict` (CI) a skip is a failure: what CI cannot run is
//! not proved. Steps do not depend on one another, except that nothing is tested that did not build.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{apt, clock, deb, deny, fuzz, lab, sh};

#[derive(Args)]
pub(crate) struct Options {
    /// A skip is a failure (CI)
    #[arg(long)]
    strict: bool,
    /// Only format, lints and tests: no drills, fuzzing, licences, package or lab
    #[arg(long)]
    quick: bool,
    /// Print every test's line
    #[arg(long)]
    verbose: bool,
}

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// How many single tests a step ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

struct Step {
    name: &'static str,
    took: String,
    outcome: Outcome,
    count: Count,
}

struct Steps {
    done: Vec<Step>,
    strict: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let from = clock::now();
    let mut steps = Steps { done: Vec::new(), strict: options.strict || sh::strict() };
    let strict = steps.strict;
    steps.run("packages", |_| match apt::install(false)? {
        None => Ok(Outcome::Passed),
        Some(line) => Ok(Outcome::Skipped(format!("not root; what is missing: {line}"))),
    });
    steps.cargo("format", &["fmt", "--all", "--check"]);
    steps.cargo("lints", &["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let built = steps.cargo("build", &["build", "-q", "--workspace", "--bins"]);
    if built {
        steps.run("tests", |count| {
            let mut command = sh::cargo(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
            command.env("DOGWATCH_TEST_STRICT", if strict { "1" } else { "0" });
            // A property test panics dozens of times on its way to the smallest case; the messages are enough.
            command.env("RUST_BACKTRACE", "0");
            cargo_test(&mut command, count, options.verbose)
        });
    }
    if built && !options.quick {
        // The demand: a hundred seeds of the outage that this cache is made for.
        steps.run("drill", |_| {
            drill(&["openai", "--seeds", "100"].map(String::from)).map(|()| Outcome::Passed)
        });
        steps.run("drills", |_| drill(&["all", "--seeds", "1"].map(String::from)).map(|()| Outcome::Passed));
        steps.run("storm", |_| {
            drill(&["storm", "--hosts", "2000"].map(String::from)).map(|()| Outcome::Passed)
        });
        steps.run("fuzz", |_| fuzz::bounded().map(|()| Outcome::Passed));
        steps.run("licences", |count| deny::step(strict, count));
        let mut package = None;
        steps.run("package", |_| {
            package = Some(deb::build(None)?);
            Ok(Outcome::Passed)
        });
        if let Some(package) = package {
            steps.run("lab", |count| lab::step(package, count));
        }
    }
    steps.finish(from)
}

impl Steps {
    /// Runs a cargo command as a step. Returns whether it passed.
    fn cargo(&mut self, name: &'static str, arguments: &[&str]) -> bool {
        self.run(name, |_| sh::run(&mut sh::cargo(arguments)).map(|()| Outcome::Passed))
    }

    fn run(&mut self, name: &'static str, step: impl FnOnce(&mut Count) -> Result<Outcome>) -> bool {
        println!("\n=== {name}");
        let (from, mut count) = (clock::now(), Count::default());
        let mut outcome = step(&mut count).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let (true, Outcome::Skipped(why)) = (self.strict, &outcome) {
            outcome = Outcome::Failed(format!("skipped, which --strict forbids: {why}"));
        }
        if count == Count::default() {
            match outcome {
                Outcome::Passed => count.passed = 1,
                Outcome::Skipped(_) => count.skipped = 1,
                Outcome::Failed(_) => count.failed = 1,
            }
        }
        match &outcome {
            Outcome::Passed => {}
            Outcome::Skipped(why) => println!("SKIPPED {name}: {why}"),
            Outcome::Failed(why) => println!("FAILED {name}: {why}"),
        }
        let passed = matches!(outcome, Outcome::Passed);
        self.done.push(Step { name, took: clock::took(from), outcome, count });
        passed
    }

    fn finish(self, from: Instant) -> Result<()> {
        println!("\n=== summary, {}", clock::took(from));
        let mut total = Count::default();
        let mut failed = Vec::new();
        for step in &self.done {
            let (mark, why) = match &step.outcome {
                Outcome::Passed => ("ok", ""),
                Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
                Outcome::Failed(why) => ("FAILED", why.as_str()),
            };
            let Count { passed, failed: bad, skipped } = step.count;
            println!(
                "{:<10} {mark:<8} {:>9}  {passed} passed, {bad} failed, {skipped} skipped",
                step.name, step.took
            );
            if !why.is_empty() {
                println!("           {}", why.lines().next().unwrap_or_default());
            }
            if mark == "FAILED" {
                failed.push(step.name);
            }
            total.passed += passed;
            total.failed += bad;
            total.skipped += skipped;
        }
        if !failed.is_empty() && total.failed == 0 {
            total.failed = 1;
        }
        println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Runs `cargo test`, shows what a reader needs of it, counts.
fn cargo_test(command: &mut Command, count: &mut Count, verbose: bool) -> Result<Outcome> {
    let mut child =
        command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot start cargo")?;
    let out = child.stdout.take().context("cargo has no stdout")?;
    let mut reader = Reader::default();
    for line in BufReader::new(out).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if reader.shows(&line) || verbose {
            println!("{line}");
            std::io::stdout().flush()?;
        }
    }
    *count = reader.count;
    let status = child.wait()?;
    if !status.success() {
        return Ok(Outcome::Failed(format!("{} of the tests failed", count.failed.max(1))));
    }
    if count.passed == 0 {
        return Ok(Outcome::Failed("no test ran".into()));
    }
    Ok(Outcome::Passed)
}

/// Reads libtest's output line by line. Passing tests' own output is left out, except what they say they skip.
#[derive(Default)]
struct Reader {
    in_successes: bool,
    count: Count,
}

impl Reader {
    fn shows(&mut self, line: &str) -> bool {
        if line.contains("SKIPPED") {
            self.count.skipped += 1;
            return true;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.count.passed += number_before(rest, " passed");
            self.count.failed += number_before(rest, " failed");
            self.count.skipped += number_before(rest, " ignored");
            return true;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        let passing = line.starts_with("test ") && line.ends_with(" ... ok");
        !self.in_successes && !passing && !line.is_empty()
    }
}

/// 12 in "ok. 12 passed; 0 failed" for " passed".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().filter(|before| before.len() < text.len());
    before.and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs the drill of `dogwatch-tests`.
pub(crate) fn drill(arguments: &[String]) -> Result<()> {
    let mut command = sh::cargo(&["run", "-q", "-p", "dogwatch-tests", "--bin", "drill", "--"]);
    sh::run(command.args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_sum_of_the_closing_lines_and_of_what_tests_say_they_skip() {
        let mut reader = Reader::default();
        let shown: Vec<_> = [
            "running 3 tests",
            "test a ... ok",
            "test b ... FAILED",
            "successes:",
            "---- a stdout ----",
            "SKIPPED a: no dig",
            "chatter",
            "failures:",
            "---- b stdout ----",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out",
        ]
        .into_iter()
        .filter(|line| reader.shows(line))
        .collect();
        assert_eq!(reader.count, Count { passed: 12, failed: 1, skipped: 3 });
        assert!(shown.contains(&"SKIPPED a: no dig") && shown.contains(&"---- b stdout ----"));
        assert!(!shown.contains(&"chatter") && !shown.contains(&"test a ... ok"));
    }
}
