//! `cargo xtask test`: everything that must hold before a change lands, in one command, with one
//! table at the end.
//!
//! | call | what runs |
//! | --- | --- |
//! | `test` | all steps; with `--strict` (CI) a skip is a failure, because what CI cannot run is not proved |
//! | `test --quick` | format, lints, house rules and tests |
//! | `test CRATE…` | format, lints and tests of these crates |
//! | `test --repeat N` | the tests with real processes, N times ([`repeat`]) |
//!
//! Steps do not depend on one another, except that nothing is tested that did not build. The
//! package and the lab, which mostly waits, run in a process of their own ([`Beside`]) beside the
//! drills and the fuzzer, which only compute and have a low priority.

mod libtest;
mod nextest;
mod repeat;
mod steps;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use clap::Args;

use self::steps::Steps;
use crate::{apt, clock, damage, deb, deny, fuzz, house, lab, outcome::Outcome, sh};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    /// Only format, lints and tests of these crates, for example `dogwatch-alertd`
    #[arg(value_name = "CRATE", conflicts_with_all = ["quick", "repeat"])]
    crates: Vec<String>,
    /// Count a skip as a failure (CI)
    #[arg(long)]
    strict: bool,
    /// Leave out drills, fuzzing, licences, package and lab
    #[arg(long)]
    quick: bool,
    /// Print a line for every test
    #[arg(long)]
    verbose: bool,
    /// Run the tests with real processes N times and list those that fail now and then
    #[arg(long, value_name = "N")]
    repeat: Option<u32>,
    /// Keep every core busy with stress-ng meanwhile
    #[arg(long, requires = "repeat")]
    stress: bool,
    /// Repeat other tests: a filter of cargo-nextest, for example `test(irc)`
    #[arg(long, requires = "repeat", value_name = "FILTER")]
    only: Option<String>,
    /// Build the package and run the lab; write the rows of the table to FILE
    #[arg(long, hide = true, value_name = "FILE")]
    package_to: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(times) = options.repeat {
        return repeat::run(times, options.stress, options.only.as_deref());
    }
    if let Some(report) = &options.package_to {
        let mut steps = Steps::new(options.strict);
        package_and_lab(&mut steps);
        return steps.save(report);
    }
    let from = clock::now();
    let mut steps = Steps::new(options.strict || sh::strict());
    if options.crates.is_empty() {
        everything(&mut steps, options);
    } else {
        crates(&mut steps, options);
    }
    steps.finish(from)
}

