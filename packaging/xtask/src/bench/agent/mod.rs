//! `cargo xtask bench agent`: what the agent costs, beside other monitoring agents.
//!
//! 1. All daemons run at the same time: the agent in several sizes, `dogwatch dns`, alertd, and the
//!    agents of Debian ([`peers`]). Memory is the median of five looks.
//! 2. An agent runs 10,000 checks a minute: how late do they start?
//! 3. The CPU time of one check, natively and as a plugin ([`cost`]).

mod checks;
mod cost;
mod peers;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use self::{
    checks::Kind,
    cost::Cost,
    peers::{NODE_EXPORTER, PEERS, Place},
};
use super::Budget;
use crate::{
    clock,
    process::{
        agent::{self, Agent},
        daemon::Daemon,
        usage::{self, Table, Usage},
    },
    sh,
    up::{
        config::{self, Checks},
        part::Part,
        stage::{self, Stage},
    },
};

/// Different from the ports of `up`, which may be running.
const PORT: u16 = 5400;
const SETTLE: Duration = Duration::from_secs(35);
const SCRAPE_EVERY: Duration = Duration::from_secs(15);

const MANY: usize = 1_000;
/// As many services as an agent can have.
const MOST: usize = 10_000;
const MOST_EVERY: &str = "60s";

const ZERO_CONFIG: &str = "dogwatch, no configuration";
const FEW_NATIVE: &str = "dogwatch, 50 native checks";
const DNS: &str = "dogwatch dns";

/// What was measured.
#[derive(Serialize)]
pub(super) struct Report {
    seconds: u64,
    rows: Vec<Row>,
    /// Peers that could not be measured, and why.
    missing: Vec<String>,
    lag: Lag,
    costs: Vec<Cost>,
}

/// One daemon.
#[derive(Serialize)]
struct Row {
    daemon: String,
    does: String,
    processes: usize,
    threads: u64,
    rss_kib: u64,
    pss_kib: u64,
    cpu_s: f64,
    installed_kib: Option<u64>,
}

/// 10,000 checks a minute.
#[derive(Serialize)]
struct Lag {
    runs: u64,
    runs_per_minute: f64,
    /// Upper bounds of the buckets of the histogram.
    p50_s: Option<f64>,
    p99_s: Option<f64>,
    cpu_percent: f64,
    rss_kib: u64,
}

/// A daemon and what is known of it before it is measured.
struct Subject {
    name: String,
    does: String,
    installed_kib: Option<u64>,
    running: Running,
}

enum Running {
    Agent(Agent),
    Peer(Daemon),
    /// Of the stage.
    Part(u32),
}

impl Subject {
    fn pid(&self) -> u32 {
        match &self.running {
            Running::Agent(agent) => agent.daemon.pid(),
            Running::Peer(daemon) => daemon.pid(),
            Running::Part(pid) => *pid,
        }
    }
}

fn stage() -> Result<Stage> {
    let dir = PathBuf::from("target/bench/agent");
    let _ = fs::remove_dir_all(sh::root().join(&dir));
    let stage = Stage { dir, port: PORT, upstream: None, binaries: sh::target().join("release") };
    stage.is_free()?;
    config::prepare(&stage, &Checks { auto: false, text: String::new() })?;
    Ok(stage)
}

/// Only the third part, for `span`.
pub(super) fn measure_costs(span: Duration) -> Result<Vec<Cost>> {
    let (stage, target) = (stage()?, tcp_target()?);
    let mut alertd = Parts(Vec::new());
    alertd.0.push((Part::Alertd, stage.start(Part::Alertd)?));
    anyhow::ensure!(cost::has_plugins(target), "monitoring-plugins-basic is not installed");
    cost::measure(&stage, target, span)
}

/// Measures for `span` in each of the three parts.
pub(super) fn measure(span: Duration) -> Result<Report> {
    let (stage, target) = (stage()?, tcp_target()?);
    let mut parts = Parts(Vec::new());
    for part in [Part::Upstream, Part::Dns, Part::Alertd] {
        parts.0.push((part, stage.start(part)?));
    }
    let (rows, missing) = beside_peers(&stage, target, &parts, span)?;
    let lag = lag(&stage, target, span)?;
    let costs = if cost::has_plugins(target) {
        eprintln!("the cost of one check: {} s …", span.as_secs());
        cost::measure(&stage, target, span)?
    } else {
        Vec::new()
    };
    Ok(Report { seconds: span.as_secs(), rows, missing, lag, costs })
}

/// Accepts connections until this process ends.
fn tcp_target() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}

