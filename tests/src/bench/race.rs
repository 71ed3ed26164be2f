//! The cost of an answer: all servers in one run, in turns, so that other load on the machine
//! affects all of them. The server has one core to itself, client and upstream share the other.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    client::{flood, paced, walk},
    median,
    peers::{Peer, Server, on_core, two_cores},
    percentile,
    table::{Budget, Cell, render},
    upstream::Upstream,
};
use crate::process::free_port;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    pub servers: Vec<Peer>,
    pub names: u32,
    pub rounds: u32,
    /// Length of one round of one server.
    pub round: Duration,
    /// Fill each cache with a million names too.
    pub million: bool,
}

#[derive(Debug, Serialize)]
pub struct Race {
    pub names: u32,
    pub rounds: u32,
    pub round_s: f64,
    pub rows: Vec<Row>,
    pub not_measured: Vec<Absent>,
    pub budgets: Vec<Budget>,
}

/// A server that was to be measured and was not.
#[derive(Debug, Serialize)]
pub struct Absent {
    pub server: &'static str,
    pub why: String,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub server: &'static str,
    pub saturated: Saturated,
    pub at_20k: At20k,
    /// Not of the echo.
    pub miss: Option<Miss>,
    pub memory: Memory,
}

/// Cached answers, as many as it can give.
#[derive(Debug, Serialize)]
pub struct Saturated {
    pub cpu_us: f64,
    pub cpu_us_min: f64,
    pub cpu_us_max: f64,
    pub answers_per_s: f64,
    pub lost: u64,
    pub wrong: u64,
    pub times_echo: Option<f64>,
    pub times_unbound: Option<f64>,
}

/// Cached answers to 20,000 questions a second.
#[derive(Debug, Serialize)]
pub struct At20k {
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub unanswered: u32,
    pub wrong: u32,
    pub times_echo: Option<f64>,
}

/// Names never asked before.
#[derive(Debug, Serialize)]
pub struct Miss {
    pub cpu_us: f64,
    pub per_s: f64,
    pub failed: u32,
}

#[derive(Debug, Serialize)]
pub struct Memory {
    pub empty_mib: f64,
    pub names_mib: f64,
    pub million: Option<Million>,
}

/// A fresh server with a million names in its cache.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Million {
    pub names: u32,
    pub resident_mib: f64,
    pub bytes_per_name: f64,
    pub fill_cpu_us: f64,
}

/// One server in the race.
struct Runner {
    server: Server,
    empty: u64,
    filled: u64,
    floods: Vec<Sample>,
    paces: Vec<(Sample, Vec<f64>)>,
    misses: Vec<Sample>,
}

/// What one round of one server gave.
#[derive(Debug, Default, Clone, Copy)]
struct Sample {
    answers: u64,
    cpu: Duration,
    wall: Duration,
    wrong: u64,
    lost: u64,
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.answers.max(1))
    }

    fn per_s(&self) -> f64 {
        count(self.answers) / self.wall.as_secs_f64()
    }
}

/// Runs it; files go to `folder`, what happens now to `progress`.
pub fn run(plan: &Plan, folder: &Path, progress: &dyn Fn(&str)) -> Result<Race> {
    let (server_core, client_core) = two_cores()?;
    if server_core == client_core {
        progress("only one core: server and client share it, so neither q/s nor latency mean much");
    }
    let mut not_measured = Vec::new();
    let mut runners = on_core(client_core, || start(plan, folder, server_core, &mut not_measured, progress))?;
    on_core(client_core, || rounds(plan, &mut runners, progress))??;
    let millions: Vec<_> = runners.iter().map(|runner| runner.server.peer).collect();
    let mut rows = rows(&runners);
    drop(runners);
    if plan.million {
        for (row, peer) in rows.iter_mut().zip(millions).filter(|(_, peer)| peer.is_dns()) {
            progress(&format!("{}: a million names", peer.name()));
            match million(peer, folder) {
                Ok(million) => row.memory.million = Some(million),
                Err(error) => not_measured
                    .push(Absent { server: peer.name(), why: format!("a million names: {error:#}") }),
            }
        }
    }
    let budgets = budgets(&rows, plan);
    Ok(Race {
        names: plan.names,
        rounds: plan.rounds,
        round_s: plan.round.as_secs_f64(),
        rows,
        not_measured,
        budgets,
    })
}

