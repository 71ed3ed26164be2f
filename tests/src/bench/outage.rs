//! What clients see while the upstream fails. Every server runs with its best configuration for
//! serving stale, its own upstream and its own client, all at the same time.
//!
//! 2 s to warm, 10 s healthy, the illness, then healthy again. The client asks 500 times a second
//! for 1,000 names with a TTL of 5 s, so a cache that only keeps what is fresh is empty 5 s into
//! the illness. `restart` is a blackhole in whose middle the server gets a `kill -9` and is started
//! again.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use super::{
    client::{Asked, TIMEOUT, Watch, watch},
    names::Verdict,
    now,
    peers::{Peer, Server},
    percentile,
    race::Absent,
    table::{Budget, Cell, render},
    upstream::{Mode, Upstream},
};
use crate::process::free_port;

/// How the upstream fails, and what else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Illness {
    Blackhole,
    Servfail,
    Refused,
    Nxdomain,
    Empty,
    Delay,
    Loss,
    /// A blackhole, and `kill -9` of the server in its middle.
    Restart,
}

impl Illness {
    fn mode(self) -> Mode {
        match self {
            Self::Blackhole | Self::Restart => Mode::Blackhole,
            Self::Servfail => Mode::Servfail,
            Self::Refused => Mode::Refused,
            Self::Nxdomain => Mode::Nxdomain,
            Self::Empty => Mode::Empty,
            Self::Delay => Mode::Delay,
            Self::Loss => Mode::Loss,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Servfail => "SERVFAIL for all",
            Self::Refused => "REFUSED for all",
            Self::Nxdomain => "NXDOMAIN for all",
            Self::Empty => "empty answers for all",
            Self::Delay => "5 s delay",
            Self::Loss => "50 % loss",
            Self::Restart => "blackhole, kill -9 in its middle",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub servers: Vec<Peer>,
    pub illnesses: Vec<Illness>,
    /// So many illnesses at a time.
    pub at_once: usize,
    pub ill: Duration,
    pub after: Duration,
}

#[derive(Debug, Serialize)]
pub struct Outage {
    pub ill_s: f64,
    pub names: u32,
    pub ttl_s: u32,
    pub rate: u32,
    pub rows: Vec<Row>,
    pub not_measured: Vec<Absent>,
    pub budgets: Vec<Budget>,
}

/// One server in one failure.
#[derive(Debug, Serialize)]
pub struct Row {
    pub illness: Illness,
    pub server: &'static str,
    /// Of both cores, all processes, over the illness. Above some 70 % the latencies are the
    /// machine's.
    pub machine_busy_percent: f64,
    pub healthy: Phase,
    /// Questions of the healthy time that a cache answers from memory.
    pub fresh_hits: Phase,
    /// All of it; for `restart`, from [`RESTART`] after the kill on.
    pub ill: Phase,
    /// From [`SETTLED`] on: whatever breaker there is has opened.
    pub settled: Phase,
    pub after: Phase,
    /// For `restart`: from the kill to the first right answer.
    pub restart_to_first_answer_s: Option<f64>,
    pub upstream_queries: u64,
    pub upstream_per_query: f64,
    pub upstream_healthy_per_s: f64,
    /// Most in a tenth of a second, as a rate: in the healthy time, and in the first 2 s after the
    /// illness.
    pub healthy_peak_per_s: u32,
    pub recovery_peak_per_s: u32,
    /// After the upstream is well, until it gets at least half of the healthy queries in a second.
    pub asked_again_s: Option<f64>,
    /// After the upstream is well, until a second has at least 9 in 10 of the fresh answers of the
    /// healthy time.
    pub fresh_again_s: Option<f64>,
    /// The recovery, second by second.
    pub seconds_after: Vec<Second>,
    pub cpu_us_per_query: f64,
}

/// One second of the recovery.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Second {
    pub right_percent: f64,
    pub fresh_percent: f64,
    pub upstream_queries: u64,
}

/// What the client saw in a stretch of time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Phase {
    /// Without those for names that were never answered before: on a machine that stalls while
    /// warming there may be some.
    pub asked: usize,
    pub right_percent: f64,
    pub fresh_percent: f64,
    /// A question without an answer counts 2,000 ms.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub unanswered: usize,
    pub servfail: usize,
    pub nxdomain: usize,
    pub refused: usize,
    pub no_data: usize,
}