fn beside_peers(
    stage: &Stage,
    target: SocketAddr,
    parts: &Parts,
    span: Duration,
) -> Result<(Vec<Row>, Vec<String>)> {
    let dogwatch_kib = agent::installed_kib(stage, "dogwatch").ok();
    let mut subjects = Vec::new();
    let every = format!("{}s", checks::EVERY_S);
    let mixed = |count, plugins| checks::config(count, &every, plugins, target, Kind::mixed);
    let sizes = [
        ("zero", ZERO_CONFIG, true, String::new()),
        ("few", FEW_NATIVE, false, mixed(checks::FEW, false)),
        ("plugins", "dogwatch, 50 plugins", false, mixed(checks::FEW, true)),
        ("many", "dogwatch, 1,000 native checks", false, mixed(MANY, false)),
    ];
    for (name, title, auto, text) in sizes {
        let agent = Agent::start(stage, name, auto, &text)?;
        let does = if auto { "built-in checks, every 60 s" } else { "every 30 s" };
        subjects.push(Subject {
            name: title.into(),
            does: does.into(),
            installed_kib: dogwatch_kib,
            running: Running::Agent(agent),
        });
    }
    let own = [
        (Part::Dns, DNS, "idle", dogwatch_kib),
        (Part::Alertd, "alertd", "hears from 4 agents", agent::installed_kib(stage, "alertd").ok()),
    ];
    for (part, name, does, installed_kib) in own {
        let pid = parts.pid(part).context("it was started")?;
        subjects.push(Subject {
            name: name.into(),
            does: does.into(),
            installed_kib,
            running: Running::Part(pid),
        });
    }

    let dir = sh::root().join(&stage.dir);
    let scraped = agent::free_address()?;
    let place = Place { dir: &dir, target, port: scraped.port() };
    let mut missing = Vec::new();
    for peer in PEERS {
        match peer.start(&place) {
            Ok(daemon) => subjects.push(Subject {
                name: peer.name.into(),
                does: peer.does.into(),
                installed_kib: peer.installed_kib().ok(),
                running: Running::Peer(daemon),
            }),
            Err(error) => missing.push(format!("{}: {error:#}", peer.name)),
        }
    }
    eprintln!("all daemons: settling for {} s, then {} s …", SETTLE.as_secs(), span.as_secs());
    thread::sleep(SETTLE);
    subjects.retain_mut(|subject| {
        let Running::Peer(daemon) = &mut subject.running else { return true };
        let runs = daemon.is_running();
        if !runs {
            missing.push(format!("{}: it ended: {}", subject.name, daemon.last_lines()));
        }
        runs
    });

    let before = usages(&subjects);
    let exporter_runs = subjects.iter().any(|subject| subject.name == NODE_EXPORTER);
    let mut left = span;
    while !left.is_zero() {
        let step = left.min(SCRAPE_EVERY);
        if exporter_runs && let Err(error) = agent::page(scraped) {
            missing.push(format!("a scrape of {NODE_EXPORTER}: {error:#}"));
        }
        thread::sleep(step);
        left -= step;
    }
    let after = usages(&subjects);
    let rows = subjects.iter().zip(before.iter().zip(after)).map(|(subject, (before, after))| Row {
        daemon: subject.name.clone(),
        does: subject.does.clone(),
        processes: after.processes,
        threads: after.threads,
        rss_kib: after.rss_kib,
        pss_kib: after.pss_kib,
        cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        installed_kib: subject.installed_kib,
    });
    Ok((rows.collect(), missing))
}

/// The median of five looks at the memory; a plugin that happens to run then does not count.
fn usages(subjects: &[Subject]) -> Vec<Usage> {
    let looks: Vec<Vec<Usage>> = (0..5)
        .map(|_| {
            let table = Table::read();
            let look = subjects.iter().map(|subject| table.usage(subject.pid())).collect();
            thread::sleep(Duration::from_millis(200));
            look
        })
        .collect();
    (0..subjects.len())
        .map(|at| {
            let mut of: Vec<Usage> = looks.iter().map(|look| look[at]).collect();
            let cpu = of[0].cpu;
            of.sort_by_key(|usage| usage.rss_kib);
            Usage { cpu, ..of[2] }
        })
        .collect()
}