fn start(
    plan: &Plan,
    folder: &Path,
    core: usize,
    not_measured: &mut Vec<Absent>,
    progress: &dyn Fn(&str),
) -> Vec<Runner> {
    let mut runners = Vec::new();
    for &peer in &plan.servers {
        let started = peer.program().map_err(anyhow::Error::msg).and_then(|_| {
            // Each has its own upstream, so that probes of one do not disturb another.
            let upstream = Upstream::start(free_port(), 0)?;
            let server =
                Server::start(peer, folder, false, upstream.address, 4 * plan.names.max(10_000), Some(core))?;
            let empty = server.resident_bytes();
            if peer.is_dns() {
                progress(&format!("warming {} with {} names", peer.name(), plan.names));
                // Twice: the second pass must be all hits, and shows that it is.
                for _ in 0..2 {
                    let seen = walk(server.address(), 0..plan.names, TTL_S, Duration::from_mins(1))?;
                    if seen.right != plan.names {
                        bail!("it does not learn all names: {seen:?}\n{}", server.log());
                    }
                }
            }
            let filled = server.resident_bytes();
            Ok(Runner { server, empty, filled, floods: Vec::new(), paces: Vec::new(), misses: Vec::new() })
        });
        match started {
            Ok(runner) => runners.push(runner),
            Err(error) => not_measured.push(Absent { server: peer.name(), why: format!("{error:#}") }),
        }
    }
    runners
}

fn rounds(plan: &Plan, runners: &mut [Runner], progress: &dyn Fn(&str)) -> Result<()> {
    for round in 1..=plan.rounds {
        progress(&format!("round {round} of {}: as much as it can", plan.rounds));
        for Runner { server, floods, .. } in &mut *runners {
            let before = server.cpu();
            let seen = flood(server.address(), plan.names, TTL_S, plan.round, server.peer.is_dns())?;
            let (cpu, wall) = (server.cpu().saturating_sub(before), seen.wall);
            floods.push(Sample { answers: seen.answers, cpu, wall, wrong: seen.wrong, lost: seen.lost });
        }
        progress(&format!("round {round} of {}: {RATE} a second", plan.rounds));
        for Runner { server, paces, .. } in &mut *runners {
            let before = server.cpu();
            let seen = paced(server.address(), plan.names, TTL_S, RATE, plan.round, server.peer.is_dns())?;
            let cpu = server.cpu().saturating_sub(before);
            let (wrong, lost) = (seen.wrong.into(), seen.unanswered.into());
            let sample = Sample { answers: seen.latency_us.len() as u64, cpu, wall: plan.round, wrong, lost };
            paces.push((sample, seen.latency_us));
        }
    }
    // Last: they may push names out of a small cache.
    for round in 1..=plan.rounds {
        progress(&format!("round {round} of {}: names never asked before", plan.rounds));
        for Runner { server, misses, .. } in &mut *runners {
            if !server.peer.is_dns() {
                continue;
            }
            let first = round * 1_000_000;
            let before = server.cpu();
            let seen = walk(server.address(), first..first + MISSES, TTL_S, plan.round * 4)?;
            let cpu = server.cpu().saturating_sub(before);
            let (wrong, lost) = (seen.wrong.into(), seen.unanswered.into());
            misses.push(Sample { answers: seen.right.into(), cpu, wall: seen.wall, wrong, lost });
        }
    }
    Ok(())
}

