//! `cargo xtask test --repeat N`: the tests with real processes, again and again, to find those
//! that fail now and then.
//!
//! With `--stress` stress-ng keeps every core busy meanwhile, as on a machine with other work.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use super::nextest;
use crate::{apt, clock, outcome::Count, sh};

/// Those that start daemons of ours or of others.
const REAL: &str = "kind(test) & !binary(in_process)";

pub(super) fn run(times: u32, stress: bool, filter: Option<&str>) -> Result<()> {
    if !nextest::is_installed() {
        bail!("cargo-nextest is missing: cargo install cargo-nextest --locked");
    }
    sh::run(&mut sh::cargo(&["build", "-q", "--workspace", "--bins"]))?;
    let _busy = if stress { Some(Stress::start()?) } else { None };
    let logs = sh::target().join("repeat");
    fs::create_dir_all(&logs)?;
    let filter = filter.unwrap_or(REAL);
    let mut failures: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut total = Count::default();
    for round in 1..=times {
        let from = clock::now();
        let mut count = Count::default();
        let mut command = nextest::command(&["--workspace", "-E", filter, "--status-level", "fail"]);
        command.env("RUST_BACKTRACE", "0").env("DOGWATCH_TEST_STRICT", if sh::strict() { "1" } else { "0" });
        let (cases, ended) = nextest::cases(&mut command, &mut count)?;
        if cases.is_empty() {
            bail!("no test ran");
        }
        for case in cases.iter().filter(|case| case.failed) {
            failures.entry(case.name.clone()).or_default().push(round);
        }
        if !ended {
            let report = sh::target().join("nextest/xtask/junit.xml");
            let _ = fs::copy(report, logs.join(format!("round-{round}.xml")));
        }
        println!(
            "round {round} of {times}: {} passed, {} failed, {}",
            count.passed,
            count.failed,
            clock::took(from)
        );
        total.passed += count.passed;
        total.failed += count.failed;
    }
    println!("\n{} runs of tests passed, {} failed, in {times} rounds", total.passed, total.failed);
    for (name, rounds) in &failures {
        println!("{:>3} of {times}  {name}  (rounds {rounds:?})", rounds.len());
    }
    if !failures.is_empty() {
        bail!("{} tests failed now and then; their output is in {}", failures.len(), logs.display());
    }
    Ok(())
}

/// stress-ng on every core, ended with this value.
struct Stress(Child);

impl Stress {
    fn start() -> Result<Self> {
        if let Some(line) = apt::install_stress()? {
            bail!("stress-ng is missing; run: {line}");
        }
        let cores = thread::available_parallelism().map_or(1, usize::from).to_string();
        let child = sh::command(&["stress-ng", "--quiet", "--cpu", &cores])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start stress-ng")?;
        Ok(Self(child))
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its workers.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
