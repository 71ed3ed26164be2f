//! `cargo xtask drill soak`: a real agent with 1,000 checks and a real alertd, while faults come
//! and go. Fails if memory, descriptors, threads or zombies grow, or if a heartbeat is missed.
//!
//! | fault | how often |
//! | --- | --- |
//! | a file disappears, a plugin becomes CRITICAL | a few of 200, every step |
//! | a plugin hangs, with a child in the background, until its timeout | every second step |
//! | a passive result becomes CRITICAL, or does not arrive in time | every step |
//! | a TCP port refuses connections | every third step |
//! | alertd is stopped for three seconds | every sixth step |
//!
//! Totals are kept in `target/soak/totals.json` after every step and accumulate over all runs, also
//! interrupted ones, until `--fresh`.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    process::{
        agent::{self, Agent},
        usage::{Identity, Table},
    },
    sh,
    up::{
        config::{self, Checks},
        part::Part,
        stage::{self, Stage},
    },
};

/// A real agent with 1,000 checks while faults come and go
#[derive(Parser)]
pub(crate) struct Options {
    /// How long to run; by default 1, and 30 with --long
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Run for half an hour
    #[arg(long)]
    long: bool,
    /// Forget the totals of earlier runs
    #[arg(long)]
    fresh: bool,
}

/// Different from the ports of `up` and `bench`.
const PORT: u16 = 5500;
const STEP: Duration = Duration::from_secs(10);
/// Until every check has run twice and the buffers have grown to their size.
const WARM: Duration = Duration::from_mins(2);

const NATIVE: usize = 700;
const FILES: usize = 100;
const PLUGINS: usize = 140;
const HANGING: usize = 10;
const PASSIVE: usize = 50;

/// A slope over less time says more about the allocator than about a leak.
const SLOPE_AFTER_S: u64 = 600;

/// What may grow between the first and the last quarter of a run.
const RSS_GROWTH_KIB: i64 = 1_024;
const GROWTH_MOST: i64 = 4;

/// What the agent used at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sample {
    second: u64,
    rss_kib: i64,
    descriptors: i64,
    threads: i64,
    /// Dead children that nobody had waited for at two looks in a row.
    zombies: i64,
    spooled: i64,
    skipped: i64,
    /// Looks at which alertd missed the agent, and batches that it did not take.
    missed_beats: i64,
    runs: u64,
}

/// Over all runs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Totals {
    runs: u64,
    seconds: u64,
    check_runs: u64,
    faults: u64,
    skipped: i64,
    zombies: i64,
    missed_beats: i64,
    /// Of runs that ended, the greatest growth.
    worst_growth_kib: i64,
    failed_runs: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let minutes = options.minutes.unwrap_or(if options.long { 30 } else { 1 });
    let top = sh::target().join("soak");
    fs::create_dir_all(&top)?;
    let path = top.join("totals.json");
    if options.fresh {
        let _ = fs::remove_file(&path);
    }
    let mut totals: Totals = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?,
        Err(_) => Totals::default(),
    };
    eprintln!("building the release profile …");
    let packages = ["-p", "dogwatch", "-p", "dogwatch-alertd", "--bin", "dogwatch", "--bin", "alertd"];
    sh::run(sh::cargo(&["build", "-q", "--release"]).args(packages))?;

    let mut world = World::start()?;
    totals.runs += 1;
    let (from, mut samples, mut stale) = (clock::now(), Vec::new(), Vec::new());
    let elapsed = || clock::now().duration_since(from);
    let until = WARM + Duration::from_secs(60 * minutes);
    eprintln!("1,000 checks; warming up for {} s, then {minutes} min …", WARM.as_secs());
    println!("   time  RSS KiB  descriptors  threads  zombies  spooled  skipped  missed beats  runs");
    let (mut step, mut counted) = (0, None);
    while elapsed() < until {
        world.faults(step)?;
        step += 1;
        thread::sleep(STEP.saturating_mul(u32::try_from(step)?).saturating_sub(elapsed()));
        let sample = world.sample(elapsed(), &mut stale)?;
        println!("{sample}");
        if elapsed() < WARM {
            continue;
        }
        let before: &Sample = counted.as_ref().unwrap_or(&sample);
        totals.seconds += sample.second - before.second;
        totals.check_runs += sample.runs - before.runs;
        totals.skipped += sample.skipped - before.skipped;
        totals.missed_beats += sample.missed_beats - before.missed_beats;
        totals.zombies += sample.zombies;
        totals.faults += std::mem::take(&mut world.faults);
        counted = Some(sample.clone());
        samples.push(sample);
        fs::write(&path, serde_json::to_vec_pretty(&totals)?)?;
    }
    drop(world);
    let verdict = Verdict::of(&samples).context("the run was too short")?;
    println!("\n{verdict}");
    totals.worst_growth_kib = totals.worst_growth_kib.max(verdict.rss_growth_kib());
    totals.failed_runs += u64::from(!verdict.passed());
    fs::write(&path, serde_json::to_vec_pretty(&totals)?)?;
    println!("\n{totals}\n(totals in {})", path.display());
    if !verdict.passed() {
        bail!("the soak failed");
    }
    Ok(())
}