/// Runs 10,000 checks a minute alone on the machine.
fn lag(stage: &Stage, target: SocketAddr, span: Duration) -> Result<Lag> {
    let text = checks::config(MOST, MOST_EVERY, false, target, Kind::mixed);
    let agent = Agent::start(stage, "most", false, &text)?;
    let pid = agent.daemon.pid();
    eprintln!("10,000 checks a minute: {} s …", span.as_secs());
    // Past the first runs, which follow one another within 10 s of the start.
    thread::sleep(Duration::from_secs(25));
    let (before, cpu, from) = (agent.lag()?, usage::cpu(pid), clock::now());
    thread::sleep(span);
    let (wall, after) = (clock::now().duration_since(from).as_secs_f64(), agent.lag()?);
    let used = usage::cpu(pid).context("the agent has ended")?.saturating_sub(cpu.unwrap_or_default());
    let lag = after.since(&before);
    Ok(Lag {
        runs: lag.count,
        runs_per_minute: float(lag.count) / wall * 60.0,
        p50_s: lag.at_most(50),
        p99_s: lag.at_most(99),
        cpu_percent: used.as_secs_f64() / wall * 100.0,
        rss_kib: Table::read().usage(pid).rss_kib,
    })
}

pub(super) fn print_table(report: &Report) {
    println!("all daemons at the same time, CPU time over {} s\n", report.seconds);
    println!(
        "{:<30} {:<28} {:>9} {:>7} {:>8} {:>8} {:>7} {:>13}",
        "daemon", "does", "processes", "threads", "RSS MiB", "PSS MiB", "CPU s", "installed MiB"
    );
    for row in &report.rows {
        println!(
            "{:<30} {:<28} {:>9} {:>7} {:>8.1} {:>8.1} {:>7.2} {:>13}",
            row.daemon,
            row.does,
            row.processes,
            row.threads,
            mib(row.rss_kib),
            mib(row.pss_kib),
            row.cpu_s,
            row.installed_kib.map_or("-".into(), |kib| format!("{:.1}", mib(kib))),
        );
    }
    for line in &report.missing {
        println!("not measured: {line}");
    }
    let lag = &report.lag;
    let bound = |of: Option<f64>| of.map_or("-".into(), |seconds| format!("≤ {:.1} ms", seconds * 1_000.0));
    println!(
        "\n{MOST} native checks every {MOST_EVERY}: {} runs, {:.0} a minute; start lag p50 {}, p99 {}; \
         {:.1} % of a core, {:.1} MiB resident",
        lag.runs,
        lag.runs_per_minute,
        bound(lag.p50_s),
        bound(lag.p99_s),
        lag.cpu_percent,
        mib(lag.rss_kib)
    );
    if report.costs.is_empty() {
        println!("\nthe cost of one check: not measured, monitoring-plugins-basic is not installed");
    } else {
        cost::print_table(&report.costs);
    }
    println!();
    super::summarise(&budgets(report));
}

/// The figures with their budgets.
pub(super) fn budgets(report: &Report) -> Vec<Budget> {
    let row = |name: &str| report.rows.iter().find(|row| row.daemon == name);
    let resident = |name: &str, most: f64| {
        let what = format!("{name}: resident");
        row(name).map(|row| Budget::at_most(&what, mib(row.rss_kib), most, "MiB"))
    };
    let mut budgets: Vec<Budget> =
        [resident(ZERO_CONFIG, 12.0), resident(FEW_NATIVE, 12.0), resident(DNS, 10.0)]
            .into_iter()
            .flatten()
            .collect();
    if let Some(row) = row(FEW_NATIVE) {
        let percent = row.cpu_s / float(report.seconds) * 100.0;
        budgets.push(Budget::at_most(&format!("{FEW_NATIVE}: CPU"), percent, 0.1, "% of a core"));
    }
    budgets.push(Budget::at_most(
        "10,000 native checks a minute: start lag p99",
        report.lag.p99_s.unwrap_or(f64::INFINITY),
        1.0,
        "s",
    ));
    budgets.push(Budget::at_least("the same: runs", report.lag.runs_per_minute, 9_900.0, "a minute"));
    budgets.extend(budgets_of(&report.costs));
    budgets
}

pub(super) fn budgets_of(costs: &[Cost]) -> Vec<Budget> {
    let budget = |cost: &Cost| {
        let what = format!("{}: plugin by native", cost.check);
        Budget::at_least(&what, cost.ratio, 50.0, "×")
    };
    costs.iter().map(budget).collect()
}

pub(super) fn print_costs(costs: &[Cost]) {
    cost::print_table(costs);
    println!();
    super::summarise(&budgets_of(costs));
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(number: u64) -> f64 {
    number as f64
}

fn mib(kib: u64) -> f64 {
    float(kib) / 1024.0
}

/// The daemons of the stage; stopped when dropped.
struct Parts(Vec<(Part, std::process::Child)>);

impl Parts {
    fn pid(&self, part: Part) -> Option<u32> {
        self.0.iter().find(|(one, _)| *one == part).map(|(_, child)| child.id())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, child) in self.0.iter_mut().rev() {
            stage::stop(child);
        }
    }
}