fn everything(steps: &mut Steps, options: &Options) {
    steps.run("packages", |_| match apt::install(false)? {
        None => Ok(Outcome::Passed),
        Some(line) => Ok(Outcome::Skipped(format!("not root; what is missing: {line}"))),
    });
    steps.cargo("format", &["fmt", "--all", "--check"]);
    steps.run("house", |_| house::step().map(|()| Outcome::Passed));
    steps.cargo("lints", &["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let built = steps.cargo("build", &["test", "-q", "--workspace", "--no-run"]);
    if built {
        tests(steps, options, &["--workspace"]);
    }
    if !built || options.quick {
        return;
    }
    let beside = Beside::start(options.strict || sh::strict());
    // The issue that this cache is made for: a hundred seeds of an outage of hours.
    steps.run("drill", |_| drill(&["openai", "--seeds", "100"].map(String::from)).map(|()| Outcome::Passed));
    steps.run("drills", |_| drill(&["all", "--seeds", "1"].map(String::from)).map(|()| Outcome::Passed));
    steps.run("storm", |_| drill(&["storm", "--hosts", "2000"].map(String::from)).map(|()| Outcome::Passed));
    steps.run("hostile", |_| attacked(&["hostile", "--short"]));
    steps.run("damage", |_| damage::short().map(|()| Outcome::Passed));
    steps.run("fuzz", |_| fuzz::bounded().map(|()| Outcome::Passed));
    steps.run("licences", |count| deny::step(options.strict || sh::strict(), count));
    if let Err(error) = beside.and_then(|beside| beside.finish(steps)) {
        steps.run("package", |_| Err(error));
    }
}

fn crates(steps: &mut Steps, options: &Options) {
    let packages: Vec<&str> = options.crates.iter().flat_map(|name| ["-p", name.as_str()]).collect();
    steps.cargo("format", &[&["fmt", "--check"], packages.as_slice()].concat());
    let lints: &[&str] = &["--all-targets", "--no-deps", "--", "-D", "warnings"];
    steps.cargo("lints", &[&["clippy", "-q"], packages.as_slice(), lints].concat());
    tests(steps, options, &packages);
}

/// Runs the tests of these packages, with cargo-nextest if it is installed.
fn tests(steps: &mut Steps, options: &Options, packages: &[&str]) {
    let strict = if options.strict || sh::strict() { "1" } else { "0" };
    let prepare = |mut command: Command| {
        command.env("DOGWATCH_TEST_STRICT", strict);
        // A property test panics dozens of times on its way to the smallest case; the messages are
        // enough.
        command.env("RUST_BACKTRACE", "0");
        command
    };
    steps.run("tests", |count| {
        if nextest::is_installed() {
            return nextest::run(&mut prepare(nextest::command(packages)), count, options.verbose);
        }
        println!("cargo-nextest is not installed: `cargo test` runs the same tests, but slower");
        let mut command = sh::cargo(&["test"]);
        command.args(packages).args(["--no-fail-fast", "--", "--show-output"]);
        libtest::run(&mut prepare(command), count, options.verbose)
    });
}

fn package_and_lab(steps: &mut Steps) {
    let mut package = None;
    steps.run("package", |_| {
        package = Some(deb::build(None)?);
        Ok(Outcome::Passed)
    });
    if let Some(package) = package {
        steps.run("lab", |count| lab::step(package, count));
    }
}

/// Package and lab in a process of their own; their output is printed when they have ended.
struct Beside {
    child: Child,
    log: PathBuf,
    report: PathBuf,
}

impl Beside {
    fn start(strict: bool) -> Result<Self> {
        let folder = sh::target().join("test");
        fs::create_dir_all(&folder)?;
        let (log, report) = (folder.join("package.log"), folder.join("package.json"));
        let _ = fs::remove_file(&report);
        let out = File::create(&log)?;
        // This very program, even if cargo has put a newer one in its place meanwhile.
        let mut command = sh::command(&["/proc/self/exe", "test", "--package-to"]);
        command.arg(&report).args(strict.then_some("--strict"));
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        Ok(Self { child: child.context("cannot start a second xtask")?, log, report })
    }

    fn finish(mut self, steps: &mut Steps) -> Result<()> {
        println!("\nwaiting for package and lab …");
        let status = self.child.wait()?;
        print!("{}", fs::read_to_string(&self.log)?);
        steps.take(&self.report).with_context(|| format!("package and lab ended with {status}"))
    }
}

/// Runs the drill of `dogwatch-tests`, with a low priority: it only computes.
/// A drill whose attackers are other users.
fn attacked(arguments: &[&str]) -> Result<Outcome> {
    if !sh::is_root() {
        return Ok(Outcome::Skipped("attacking as another user needs root".into()));
    }
    drill(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>()).map(|()| Outcome::Passed)
}

pub(crate) fn drill(arguments: &[String]) -> Result<()> {
    // For the whole workspace dependencies have the features that they have in the build of the
    // tests. With `-p dogwatch-tests` cargo would compile many of them again.
    sh::run(&mut sh::cargo(&["build", "-q", "--workspace", "--bin", "drill"]))?;
    let mut command = sh::command(&["nice", "-n", "19"]);
    sh::run(command.arg(sh::target().join("debug/drill")).args(arguments))
}