/// The daemons and what can fail around them.
struct World {
    stage: Stage,
    agent: Agent,
    alertd: Child,
    target: SocketAddr,
    /// Accepts connections; `None` while the port is closed.
    listener: Option<TcpListener>,
    dir: PathBuf,
    /// Faults that began or ended since they were last counted.
    faults: u64,
    /// Looks at which alertd missed the agent.
    silent: i64,
}

impl World {
    fn start() -> Result<Self> {
        let dir = PathBuf::from("target/soak-run");
        let _ = fs::remove_dir_all(sh::root().join(&dir));
        let stage = Stage { dir, port: PORT, upstream: None, binaries: sh::target().join("release") };
        stage.is_free()?;
        config::prepare(&stage, &Checks { auto: false, text: String::new() })?;
        let dir = sh::root().join(&stage.dir).join("faults");
        fs::create_dir_all(&dir)?;
        for number in 0..FILES {
            fs::write(dir.join(format!("file-{number}")), "")?;
        }
        let plugin = dir.join("plugin");
        fs::write(&plugin, PLUGIN)?;
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let target = listener.local_addr()?;
        let mut alertd = stage.start(Part::Alertd)?;
        let agent = match Agent::start(&stage, "soak", false, &checks(&dir, target)) {
            Ok(agent) => agent,
            Err(error) => {
                stage::stop(&mut alertd);
                return Err(error);
            }
        };
        Ok(Self { stage, agent, alertd, target, listener: Some(listener), dir, faults: 0, silent: 0 })
    }

    /// Lets faults begin and end. Which ones depends only on the step.
    fn faults(&mut self, step: usize) -> Result<()> {
        let ill = |number: usize, of: usize| (number + step).is_multiple_of(of);
        for number in 0..FILES {
            let path = self.dir.join(format!("file-{number}"));
            self.faults += u64::from(set(&path, !ill(number, 20))?);
        }
        for number in 0..PLUGINS {
            let path = self.dir.join(format!("broken-{number}"));
            self.faults += u64::from(set(&path, ill(number, 25))?);
        }
        for number in 0..HANGING {
            let path = self.dir.join(format!("hang-{number}"));
            self.faults += u64::from(set(&path, step.is_multiple_of(2) && number.is_multiple_of(3))?);
        }
        for number in 0..PASSIVE {
            // One in ten is late: its last result becomes too old.
            if ill(number, 10) {
                self.faults += 1;
                continue;
            }
            let (state, text) =
                if ill(number, 7) { ("CRITICAL", "job failed") } else { ("OK", "done | n=1") };
            self.agent.submit(&format!("passive-{number}"), state, text)?;
        }
        if let Some(listener) = &self.listener {
            while listener.accept().is_ok() {}
        }
        let open = step % 3 != 2;
        if open != self.listener.is_some() {
            self.listener = if open { Some(TcpListener::bind(self.target)?) } else { None };
            if let Some(listener) = &self.listener {
                listener.set_nonblocking(true)?;
            }
            self.faults += 1;
        }
        if step % 6 == 5 {
            // Less than the agent's timeout: heartbeats are late, but none is missed.
            signal(self.alertd.id(), Signal::STOP);
            thread::sleep(Duration::from_secs(3));
            signal(self.alertd.id(), Signal::CONT);
            self.faults += 1;
        }
        Ok(())
    }