impl Phase {
    fn of<'a>(asked: impl Iterator<Item = &'a Asked>) -> Self {
        let mut phase = Self::default();
        let (mut right, mut fresh) = (0, 0);
        let mut latency_ms = Vec::new();
        for one in asked.filter(|one| one.known) {
            phase.asked += 1;
            fresh += usize::from(one.fresh);
            latency_ms.push(one.latency.unwrap_or(TIMEOUT).as_secs_f64() * 1e3);
            match one.verdict {
                Some(Verdict::Right) => right += 1,
                Some(Verdict::NoData) => phase.no_data += 1,
                Some(Verdict::Rcode(2)) => phase.servfail += 1,
                Some(Verdict::Rcode(3)) => phase.nxdomain += 1,
                Some(Verdict::Rcode(5)) => phase.refused += 1,
                Some(Verdict::Rcode(_) | Verdict::Malformed) => {}
                None => phase.unanswered += 1,
            }
        }
        latency_ms.sort_by(f64::total_cmp);
        phase.right_percent = percent(right, phase.asked);
        phase.fresh_percent = percent(fresh, phase.asked);
        [phase.p50_ms, phase.p99_ms, phase.max_ms] =
            [50.0, 99.0, 100.0].map(|at| percentile(&latency_ms, at));
        phase
    }

    fn between(asked: &[Asked], from: Duration, to: Duration) -> Self {
        Self::of(asked.iter().filter(|one| (from..to).contains(&one.at)))
    }
}

/// The moments of one window.
#[derive(Debug, Clone, Copy)]
struct Times {
    start: Instant,
    ill: Duration,
    after: Duration,
}

impl Times {
    const ILL_FROM: Duration = Duration::from_secs(12);

    fn well_from(&self) -> Duration {
        Self::ILL_FROM + self.ill
    }

    fn killed(&self) -> Duration {
        Self::ILL_FROM + self.ill / 2
    }

    fn end(&self) -> Duration {
        self.well_from() + self.after
    }

    fn wait_for(&self, moment: Duration) {
        thread::sleep((self.start + moment).saturating_duration_since(now()));
    }
}

/// One server in one failure, running.
struct Column {
    illness: Illness,
    server: Server,
    upstream: Upstream,
    client: Option<JoinHandle<std::io::Result<Vec<Asked>>>>,
    cpu_before: Duration,
    cpu_after: Duration,
}

/// Runs it; files go to `folder`, what happens now to `progress`.
pub fn run(plan: &Plan, folder: &Path, progress: &dyn Fn(&str)) -> Result<Outage> {
    let mut rows = Vec::new();
    let mut not_measured = Vec::new();
    for together in plan.illnesses.chunks(plan.at_once.max(1)) {
        let names: Vec<_> = together.iter().map(|illness| illness.name()).collect();
        let length = (Times::ILL_FROM + plan.ill + plan.after).as_secs();
        progress(&format!("{}: {length} s", names.join(" and ")));
        let folder = folder.join(format!("{:?}", together[0]));
        rows.extend(window(plan, together, &folder, &mut not_measured, progress)?);
    }
    let budgets = rows.iter().filter(|row| row.server == Peer::Dogwatch.name()).flat_map(budgets).collect();
    let ill_s = plan.ill.as_secs_f64();
    Ok(Outage { ill_s, names: NAMES, ttl_s: TTL_S, rate: RATE, rows, not_measured, budgets })
}

