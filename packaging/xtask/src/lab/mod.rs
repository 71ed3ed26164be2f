//! `cargo xtask lab`: the package on a booted Debian host, from install to purge.

pub(crate) mod faults;
mod host;
mod lifecycle;
mod resolvers;
pub(crate) mod silence;
mod vm;

use std::{fs, path::PathBuf, process, thread};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::fs::{FlockOperation, flock};

use crate::{
    clock, deb,
    outcome::{Count, Outcome},
    sh,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Use the programs of the dev profile, which are quick to build
    #[arg(long)]
    dev: bool,
    /// Test only `dogwatch dns enable` on this kind of host, or on `every` kind
    #[arg(long, value_name = "KIND")]
    resolver: Option<String>,
}

/// A higher version than the workspace's, for the upgrade.
const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "+next");
const TOOLS: &[&str] = &["mmdebstrap", "systemd-nspawn", "nsenter", "setpriv", "dpkg-deb"];

/// `cargo xtask lab`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut count = Count::default();
    if let Some(why) = unfit() {
        println!("SKIPPED lab: {why}");
        return Ok(());
    }
    let made = if options.dev { Made::Dev } else { Made::Release(deb::build(None)?) };
    life(made, options.resolver.as_deref(), &mut count)?;
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    if count.failed > 0 {
        bail!(DIFFERS);
    }
    Ok(())
}

/// The lab as a step of `cargo xtask test`.
pub(crate) fn step(package: PathBuf, count: &mut Count) -> Result<Outcome> {
    if let Some(why) = unfit() {
        return Ok(Outcome::Skipped(why));
    }
    life(Made::Release(package), None, count)?;
    Ok(if count.failed > 0 { Outcome::Failed(DIFFERS.into()) } else { Outcome::Passed })
}

const DIFFERS: &str = "some observations differ from what is promised: see the FAIL lines above";

/// Which programs to test.
enum Made {
    Dev,
    /// The package that was built from the release profile.
    Release(PathBuf),
}

fn life(made: Made, resolver: Option<&str>, count: &mut Count) -> Result<()> {
    let _lock = lock()?;
    clean_when_interrupted()?;

    let (first, second) = packages(made)?;
    let from = clock::now();
    let came = host::base()?;
    println!("base image {came}, {}", clock::took(from));
    let done = match resolver {
        Some(kind) => resolvers::run(&first, kind, count),
        None => lifecycle::run(&first, &second, count).and_then(|()| resolvers::run(&first, "usual", count)),
    };
    host::clean();
    done
}

/// A lab host or a virtual machine.
trait Machine {
    /// Runs a shell script as root in the machine. An exit status other than 0 is an error.
    fn inside(&self, script: &str) -> Result<String>;
    /// Runs a shell script on the machine around it.
    fn outside(&self, script: &str) -> Result<String>;
}

impl Machine for host::Host {
    fn inside(&self, script: &str) -> Result<String> {
        self.output(&["sh", "-c", script])
    }

    fn outside(&self, script: &str) -> Result<String> {
        host::Host::outside(self, script)
    }
}

/// Makes sure that only one lab runs, and removes what earlier ones left.
fn lock() -> Result<fs::File> {
    fs::create_dir_all(host::folder())?;
    let lock = fs::File::create(host::folder().join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .context("another lab is running in this checkout")?;
    host::clean();
    let _ = fs::remove_file(host::folder().join("xtask"));
    Ok(lock)
}

/// Makes one observation and prints it with its duration.
fn observe(count: &mut Count, what: &str, look: impl FnOnce() -> Result<String>) {
    let from = clock::now();
    let seen = look();
    let took = clock::took(from);
    match seen {
        Ok(detail) => {
            count.passed += 1;
            println!("ok   {what:<72} {took:>8}  {detail}");
        }
        Err(error) => {
            count.failed += 1;
            println!("FAIL {what:<72} {took:>8}  {error:#}");
        }
    }
}

/// Why the lab cannot run on this machine, if it cannot.
fn unfit() -> Option<String> {
    if !sh::is_root() {
        return Some("it needs root for namespaces".into());
    }
    let tool = TOOLS.iter().find(|tool| !sh::has(tool))?;
    Some(format!("{tool} is missing: `cargo xtask setup` installs it"))
}

/// The package, and the same package with a higher version.
fn packages(made: Made) -> Result<(PathBuf, PathBuf)> {
    let pack = |version, profile| deb::pack(version, &sh::target().join(profile), deb::Packing::Quick);
    match made {
        Made::Release(first) => Ok((first, pack(NEXT, "release")?)),
        Made::Dev => {
            sh::run(
                sh::cargo(&["build", "-q", "--bin", "dogwatch", "--bin", "alertd", "--bin", "alertctl"])
                    .args(sh::SHARED),
            )?;
            Ok((pack(env!("CARGO_PKG_VERSION"), "debug")?, pack(NEXT, "debug")?))
        }
    }
}

/// Ctrl-C must leave no mounts and no processes.
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