    fn sample(&mut self, elapsed: Duration, stale: &mut Vec<Identity>) -> Result<Sample> {
        let pid = self.agent.daemon.pid();
        if !self.agent.daemon.is_running() {
            bail!("the agent has ended: {}", self.agent.daemon.last_lines());
        }
        let page = self.agent.page()?;
        let alertd = agent::page(self.stage.metrics(Part::Alertd))?;
        let refused = whole(agent::total(&page, "dogwatch_batches_total{taken=\"false\"}"));
        self.silent += whole(agent::total(&alertd, "alertd_agents_silent"));
        let before = std::mem::take(stale);
        *stale = Table::read().zombies(pid);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Ok(Sample {
            second: elapsed.as_secs(),
            rss_kib: line("VmRSS:"),
            threads: line("Threads:"),
            descriptors: count(fs::read_dir(format!("/proc/{pid}/fd"))?.count()),
            zombies: count(stale.iter().filter(|zombie| before.contains(zombie)).count()),
            spooled: whole(agent::total(&page, "dogwatch_spool_events")),
            skipped: whole(agent::total(&page, "dogwatch_check_skipped_runs_total")),
            missed_beats: self.silent + refused,
            runs: self.agent.lag()?.count,
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        signal(self.alertd.id(), Signal::CONT);
        stage::stop(&mut self.alertd);
    }
}

/// Fails if `broken-N` exists; hangs with a child in the background if `hang-N` does.
const PLUGIN: &str = "#!/bin/sh
cd \"${0%/*}\" || exit 3
if [ -e \"hang-$1\" ]; then sleep 60 & sleep 60; fi
if [ -e \"broken-$1\" ]; then echo \"CRITICAL: broken-$1 exists | broken=1\"; exit 2; fi
echo \"OK: nothing is broken | broken=0\"
";

/// 1,000 checks: native, files, plugins, plugins that hang, passive ones.
fn checks(dir: &Path, target: SocketAddr) -> String {
    let mut text = String::from("[defaults]\ninterval = \"30s\"\nretry_interval = \"10s\"\n");
    let native = [
        "kind = \"load\"".to_owned(),
        "kind = \"memory\"".to_owned(),
        "kind = \"swap\"".to_owned(),
        format!("kind = \"tcp\"\nhost = \"{}\"\nport = {}", target.ip(), target.port()),
    ];
    let dir = dir.display();
    let mut add = |name: &str, count: usize, lines: &dyn Fn(usize) -> String| {
        for number in 0..count {
            let _ = writeln!(text, "\n[check.{name}-{number}]\n{}", lines(number));
        }
    };
    add("native", NATIVE, &|number| native[number % native.len()].clone());
    add("file", FILES, &|number| format!("kind = \"file\"\npath = \"{dir}/file-{number}\""));
    add("plugin", PLUGINS, &|number| {
        format!("kind = \"plugin\"\ninterval = \"60s\"\ncommand = [\"{dir}/plugin\", \"{number}\"]")
    });
    // A hung plugin takes one of the few places for plugins until its timeout.
    add("hanging", HANGING, &|number| {
        format!(
            "kind = \"plugin\"\ninterval = \"60s\"\ntimeout = \"1s\"\ncommand = [\"{dir}/plugin\", \"{number}\"]"
        )
    });
    add("passive", PASSIVE, &|_| "kind = \"passive\"\nfreshness = \"15s\"".into());
    text
}

/// Creates or removes a file. Returns whether that changed anything.
fn set(path: &Path, exists: bool) -> Result<bool> {
    if path.exists() == exists {
        return Ok(false);
    }
    let done = if exists { fs::write(path, "") } else { fs::remove_file(path) };
    done.map(|()| true).with_context(|| format!("cannot change {}", path.display()))
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "counters far below 2^53")]
fn whole(value: f64) -> i64 {
    value as i64
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>5} s {:>8} {:>12} {:>8} {:>8} {:>8} {:>8} {:>13} {:>5}",
            self.second,
            self.rss_kib,
            self.descriptors,
            self.threads,
            self.zombies,
            self.spooled,
            self.skipped,
            self.missed_beats,
            self.runs
        )
    }
}

/// Whether a run was flat.
#[derive(Debug)]
struct Verdict {
    /// Median of the first and the last quarter.
    rss_kib: (i64, i64),
    /// Of a run that is long enough to tell.
    slope_kib_per_hour: Option<f64>,
    /// Least of the first and the last quarter: what runs at the moment does not count.
    descriptors: (i64, i64),
    threads: (i64, i64),
    zombies: i64,
    spooled_last: i64,
    skipped: i64,
    missed_beats: i64,
}