fn window(
    plan: &Plan,
    illnesses: &[Illness],
    folder: &Path,
    not_measured: &mut Vec<Absent>,
    progress: &dyn Fn(&str),
) -> Result<Vec<Row>> {
    let mut columns = Vec::new();
    for &illness in illnesses {
        for &peer in &plan.servers {
            if peer == Peer::Direct && illness == Illness::Restart {
                continue;
            }
            match start(illness, peer, &folder.join(format!("{illness:?}"))) {
                Ok(column) => columns.push(column),
                Err(error) => {
                    let why = format!("{}: {error:#}", illness.name());
                    progress(&format!("NOT MEASURED: {}: {why}", peer.name()));
                    not_measured.push(Absent { server: peer.name(), why });
                }
            }
        }
    }
    let times = Times { start: now() + Duration::from_secs(1), ill: plan.ill, after: plan.after };
    for column in &mut columns {
        let (address, upstream) = (column.server.address(), column.upstream.clone());
        let to_do = Watch { names: NAMES, ttl_s: TTL_S, rate: RATE, start: times.start, length: times.end() };
        column.client = Some(thread::spawn(move || watch(address, &upstream, to_do)));
    }
    times.wait_for(Times::ILL_FROM);
    let busy_before = machine();
    for column in &mut columns {
        column.upstream.set(column.illness.mode());
        column.cpu_before = column.server.cpu();
    }
    times.wait_for(times.killed());
    for column in columns.iter_mut().filter(|column| column.illness == Illness::Restart) {
        column.server.kill();
        column.server.run()?;
        column.cpu_before = Duration::ZERO;
    }
    times.wait_for(times.well_from());
    for column in &mut columns {
        column.upstream.set(Mode::Well);
        column.cpu_after = column.server.cpu();
    }
    let busy = busy_percent(busy_before, machine());
    columns.into_iter().map(|column| finish(column, &times, busy)).collect()
}

fn start(illness: Illness, peer: Peer, folder: &Path) -> Result<Column> {
    peer.program().map_err(anyhow::Error::msg)?;
    let upstream = Upstream::start(free_port(), NAMES)?;
    let server = Server::start(peer, folder, true, upstream.address, 20_000, None)?;
    let zero = Duration::ZERO;
    Ok(Column { illness, server, upstream, client: None, cpu_before: zero, cpu_after: zero })
}

fn finish(mut column: Column, times: &Times, machine_busy_percent: f64) -> Result<Row> {
    let client = column.client.take().and_then(|client| client.join().ok()).context("the client panicked")?;
    let asked = client.with_context(|| format!("the client of {}", column.server.peer.name()))?;
    Ok(score(&column, &asked, times, machine_busy_percent))
}

/// Healthy, without the warming.
const HEALTHY_FROM: Duration = Duration::from_secs(3);
/// After the start of the failure: fresh entries are gone, breakers are open.
const SETTLED: Duration = Duration::from_secs(10);

/// What a killed server may take to answer again.
const RESTART: Duration = Duration::from_secs(1);