/// Fills a fresh server; one at a time, and on any core: memory does not depend on it.
fn million(peer: Peer, folder: &Path) -> Result<Million> {
    const NAMES: u32 = 1_000_000;
    let folder = folder.join("million");
    let upstream = Upstream::start(free_port(), 0)?;
    let server = Server::start(peer, &folder, false, upstream.address, 2 * NAMES, None)?;
    let (empty, before) = (server.resident_bytes(), server.cpu());
    let seen = walk(server.address(), 0..NAMES, LONG_TTL_S, Duration::from_mins(4))?;
    let (resident, cpu) = (server.resident_bytes(), server.cpu().saturating_sub(before));
    if seen.right == 0 {
        bail!("no name learnt: {seen:?}");
    }
    let names = count(seen.right.into());
    Ok(Million {
        names: seen.right,
        resident_mib: mib(resident),
        bytes_per_name: count(resident.saturating_sub(empty)) / names,
        fill_cpu_us: cpu.as_secs_f64() * 1e6 / names,
    })
}

fn rows(runners: &[Runner]) -> Vec<Row> {
    let flood_cost = |runner: &Runner| median(runner.floods.iter().map(Sample::cpu_us));
    let pace_cost = |runner: &Runner| median(runner.paces.iter().map(|(sample, _)| sample.cpu_us()));
    let of = |peer: Peer| runners.iter().find(move |runner| runner.server.peer == peer);
    let (echo, unbound) = (of(Peer::Echo), of(Peer::Unbound));
    let row = |runner: &Runner| {
        let cpu_us: Vec<_> = runner.floods.iter().map(Sample::cpu_us).collect();
        let (cost, paced) = (flood_cost(runner), pace_cost(runner));
        Row {
            server: runner.server.peer.name(),
            saturated: Saturated {
                cpu_us: cost,
                cpu_us_min: cpu_us.iter().copied().fold(f64::INFINITY, f64::min),
                cpu_us_max: cpu_us.iter().copied().fold(0.0, f64::max),
                answers_per_s: median(runner.floods.iter().map(Sample::per_s)),
                lost: runner.floods.iter().map(|sample| sample.lost).sum(),
                wrong: runner.floods.iter().map(|sample| sample.wrong).sum(),
                times_echo: echo.map(|echo| cost / flood_cost(echo)),
                times_unbound: unbound.map(|unbound| cost / flood_cost(unbound)),
            },
            at_20k: At20k {
                cpu_us: paced,
                p50_us: median(runner.paces.iter().map(|(_, latency)| percentile(latency, 50.0))),
                p99_us: median(runner.paces.iter().map(|(_, latency)| percentile(latency, 99.0))),
                unanswered: runner.paces.iter().map(|(sample, _)| small(sample.lost)).sum(),
                wrong: runner.paces.iter().map(|(sample, _)| small(sample.wrong)).sum(),
                times_echo: echo.map(|echo| paced / pace_cost(echo)),
            },
            miss: runner.server.peer.is_dns().then(|| Miss {
                cpu_us: median(runner.misses.iter().map(Sample::cpu_us)),
                per_s: median(runner.misses.iter().map(Sample::per_s)),
                failed: runner.misses.iter().map(|sample| small(sample.wrong + sample.lost)).sum(),
            }),
            memory: Memory { empty_mib: mib(runner.empty), names_mib: mib(runner.filled), million: None },
        }
    };
    runners.iter().map(row).collect()
}

/// The budget for our row.
fn budgets(rows: &[Row], plan: &Plan) -> Vec<Budget> {
    let Some(ours) = rows.iter().find(|row| row.server == Peer::Dogwatch.name()) else { return Vec::new() };
    let mut budgets = Vec::new();
    let mut ratio = |what: &str, measured: Option<f64>, most: f64, unit: &str, missing: &str| {
        budgets.push(match measured {
            Some(measured) => Budget::at_most(what, measured, most, unit),
            None => Budget::not_measured(what, missing),
        });
    };
    ratio(
        "CPU per cached answer, saturated",
        ours.saturated.times_echo,
        1.15,
        "× echo",
        "no echo in this run",
    );
    ratio("the same", ours.saturated.times_unbound, 0.7, "× unbound", "no unbound in this run");
    ratio("CPU per cached answer, 20,000 q/s", ours.at_20k.times_echo, 1.1, "× echo", "no echo in this run");
    let miss = ours.miss.as_ref().map(|miss| miss.cpu_us);
    ratio("CPU per miss", miss, 30.0, "µs", "no misses in this run");
    if plan.million {
        let million = ours.memory.million.map(|million| million.bytes_per_name);
        ratio("memory per name, a million names", million, 150.0, "B", "the million names were not filled");
    }
    let wrong = count(ours.saturated.wrong + u64::from(ours.at_20k.wrong));
    ratio("wrong answers in the race", Some(wrong), 0.0, "", "");
    budgets
}