impl Verdict {
    fn of(samples: &[Sample]) -> Option<Self> {
        let (first, last) = (samples.first()?, samples.last()?);
        let quarter = samples.len().div_ceil(4);
        let ends = |of: fn(&Sample) -> i64, pick: fn(Vec<i64>) -> i64| {
            let pick = |part: &[Sample]| pick(part.iter().map(of).collect());
            (pick(&samples[..quarter]), pick(&samples[samples.len() - quarter..]))
        };
        let median = |mut values: Vec<i64>| {
            values.sort_unstable();
            values[values.len() / 2]
        };
        let smallest = |values: Vec<i64>| values.into_iter().min().unwrap_or(0);
        Some(Self {
            rss_kib: ends(|sample| sample.rss_kib, median),
            slope_kib_per_hour: (last.second - first.second >= SLOPE_AFTER_S)
                .then(|| slope(samples) * 3_600.0),
            descriptors: ends(|sample| sample.descriptors, smallest),
            threads: ends(|sample| sample.threads, smallest),
            zombies: samples.iter().map(|sample| sample.zombies).sum(),
            spooled_last: ends(|sample| sample.spooled, smallest).1,
            skipped: last.skipped - first.skipped,
            missed_beats: last.missed_beats - first.missed_beats,
        })
    }

    fn rss_growth_kib(&self) -> i64 {
        self.rss_kib.1 - self.rss_kib.0
    }

    fn passed(&self) -> bool {
        self.rows().iter().all(|(_, _, met)| *met)
    }

    fn rows(&self) -> [(&'static str, String, bool); 6] {
        let grew = |(first, last): (i64, i64), most: i64| (format!("{first} → {last}"), last - first <= most);
        let (descriptors, descriptors_flat) = grew(self.descriptors, GROWTH_MOST);
        let (threads, threads_flat) = grew(self.threads, GROWTH_MOST);
        let (first, last) = self.rss_kib;
        let slope = self.slope_kib_per_hour.map(|slope| format!(", {slope:+.0} KiB an hour"));
        let rss = format!("{first} → {last} KiB{}", slope.unwrap_or_default());
        [
            ("RSS", rss, self.rss_growth_kib() <= RSS_GROWTH_KIB),
            ("descriptors", descriptors, descriptors_flat),
            ("threads", threads, threads_flat),
            ("zombies", self.zombies.to_string(), self.zombies == 0),
            ("missed beats", self.missed_beats.to_string(), self.missed_beats == 0),
            ("events that wait for alertd", self.spooled_last.to_string(), self.spooled_last < 500),
        ]
    }
}

/// KiB a second, by least squares.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn slope(samples: &[Sample]) -> f64 {
    let points: Vec<_> = samples.iter().map(|one| (one.second as f64, one.rss_kib as f64)).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut both, mut square) = (0.0, 0.0);
    for (at, rss) in &points {
        both += (at - x) * (rss - y);
        square += (at - x) * (at - x);
    }
    if square > 0.0 { both / square } else { 0.0 }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, measured, met) in self.rows() {
            let word = if met { "met" } else { "MISSED" };
            writeln!(f, "{word:<7} {what:<28} {measured}")?;
        }
        write!(f, "        {:<28} {}", "skipped runs", self.skipped)
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "all runs: {} ({} failed), {:.1} min, {} checks run, {} faults, {} skipped runs, {} zombies, \
             {} missed beats, greatest growth {} KiB",
            self.runs,
            self.failed_runs,
            Duration::from_secs(self.seconds).as_secs_f64() / 60.0,
            self.check_runs,
            self.faults,
            self.skipped,
            self.zombies,
            self.missed_beats,
            self.worst_growth_kib
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, rss_kib: i64) -> Sample {
        Sample {
            second,
            rss_kib,
            descriptors: 20,
            threads: 5,
            zombies: 0,
            spooled: 0,
            skipped: 0,
            missed_beats: 0,
            runs: 0,
        }
    }

    #[test]
    fn a_run_that_grows_is_not_flat() {
        let run = |growth: i64| -> Vec<Sample> {
            (0..90).map(|step| sample(10 * u64::try_from(step).unwrap(), 12_000 + growth * step)).collect()
        };
        assert!(Verdict::of(&run(0)).unwrap().passed());
        let grows = Verdict::of(&run(100)).unwrap();
        assert!(!grows.passed());
        assert!(grows.slope_kib_per_hour.is_some_and(|slope| (slope - 36_000.0).abs() < 1.0), "{grows:?}");
        assert_eq!(Verdict::of(&run(0)[..10]).unwrap().slope_kib_per_hour, None);
        assert!(Verdict::of(&[]).is_none());
    }
}