fn score(column: &Column, asked: &[Asked], times: &Times, machine_busy_percent: f64) -> Row {
    let restart = column.illness == Illness::Restart;
    let (ill_from, well_from) = (Times::ILL_FROM, times.well_from());
    let scored_from = if restart { times.killed() + RESTART } else { ill_from };
    // Those asked in the last moment are answered by a healthy upstream.
    let ill_to = well_from.saturating_sub(Duration::from_millis(50));
    let healthy = Phase::between(asked, HEALTHY_FROM, ill_from);
    let ill = Phase::between(asked, scored_from, ill_to);
    // Before and after, for nine seconds alone are too few to know one in a hundred.
    let healthy_again = well_from + SETTLED;
    let repeated = |one: &&Asked| {
        one.repeated && ((HEALTHY_FROM..ill_from).contains(&one.at) || one.at >= healthy_again)
    };
    let tenths = |from: Duration, to: Duration| column.upstream.tenths(times.start + from, times.start + to);
    let sum = |tenths: &[u32]| tenths.iter().map(|count| u64::from(*count)).sum::<u64>();
    let peak = |tenths: &[u32]| tenths.iter().max().copied().unwrap_or(0) * 10;
    let healthy_tenths = tenths(HEALTHY_FROM, ill_from);
    let upstream_queries = sum(&tenths(scored_from, well_from));
    let per_query = |value: f64| value / number(ill.asked.max(1));
    let first_answer = || {
        let later = asked.iter().filter(|one| one.at >= times.killed());
        let arrivals = later.filter(|one| one.verdict == Some(Verdict::Right));
        let first = arrivals.filter_map(|one| Some(one.at + one.latency?)).min()?;
        Some(first.saturating_sub(times.killed()).as_secs_f64())
    };
    Row {
        illness: column.illness,
        server: column.server.peer.name(),
        machine_busy_percent,
        healthy,
        fresh_hits: Phase::of(asked.iter().filter(repeated)),
        ill,
        settled: Phase::between(asked, scored_from + SETTLED.min(times.ill / 4), ill_to),
        after: Phase::between(asked, well_from, times.end()),
        restart_to_first_answer_s: restart.then(first_answer).flatten(),
        upstream_queries,
        upstream_per_query: per_query(number(usize::try_from(upstream_queries).unwrap_or(usize::MAX))),
        upstream_healthy_per_s: number(usize::try_from(sum(&healthy_tenths)).unwrap_or(usize::MAX))
            / (ill_from.saturating_sub(HEALTHY_FROM)).as_secs_f64(),
        healthy_peak_per_s: peak(&healthy_tenths),
        recovery_peak_per_s: peak(&tenths(well_from, well_from + Duration::from_secs(2))),
        asked_again_s: asked_again(
            &tenths(well_from, times.end()),
            sum(&healthy_tenths),
            healthy_tenths.len(),
        ),
        fresh_again_s: fresh_again(asked, healthy.fresh_percent, well_from, times.end()),
        seconds_after: (0..times.after.as_secs())
            .map(|second| {
                let from = well_from + Duration::from_secs(second);
                let to = from + Duration::from_secs(1);
                let phase = Phase::between(asked, from, to);
                let (right_percent, fresh_percent) = (phase.right_percent, phase.fresh_percent);
                Second { right_percent, fresh_percent, upstream_queries: sum(&tenths(from, to)) }
            })
            .collect(),
        cpu_us_per_query: per_query(column.cpu_after.saturating_sub(column.cpu_before).as_secs_f64() * 1e6),
    }
}

/// Seconds until ten tenths together have half of what a healthy second has.
fn asked_again(tenths: &[u32], healthy: u64, healthy_tenths: usize) -> Option<f64> {
    let enough =
        number(usize::try_from(healthy).unwrap_or(usize::MAX)) / number(healthy_tenths.max(1)) * 10.0 / 2.0;
    let start = tenths.windows(10).position(|second| f64::from(second.iter().sum::<u32>()) >= enough)?;
    Some(number(start) / 10.0)
}

/// Looks every tenth of a second for the first whole second that is as fresh as before.
fn fresh_again(asked: &[Asked], healthy_percent: f64, well_from: Duration, end: Duration) -> Option<f64> {
    let second = Duration::from_secs(1);
    let mut from = well_from;
    while from + second <= end {
        let phase = Phase::between(asked, from, from + second);
        if phase.asked > 0 && phase.fresh_percent >= 0.9 * healthy_percent {
            return Some(from.saturating_sub(well_from).as_secs_f64());
        }
        from += Duration::from_millis(100);
    }
    None
}

fn percent(part: usize, whole: usize) -> f64 {
    number(part) / number(whole.max(1)) * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]
fn number(value: usize) -> f64 {
    value as f64
}

/// Busy and all jiffies of all cores so far.
fn machine() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let jiffies: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let all: u64 = jiffies.iter().take(8).sum();
    let idle: u64 = jiffies.iter().skip(3).take(2).sum();
    (all.saturating_sub(idle), all)
}

fn busy_percent(before: (u64, u64), after: (u64, u64)) -> f64 {
    let since = |before: u64, after: u64| usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
    percent(since(before.0, after.0), since(before.1, after.1))
}

/// The targets.
#[expect(clippy::struct_excessive_bools, reason = "six questions, each with its own answer")]
struct Targets {
    right: bool,
    p99: bool,
    max: bool,
    upstream: bool,
    asked_again: bool,
    peak: bool,
}

/// What p99 may be: the fresh hits' of the same run, and what a busy machine adds to a rare sample.
fn p99_most_ms(row: &Row) -> f64 {
    row.fresh_hits.p99_ms * 1.25 + 0.1
}

