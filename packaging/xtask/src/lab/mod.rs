//! `cargo xtask lab`: the package on a real systemd, from install to purge.

mod host;
mod lifecycle;

use std::{fs, path::PathBuf, process, thread};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::fs::{FlockOperation, flock};

use crate::{
    clock, deb, sh,
    test::{Count, Outcome},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Use the dev profile's programs: quick to build, good enough while working on the package itself
    #[arg(long)]
    dev: bool,
}

/// A version above the workspace's, for the upgrade.
const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "+next");
const TOOLS: &[&str] = &["mmdebstrap", "systemd-nspawn", "nsenter", "setpriv", "dpkg-deb"];

/// `cargo xtask lab`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut count = Count::default();
    match life(options.dev, &mut count)? {
        Outcome::Passed => {
            println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
            Ok(())
        }
        Outcome::Skipped(why) => {
            println!("SKIPPED lab: {why}");
            Ok(())
        }
        Outcome::Failed(why) => bail!(why),
    }
}

/// The lab as a step of `cargo xtask test`.
pub(crate) fn step(count: &mut Count) -> Result<Outcome> {
    life(false, count)
}

fn life(dev: bool, count: &mut Count) -> Result<Outcome> {
    if !sh::is_root() {
        return Ok(Outcome::Skipped("not root: no namespaces, no systemd to test on".into()));
    }
    if let Some(tool) = TOOLS.iter().find(|tool| !sh::has(tool)) {
        return Ok(Outcome::Skipped(format!("{tool} is missing: `cargo xtask setup` installs it")));
    }
    fs::create_dir_all(host::folder())?;
    let lock = fs::File::create(host::folder().join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).context("another lab runs in this checkout")?;
    host::clean();
    let _ = fs::remove_file(host::folder().join("xtask"));
    clean_when_interrupted()?;

    let (first, second) = packages(dev)?;
    let from = clock::now();
    let came = host::base()?;
    println!("base image {came}, {}", clock::took(from));
    let done = lifecycle::run(&first, &second, count);
    host::clean();
    done?;
    if count.failed > 0 {
        return Ok(Outcome::Failed(format!("{} observations differ from what is promised", count.failed)));
    }
    Ok(Outcome::Passed)
}

/// The package, and the same with a higher version.
fn packages(dev: bool) -> Result<(PathBuf, PathBuf)> {
    let version = env!("CARGO_PKG_VERSION");
    if dev {
        sh::run(&mut sh::cargo(&["build", "-q", "--bins", "-p", "dogwatch", "-p", "dogwatch-alertd"]))?;
        let binaries = sh::target().join("debug");
        let pack = |version| deb::pack(version, &binaries, deb::Packing::Quick);
        return Ok((pack(version)?, pack(NEXT)?));
    }
    let first = deb::build(None)?;
    Ok((first, deb::pack(NEXT, &sh::target().join("release"), deb::Packing::Quick)?))
}

/// Ctrl-C in mid-run must leave neither mounts nor processes.
fn clean_when_interrupted() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        dogwatch_daemon::signals::Signals::listen()?
    };
    thread::spawn(move || {
        runtime.block_on(signals.next());
        eprintln!("interrupted: cleaning up");
        host::clean();
        process::exit(130);
    });
    Ok(())
}