/// The tables for people.
pub fn print(race: &Race, colours: bool) -> String {
    let times = |times: Option<f64>| times.map_or_else(|| "-".into(), |times| format!("{times:.2}"));
    let target = |cell: Cell, row: &Row, value: Option<f64>, most: f64| match value {
        Some(value) if row.server == Peer::Dogwatch.name() => cell.target(value <= most),
        _ => cell,
    };
    let cached: Vec<_> = race
        .rows
        .iter()
        .map(|row| {
            let (full, paced) = (&row.saturated, &row.at_20k);
            vec![
                Cell::new(row.server),
                Cell::number(full.cpu_us, 2),
                Cell::new(format!("{:.2}–{:.2}", full.cpu_us_min, full.cpu_us_max)),
                target(Cell::new(times(full.times_echo)), row, full.times_echo, 1.15),
                target(Cell::new(times(full.times_unbound)), row, full.times_unbound, 0.7),
                Cell::number(full.answers_per_s, 0),
                Cell::new(full.lost.to_string()),
                Cell::number(paced.cpu_us, 2),
                target(Cell::new(times(paced.times_echo)), row, paced.times_echo, 1.1),
                Cell::number(paced.p50_us, 0),
                Cell::number(paced.p99_us, 0),
                Cell::new(paced.unanswered.to_string()),
                Cell::new((full.wrong + u64::from(paced.wrong)).to_string()),
            ]
        })
        .collect();
    let mut text = format!(
        "cached answers over loopback UDP: {} names, one core for the server, median of {} rounds of {} s\n\n",
        race.names, race.rounds, race.round_s
    );
    text += &render(
        &[
            "server",
            "CPU µs",
            "min–max",
            "× echo",
            "× unbound",
            "q/s",
            "lost",
            "20k q/s: CPU µs",
            "× echo",
            "p50 µs",
            "p99 µs",
            "lost",
            "wrong",
        ],
        &cached,
        colours,
    );
    let rest: Vec<_> = race
        .rows
        .iter()
        .filter_map(|row| Some((row, row.miss.as_ref()?)))
        .map(|(row, miss)| {
            let million = row.memory.million;
            let or_dash =
                |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.0}"));
            let per_name = million.map(|million| million.bytes_per_name);
            vec![
                Cell::new(row.server),
                target(Cell::number(miss.cpu_us, 1), row, Some(miss.cpu_us), 30.0),
                Cell::number(miss.per_s, 0),
                Cell::new(miss.failed.to_string()),
                Cell::number(row.memory.empty_mib, 1),
                Cell::number(row.memory.names_mib, 1),
                Cell::new(or_dash(million.map(|million| million.resident_mib))),
                target(Cell::new(or_dash(per_name)), row, per_name, 150.0),
                Cell::new(million.map_or_else(|| "-".into(), |million| million.names.to_string())),
            ]
        })
        .collect();
    text += "\nmisses, and resident memory\n\n";
    let filled = format!("{} names MiB", race.names);
    text += &render(
        &[
            "server",
            "miss: CPU µs",
            "misses/s",
            "failed",
            "empty MiB",
            &filled,
            "1 M names MiB",
            "B/name",
            "names filled",
        ],
        &rest,
        colours,
    );
    for absent in &race.not_measured {
        let _ = write!(text, "\nNOT MEASURED: {}: {}\n", absent.server, absent.why);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]
fn count(value: u64) -> f64 {
    value as f64
}

fn mib(bytes: u64) -> f64 {
    count(bytes) / 1_048_576.0
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Long enough to outlive the run.
const TTL_S: u32 = 3_600;
const LONG_TTL_S: u32 = 86_400;
/// Questions a second where latency is measured.
const RATE: u32 = 20_000;
/// Names of a round of misses.
const MISSES: u32 = 5_000;