impl Targets {
    fn of(row: &Row) -> Self {
        let scored = &row.ill;
        Self {
            right: scored.right_percent >= 100.0,
            p99: row.settled.p99_ms <= p99_most_ms(row),
            max: scored.max_ms <= CLIENT_TIMER_MS,
            upstream: row.upstream_per_query <= UPSTREAM_PER_QUERY_MOST,
            asked_again: row.asked_again_s.is_some_and(|seconds| seconds <= ASKED_AGAIN_MOST_S),
            peak: row.recovery_peak_per_s <= row.healthy_peak_per_s,
        }
    }
}

fn budgets(row: &Row) -> Vec<Budget> {
    let targets = Targets::of(row);
    let scored = &row.ill;
    let budget = |what: &str, measured: String, limit: String, met: bool| Budget {
        what: format!("{}: {what}", row.illness.name()),
        limit,
        measured,
        met: Some(met),
    };
    vec![
        budget("right", format!("{:.2} %", scored.right_percent), "100 %".into(), targets.right),
        budget(
            "p99 once settled",
            format!("{:.2} ms", row.settled.p99_ms),
            format!("≤ {:.2} ms, as fresh hits", p99_most_ms(row)),
            targets.p99,
        ),
        budget(
            "longest wait",
            format!("{:.0} ms", scored.max_ms),
            format!("≤ {CLIENT_TIMER_MS} ms"),
            targets.max,
        ),
        budget(
            "upstream queries per client query",
            format!("{:.3}", row.upstream_per_query),
            format!("≤ {UPSTREAM_PER_QUERY_MOST}"),
            targets.upstream,
        ),
        budget(
            "asked again",
            seconds(row.asked_again_s),
            format!("≤ {ASKED_AGAIN_MOST_S} s"),
            targets.asked_again,
        ),
        budget(
            "peak after",
            format!("{} q/s", row.recovery_peak_per_s),
            format!("≤ {} q/s, the healthy peak", row.healthy_peak_per_s),
            targets.peak,
        ),
    ]
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "never".into(), |value| format!("{value:.1} s"))
}

/// The tables for people.
pub fn print(outage: &Outage, colours: bool) -> String {
    let Outage { ill_s, names, ttl_s, rate, .. } = outage;
    let mut text = format!(
        "{rate} questions a second for {names} names with a TTL of {ttl_s} s; the upstream is ill for {ill_s} s\n\
         targets: 100 % right; p99 as fresh hits; nobody waits longer than 1.8 s; at most 0.05 upstream queries per \
         question; asked again at half the healthy rate within 5 s; peak after ≤ healthy\n"
    );
    let mut illnesses: Vec<_> = outage.rows.iter().map(|row| row.illness).collect();
    illnesses.dedup();
    for illness in illnesses {
        let rows: Vec<_> = outage.rows.iter().filter(|row| row.illness == illness).collect();
        let busy = rows.first().map_or(0.0, |row| row.machine_busy_percent);
        let warning = if busy > 70.0 { ": latencies are partly the machine's" } else { "" };
        let _ = writeln!(text, "\n{} (machine {busy:.0} % busy{warning})\n", illness.name());
        let mut heads = HEADS.to_vec();
        if illness == Illness::Restart {
            heads.push("first answer");
        }
        let cells: Vec<_> = rows.iter().map(|row| cells(row)).collect();
        text += &render(&heads, &cells, colours);
    }
    for absent in &outage.not_measured {
        let _ = write!(text, "\nNOT MEASURED: {}: {}\n", absent.server, absent.why);
    }
    text
}

const HEADS: [&str; 13] = [
    "server",
    "right %",
    "p50 ms",
    "p99 ms",
    "max ms",
    "fresh p99",
    "up/query",
    "healthy",
    "asked again",
    "all fresh",
    "peak after",
    "healthy",
    "otherwise",
];

