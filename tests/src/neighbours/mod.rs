//! All attacks at once against the three daemons, from another user (`nobody`) and another address
//! (127.0.0.2), while a stub resolver asks and agents report. First without the attacks, to
//! compare.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`attack`] | idle connections, slow heads, junk, floods of requests and queries |
//! | [`load`] | the well-behaved load |
//! | [`report`] | the table and the verdict |

mod attack;
mod load;
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use dogwatch_daemon::unix_http::Client;
use tokio::{runtime::Runtime, task::JoinSet};

use self::attack::War;
pub use self::report::{Report, Row, Run};
use crate::{
    crash::{heard::Heard, victim::Agent},
    host::Host,
    hostile::caller::{Door, ELSEWHERE, raise_descriptors},
    http,
    process::{Process, free_port, holds_within, root_or_skip},
    upstream::Upstream,
};

/// Of each of the two runs.
pub const SHORT: Duration = Duration::from_secs(15);
pub const LONG: Duration = Duration::from_mins(10);

const AGENTS: usize = 10;
/// Forged replies before each reply of the upstream.
const FORGED_EACH: u32 = 3;
const METRICS_WITHIN: Duration = Duration::from_secs(20);
const FORGED_METRIC: &str = "dogwatch_dns_upstream_forged_total{";

/// Runs it, with all attacks or with those whose name contains `only`. `None`: it cannot run here,
/// and has said so.
///
/// # Errors
/// If the drill itself fails.
pub fn run(each: Duration, only: Option<&str>, progress: &dyn Fn(&str)) -> Result<Option<Report>> {
    if !root_or_skip("to attack as another user") {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let heard = Heard::default();
    let mut host = Host::new();
    let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into())?;
    let (api, web) = (free_port(), free_port());
    host.start_alertd(&format!(
        "[alertd.listen]\naddress = \"127.0.0.1:{api}\"\n\
         [alertd.web]\nlisten = \"127.0.0.1:{web}\"\nurl = \"http://127.0.0.1:{web}\"\n\
         [alertd.rights]\nnobody = []\n\
         [[route]]\nreceiver = \"far\"\ngroup_by = [\"host\"]\ngroup_wait = \"0s\"\ngroup_interval = \"0s\"\n\
         [receiver.far]\nrate = {{ burst = 1000000, every = \"1ms\" }}\n\
         [receiver.far.webhook]\nurl = \"http://127.0.0.1:{}/\"\n",
        heard.listen()?
    ));
    host.start_dns(upstream.address);
    host.start_agent("");
    raise_descriptors()?;

    let client = || Client::new(host.alertd_socket(), Duration::from_secs(20));
    let mut agents: Vec<_> =
        (0..AGENTS).map(|number| (Agent::new(&format!("web{number}"), client()), 0)).collect();
    progress("quiet");
    let quiet = under_load(&runtime, &host, &mut agents, &heard, each)?;

    let war = War::default();
    let elsewhere = |port| Door::Tcp { port, from: ELSEWHERE };
    let doors = [
        ("agent-metrics", elsewhere(host.agent_metrics)),
        ("dns-metrics", elsewhere(host.dns_metrics)),
        ("alertd-metrics", elsewhere(host.alertd_metrics)),
        ("alertd-api", elsewhere(api)),
        ("alertd-web", elsewhere(web)),
        ("agent-socket", Door::Unix(host.path("agent.sock"))),
        ("dns-socket", Door::Unix(host.path("dns.sock"))),
        ("alertd-socket", Door::Unix(host.alertd_socket())),
    ];
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let attacked = doors.iter().filter(|(name, _)| wanted(name));
    let mut attacks: Vec<_> = attacked.flat_map(|(_, door)| war.on_http(door)).collect();
    if wanted("tcp") {
        attacks.extend(war.on_dns_tcp(host.dns_port));
    }
    if wanted("udp") {
        attacks.extend(war.on_dns_udp(host.dns_port));
    }
    if wanted("forger") {
        upstream.forge(FORGED_EACH);
    }
    progress("attacked");
    let attacked = under_load(&runtime, &host, &mut agents, &heard, each)?;
    war.stop.store(true, Relaxed);
    upstream.forge(0);
    for attack in attacks {
        attack.join().map_err(|_| anyhow!("an attack panicked"))?;
    }
    let daemons = [("agent", &mut host.agent), ("dns", &mut host.dns), ("alertd", &mut host.alertd)];
    let (mut ended, mut peak_mib) = (Vec::new(), Vec::new());
    for (name, process) in daemons {
        peak_mib.push((name.to_owned(), process.as_ref().map_or(0, Process::peak_bytes) >> 20));
        if !process.as_mut().is_some_and(Process::running) {
            ended.push(name.to_owned());
        }
    }
    let mut report = Report {
        seconds: each.as_secs(),
        quiet,
        attacked,
        connections: war.connections.load(Relaxed),
        datagrams: war.datagrams.load(Relaxed),
        ended,
        peak_mib,
        forged: (upstream.forged(), counted(host.dns_metrics)),
        broken: Vec::new(),
    };
    report.judge();
    Ok(Some(report))
}

/// Both loads for this long.
fn under_load(
    runtime: &Runtime,
    host: &Host,
    agents: &mut Vec<(Agent, usize)>,
    heard: &Heard,
    long: Duration,
) -> Result<Run> {
    let stop = Arc::new(AtomicBool::new(false));
    let asking = load::ask(([127, 0, 0, 1], host.dns_port).into(), Arc::clone(&stop));
    let mut changing = JoinSet::new();
    for (agent, done) in agents.drain(..) {
        changing.spawn_on(load::change(agent, done, heard.clone(), Arc::clone(&stop)), runtime.handle());
    }
    thread::sleep(long);
    stop.store(true, Relaxed);
    let dns = Row::of([asking.join().map_err(|_| anyhow!("the resolver panicked"))?]);
    let mut seen = Vec::new();
    while let Some(one) = runtime.block_on(changing.join_next()) {
        let (agent, done, saw) = one?;
        agents.push((agent, done));
        seen.push(saw);
    }
    Ok(Run { dns, pages: Row::of(seen) })
}

/// Forged replies that the cache counted.
fn counted(port: u16) -> u64 {
    let mut page = String::new();
    // The attackers' last connections may still be open.
    holds_within(METRICS_WITHIN, || {
        page = http::get(port, "/metrics").filter(|(status, _)| *status == 200).unwrap_or_default().1;
        !page.is_empty()
    });
    let lines = page.lines().filter(|line| line.starts_with(FORGED_METRIC));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
