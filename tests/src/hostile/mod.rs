//! A leaked ingest token and local users attack a real alertd, while agents and a Prometheus with a
//! token of its own report as always.
//!
//! | attacker | may | does |
//! | --- | --- | --- |
//! | the token of the host `evil`, from 127.0.0.2 | `ingest`, for that host | fills alertd; resolves others' alerts, reports as others' agents |
//! | `nobody`, on the unix socket | `ingest`, for any host | fills alertd |
//! | `daemon`, on the unix socket | nothing | resolves others' alerts, reports as others' agents |
//!
//! A sender that may speak for any host may also resolve what others posted for it; that is what
//! `--host` of a token is for. So `nobody` does not try.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`caller`] | requests and connections as another user or from another address |
//! | [`attack`] | the attacks |
//! | [`report`] | the table and the verdict |

mod attack;
pub mod caller;
mod report;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use dogwatch_daemon::unix_http::Client;
use dogwatch_wire::State;
use serde_json::Value;
use tokio::task::JoinSet;

pub use self::report::{Counts, Report};
use self::{
    attack::{Answers, Attacker},
    caller::{DAEMON, Door, ELSEWHERE, NOBODY, raise_descriptors},
};
use crate::{
    bench::now,
    crash::{
        heard::Heard,
        victim::{Agent, LOST_AFTER},
    },
    host::{Host, words},
    process::{Process, free_port, holds_within, root_or_skip},
};

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub attack: Duration,
    /// Small quotas, so that a short attack reaches them.
    pub short: bool,
}

/// The attack of `cargo xtask test`.
pub const SHORT: Duration = Duration::from_secs(20);

/// What alertd's unit allows (`MemoryMax`).
const UNIT_BYTES: u64 = 1 << 30;
/// The default of `[alertd.quota]`, MiB.
const QUOTA_MIB: u64 = 400;
const SHORT_QUOTA_MIB: u64 = 24;
/// systemd waits 90 s for a unit to be ready.
const READY_MAX: Duration = Duration::from_mins(1);
/// Hosts whose alert fires all the time; as many from agents as from the Prometheus.
const STANDING: usize = 10;
/// Hosts that fail and recover all the time.
const BUSY: usize = 10;
/// With two batches each time, below the 5 a second that alertd accepts of one agent.
const CHANGE_EVERY: Duration = Duration::from_millis(500);
const POSTS_EVERY: Duration = Duration::from_secs(1);

impl Plan {
    fn quota(&self) -> String {
        if self.short {
            format!(
                "[alertd.quota]\nalerts = 8000\nmib = {SHORT_QUOTA_MIB}\ntoken_alerts = 3000\ntoken_mib = 8\n\
                 host_alerts = 3000\nhost_mib = 8\n"
            )
        } else {
            String::new()
        }
    }

    /// What the unit leaves for everything outside the quotas is the same, however small they are.
    fn bytes_max(&self) -> u64 {
        let quota = if self.short { SHORT_QUOTA_MIB } else { QUOTA_MIB };
        UNIT_BYTES - ((QUOTA_MIB - quota) << 20)
    }
}