fn cells(row: &Row) -> Vec<Cell> {
    let ours = row.server == Peer::Dogwatch.name();
    let targets = Targets::of(row);
    let scored = &row.ill;
    let marked = |cell: Cell, kept: bool| if ours { cell.target(kept) } else { cell };
    let mut cells = vec![
        Cell::new(row.server),
        marked(Cell::number(scored.right_percent, 2), targets.right),
        Cell::number(scored.p50_ms, 2),
        marked(Cell::number(row.settled.p99_ms, 2), targets.p99),
        marked(Cell::number(scored.max_ms, 0), targets.max),
        Cell::number(row.fresh_hits.p99_ms, 2),
        marked(Cell::number(row.upstream_per_query, 3), targets.upstream),
        Cell::number(row.upstream_healthy_per_s / f64::from(RATE), 3),
        marked(Cell::new(seconds(row.asked_again_s)), targets.asked_again),
        Cell::new(seconds(row.fresh_again_s)),
        marked(Cell::new(format!("{}/s", row.recovery_peak_per_s)), targets.peak),
        Cell::new(format!("{}/s", row.healthy_peak_per_s)),
        Cell::new(otherwise(scored)),
    ];
    if row.illness == Illness::Restart {
        cells.push(Cell::new(seconds(row.restart_to_first_answer_s)));
    }
    cells
}

/// What came instead of right answers.
fn otherwise(phase: &Phase) -> String {
    let kinds = [
        ("no answer", phase.unanswered),
        ("SERVFAIL", phase.servfail),
        ("NXDOMAIN", phase.nxdomain),
        ("REFUSED", phase.refused),
        ("empty", phase.no_data),
    ];
    let said = kinds.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    let said: Vec<_> = said.collect();
    if said.is_empty() { "-".into() } else { said.join(", ") }
}

const NAMES: u32 = 1_000;
const TTL_S: u32 = 5;
const RATE: u32 = 500;
/// The client timer's 1.8 s, and what it takes to act on it.
const CLIENT_TIMER_MS: f64 = 1_850.0;
const UPSTREAM_PER_QUERY_MOST: f64 = 0.05;
const ASKED_AGAIN_MOST_S: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(at_ms: u64, verdict: Option<Verdict>, fresh: bool) -> Asked {
        let latency = verdict.map(|_| Duration::from_millis(1));
        Asked { at: Duration::from_millis(at_ms), latency, verdict, fresh, repeated: false, known: true }
    }

    #[test]
    fn what_is_not_answered_waits_two_seconds_and_is_not_right() {
        let right = Some(Verdict::Right);
        let seen = [right, right, None, Some(Verdict::Rcode(2))].map(|verdict| asked(0, verdict, false));
        let unknown = Asked { known: false, ..asked(0, None, false) };
        let phase = Phase::of(seen.iter().chain([&unknown]));
        assert_eq!((phase.asked, phase.unanswered, phase.servfail), (4, 1, 1));
        assert_eq!(
            [phase.right_percent, phase.p50_ms, phase.max_ms].map(|value| value.to_string()),
            ["50", "1", "2000"]
        );
        assert_eq!(otherwise(&phase), "1 no answer, 1 SERVFAIL");
    }

    #[test]
    fn asked_again_is_half_the_healthy_rate_over_a_second() {
        // Healthy 20 a second; silent for 3 s, then 1 a tenth.
        let tenths: Vec<_> = (0..60).map(|tenth| u32::from(tenth >= 30)).collect();
        assert_eq!(asked_again(&tenths, 200, 100).map(|s| format!("{s:.1}")), Some("3.0".into()));
        assert_eq!(asked_again(&tenths, 400, 100), None);
    }

    #[test]
    fn fresh_again_is_the_first_whole_second_as_fresh_as_before() {
        // Stale for 1.5 s after the upstream is well at 10 s.
        let all: Vec<_> = (0..200)
            .map(|tick| (tick + 100) * 100)
            .map(|ms| asked(ms, Some(Verdict::Right), ms >= 11_500))
            .collect();
        let again = |percent| fresh_again(&all, percent, Duration::from_secs(10), Duration::from_secs(30));
        assert_eq!(again(100.0).map(|s| format!("{s:.1}")), Some("1.4".into()));
        assert_eq!(again(0.0).map(|s| format!("{s:.1}")), Some("0.0".into()));
        let never: Vec<_> = (0..200).map(|tick| asked((tick + 100) * 100, None, false)).collect();
        assert_eq!(fresh_again(&never, 100.0, Duration::from_secs(10), Duration::from_secs(30)), None);
    }
}