/// Runs it. `None`: it cannot run here, and has said so.
///
/// # Errors
/// If the drill itself fails.
pub fn run(plan: &Plan, progress: &dyn Fn(&str)) -> Result<Option<Report>> {
    if !root_or_skip("to attack as another user") {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _guard = runtime.enter();
    let heard = Heard::default();
    let mut host = Host::new();
    let port = free_port();
    host.start_alertd(&config(plan, heard.listen()?, port));
    raise_descriptors()?;
    let leaked = token(&host, "leaked", &["--host", "evil"])?;
    let own = token(&host, "prometheus", &[])?;
    let socket = Door::Unix(host.alertd_socket());

    let names = |kind: &str| (0..STANDING).map(|number| format!("{kind}{number}")).collect::<Vec<_>>();
    let (by_agent, by_post) = (names("own"), names("db"));
    let client = || Client::new(host.alertd_socket(), Duration::from_secs(20));
    let mut standing: Vec<_> = by_agent.iter().map(|name| Agent::new(name, client())).collect();
    for agent in &mut standing {
        agent.report(State::Critical);
        runtime.block_on(agent.send_until_acked());
    }

    let stop = Arc::new(AtomicBool::new(false));
    let poster =
        Poster { door: Door::Tcp { port, from: [127, 0, 0, 1] }, token: own, hosts: by_post.clone() };
    let posting = poster.start(Arc::clone(&stop));
    let all: Vec<_> = by_agent.iter().chain(&by_post).cloned().collect();
    let told = |hosts: &[String]| hosts.iter().filter(|host| heard.count(host, "problem") > 0).count();
    ensure!(
        holds_within(LOST_AFTER, || told(&all) == all.len()),
        "the alerts before the attack are not told"
    );
    let mut busy = JoinSet::new();
    for number in 0..BUSY {
        let agent = Agent::new(&format!("web{number}"), client());
        busy.spawn_on(episodes(agent, heard.clone(), Arc::clone(&stop)), runtime.handle());
    }

    let answers = Arc::new(Mutex::new(Answers::new()));
    let attacker = |uid, door: &Door, token: Option<&str>| Attacker {
        uid,
        door: door.clone(),
        token: token.map(str::to_owned),
        agents: by_agent.clone(),
        posted: by_post.clone(),
        stop: Arc::clone(&stop),
        answers: Arc::clone(&answers),
        number: Arc::new(AtomicU64::new(u64::from(uid.unwrap_or(0)) << 32)),
    };
    let with_token = attacker(None, &Door::Tcp { port, from: ELSEWHERE }, Some(&leaked));
    let nobody = attacker(Some(NOBODY), &socket, None);
    let daemon = attacker(Some(DAEMON), &socket, None);
    let attacks = [with_token.flood(), with_token.pose(), nobody.flood(), daemon.pose()];

    wait_for_the_end(plan, &host, &heard, progress);
    let survived = host.alertd.as_mut().is_some_and(Process::running);
    let peak_bytes = host.alertd.as_ref().map_or(0, Process::peak_bytes);
    // Its exit code is the state.
    let health = words(&host.alertctl(&["health"]));
    stop.store(true, Relaxed);
    let mut counts = runtime.block_on(count(busy))?;
    let reported = posting.join().map_err(|_| anyhow::anyhow!("the poster panicked"))?;
    counts.changes += reported.len();
    let is_told = |name: &String| heard.count(name, "problem") > 0;
    holds_within(LOST_AFTER, || reported.iter().all(is_told));
    let untold = reported.iter().filter(|name| !is_told(name));
    counts.lost.extend(untold.map(|name| format!("problem of {name}")));
    counts.resolved.extend(all.iter().filter(|name| heard.count(name, "recovery") > 0).cloned());
    for attack in attacks.into_iter().flatten() {
        attack.join().map_err(|_| anyhow::anyhow!("an attack panicked"))?;
    }

    progress("restarts alertd");
    let ready = restart(&mut host);
    // Those that came by post have `resolve_timeout` from here.
    let fires = firing(&host);
    counts.resolved.extend(all.iter().filter(|name| !fires.contains(name)).cloned());
    for agent in &mut standing {
        agent.report(State::Ok);
        runtime.block_on(agent.send_until_acked());
    }
    let recovered = |name: &&String| heard.count(name, "recovery") > 0;
    holds_within(LOST_AFTER, || by_agent.iter().all(|name| recovered(&name)));
    counts.lost.extend(
        by_agent.iter().filter(|name| !recovered(name)).map(|name| format!("recovery of {name} after it")),
    );
    counts.changes += by_agent.len();
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let accused = ["token:leaked", "nobody"].map(|name| (name.to_owned(), health.contains(name)));
    let mut report = Report {
        attack_s: plan.attack.as_secs(),
        survived,
        peak_bytes,
        bytes_max: plan.bytes_max(),
        counts,
        named: accused.to_vec(),
        ready_s: ready.as_secs_f64(),
        ready_max_s: READY_MAX.as_secs_f64(),
        answers: report::rows(&answers),
        faults: heard.faults(),
        broken: Vec::new(),
    };
    report.judge();
    Ok(Some(report))
}

fn wait_for_the_end(plan: &Plan, host: &Host, heard: &Heard, progress: &dyn Fn(&str)) {
    let start = now();
    while start.elapsed() < plan.attack {
        thread::sleep(plan.attack.saturating_sub(start.elapsed()).min(Duration::from_secs(30)));
        let mib = host.alertd.as_ref().map_or(0, Process::peak_bytes) >> 20;
        let (seconds, arrived) = (start.elapsed().as_secs(), heard.arrived());
        progress(&format!("{seconds} s, peak {mib} MiB, {arrived} notifications"));
    }
}

/// What became of the changes of the busy agents.
async fn count(mut busy: JoinSet<((usize, Option<String>), Agent)>) -> Result<Counts> {
    let mut counts = Counts::default();
    while let Some(agent) = busy.join_next().await {
        let (episodes, lost) = agent?.0;
        counts.changes += 2 * episodes;
        counts.lost.extend(lost);
    }
    Ok(counts)
}

/// Kills alertd and starts it again. Returns how long it takes to answer.
fn restart(host: &mut Host) -> Duration {
    if let Some(alertd) = &mut host.alertd {
        alertd.kill();
    }
    let start = now();
    host.restart_alertd();
    start.elapsed()
}

/// What well-behaved senders report is notified by webhook without a limit; all else goes to the
/// file of a receiver with the default limits.
fn config(plan: &Plan, hook: u16, port: u16) -> String {
    let timing = "group_by = [\"host\"]\ngroup_wait = \"0s\"\ngroup_interval = \"0s\"\n";
    format!(
        "[alertd.listen]\naddress = \"127.0.0.1:{port}\"\n{}\
         [alertd.rights]\nnobody = [\"ingest\"]\ndaemon = []\n\
         [[route]]\nmatch = [\"host=~\\\"(own|db|web).*\\\"\"]\nreceiver = \"far\"\n{timing}\
         [[route]]\nreceiver = \"local\"\n{timing}\
         [receiver.far]\nrate = {{ burst = 1000000, every = \"1ms\" }}\n\
         [receiver.far.webhook]\nurl = \"http://127.0.0.1:{hook}/\"\n",
        plan.quota()
    )
}

fn token(host: &Host, name: &str, rest: &[&str]) -> Result<String> {
    let output = host.alertctl(&[&["token", "create", name, "--scope", "ingest"], rest].concat());
    ensure!(output.status.success(), "{}", words(&output));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Hosts with an open incident.
fn firing(host: &Host) -> Vec<String> {
    let status = host.ask(&["status"]);
    let incidents = status["incidents"].as_array().into_iter().flatten();
    let open = incidents.filter(|incident| incident["resolved_at"] == Value::Null);
    open.filter_map(|incident| incident["group"]["host"].as_str().map(str::to_owned)).collect()
}

/// Fails and recovers until told to stop; returns how often, and what was lost.
async fn episodes(mut agent: Agent, heard: Heard, stop: Arc<AtomicBool>) -> ((usize, Option<String>), Agent) {
    let mut done = 0;
    while !stop.load(Relaxed) {
        if let Err(lost) = agent.one_episode(&heard, done + 1).await {
            return ((done, Some(format!("{lost:#}"))), agent);
        }
        done += 1;
        tokio::time::sleep(CHANGE_EVERY).await;
    }
    ((done, None), agent)
}

/// Posts the alerts that fire again and again, as Prometheus does, and each time a new one.
struct Poster {
    door: Door,
    token: String,
    hosts: Vec<String>,
}

impl Poster {
    /// Returns the hosts of the new ones when it has stopped.
    fn start(self, stop: Arc<AtomicBool>) -> thread::JoinHandle<Vec<String>> {
        thread::spawn(move || {
            let mut new = Vec::new();
            while !stop.load(Relaxed) {
                new.push(format!("db-new{}", new.len()));
                self.post(&new);
                thread::sleep(POSTS_EVERY);
            }
            // The last ones may have been refused.
            self.post(&new);
            new
        })
    }

    fn post(&self, new: &[String]) {
        // Those from a minute ago are not posted again; they end after `resolve_timeout`.
        let alert = |host: &String| serde_json::json!({ "labels": { "alertname": "DiskFull", "host": host }, "annotations": { "summary": "97 % full" } });
        let recent = new.iter().skip(new.len().saturating_sub(60));
        let alerts: Vec<_> = self.hosts.iter().chain(recent).map(alert).collect();
        let body = Value::from(alerts).to_string();
        // Refused: the next post has them too.
        let _ = self.door.post("/api/v2/alerts", Some(&self.token), body.as_bytes());
    }
}
