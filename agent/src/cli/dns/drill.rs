//! `dogwatch dns drill`: rehearses an outage of the upstreams on a live host, and reports like an exercise leader.
//!
//! The cache pretends (see `dogwatch_dns::fire_drill`); this end only watches, as a client, the agent's and alertd's user
//! would: do names resolve, does the watch notice, is somebody told. What it cannot look at it says, and does not pass.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use dogwatch_daemon::{
    duration::Span,
    http_client::{Client, Remote},
};
use dogwatch_dns::{Control, config::Config, control::Drill, fire_drill::Mode, name, wire};
use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{net::UdpSocket, time::timeout};

use super::options::DEFAULT_PATH;
use crate::{api, cli::fail, clock, config::AlertdsAt};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the upstreams seem to do: blackhole, servfail, refused, nxdomain or empty.
    #[arg(long, default_value = "blackhole", value_name = "MODE")]
    mode: Mode,
    /// How long, at most 4h.
    #[arg(long = "for", default_value = "5m", value_name = "TIME")]
    lasts: Span,
    /// Only for names at and below this one.
    #[arg(long, default_value = ".", value_name = "ZONE")]
    zone: String,
    /// End the running drill.
    #[arg(long, conflicts_with_all = ["mode", "lasts", "zone"])]
    stop: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// The cache's config file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The agent's config file: where the agent and alertd are.
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    agent_config: PathBuf,
    /// If alertd is on another host: a token of scope read, to see who is told (the agent's own reads nothing).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Names that are asked each second: enough to mean something, too few to be a load.
const SAMPLES: usize = 20;
const BEAT: Duration = Duration::from_secs(1);
/// What a program on the host would wait for at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// After the drill: probes come every 5 s, then the agent looks, then alertd tells.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const SERVICES: [&str; 3] = ["dns-upstream", "dns-guard", "dns-stale"];

/// What was seen. Times are seconds after the start, or after the end for `back_after_s`.
#[derive(Debug, Default, Serialize)]
struct Report {
    mode: &'static str,
    zone: String,
    lasted_s: f64,
    names: usize,
    asked: u64,
    resolved: u64,
    slowest_ms: f64,
    /// The cache knew.
    detected_after_s: Option<f64>,
    /// The agent held it for certain.
    hard_after_s: Option<f64>,
    /// Somebody was told: receiver and when.
    told: BTreeMap<String, f64>,
    /// Whether alertd could be asked who is told at all; if not, that is no part of the verdict.
    told_known: bool,
    back_after_s: Option<f64>,
    /// What could not be looked at, and why.
    unseen: Vec<String>,
    passed: bool,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(problems) => return fail(&problems.to_string()),
    };
    let control = Control::at(&config.control_socket);
    if arguments.stop {
        return match control.end_drill().await {
            Ok(_) => {
                println!("no drill runs now");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        };
    }
    match rehearse(&arguments, &config, &control).await {
        Ok(report) if arguments.json => match serde_json::to_string_pretty(&report) {
            Ok(json) => {
                println!("{json}");
                exit_code(&report)
            }
            Err(error) => fail(&error.to_string()),
        },
        Ok(report) => {
            print!("{}", text(&report));
            exit_code(&report)
        }
        Err(message) => fail(&message),
    }
}

fn exit_code(report: &Report) -> ExitCode {
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn rehearse(arguments: &Arguments, config: &Config, control: &Control) -> Result<Report, String> {
    let status = control.status().await.map_err(|error| format!("{error}; is `dogwatch dns` up?"))?;
    if let Some(drill) = status.drill {
        return Err(format!("a drill by {} runs until {:.0}; --stop ends it", drill.by, drill.until));
    }
    if status.health != "healthy" {
        let health = status.health;
        return Err(format!("upstreams are {health}: this is no drill; see `dogwatch dns status`"));
    }
    let names = samples(control, &arguments.zone).await?;
    if names.is_empty() {
        let message = "no name that resolved lately is in the cache, so there is nothing to watch; ask for some first, \
            for example with `getent hosts NAME`";
        return Err(message.into());
    }
    let agent = crate::config::socket(&arguments.agent_config);
    let alertd = alertds(arguments)?;
    let listen = config.listen.first().copied().ok_or("the cache listens nowhere")?;
    let drill = Drill {
        mode: arguments.mode.name().into(),
        zone: arguments.zone.clone(),
        for_s: arguments.lasts.0.as_secs(),
    };
    control.start_drill(&drill).await.map_err(|error| error.to_string())?;

    let told_known = !alertd.is_empty();
    let mut watch = Watch {
        quiet: arguments.json,
        started: clock::wall(),
        names,
        listen,
        agent,
        alertd,
        report: Report {
            mode: arguments.mode.name(),
            zone: arguments.zone.clone(),
            told_known,
            passed: true,
            ..Report::default()
        },
    };
    watch.report.names = watch.names.len();
    if watch.alertd.is_empty() {
        watch.unseen(
            "alertd",
            "it is on another host; see there with `alertctl status`, or give --token-file",
        );
    }
    watch.say(&format!(
        "fire drill: {} for {}, names {}; Ctrl-C ends it",
        arguments.mode.name(),
        arguments.lasts,
        if arguments.zone == "." { "of all zones".into() } else { format!("below {}", arguments.zone) }
    ));
    watch.until_over(control).await;
    watch.until_back(control).await;
    Ok(watch.judge())
}

/// Names with addresses that clients asked for, the most used first.
async fn samples(control: &Control, zone: &str) -> Result<Vec<(Vec<u8>, u16)>, String> {
    let listed = control.top("uses", 2_000).await.map_err(|error| error.to_string())?;
    let zone = name::from_text(zone).ok_or_else(|| format!("{zone:?} is not a domain name"))?;
    let usable = listed.into_iter().filter(|one| one.verdict == "positive" && one.left_s > -3_600);
    let named =
        usable.filter_map(|one| Some((name::from_text(&one.name)?, name::type_from_text(&one.kind)?)));
    Ok(named.filter(|(name, _)| name::is_below(name, &zone.to_ascii_lowercase())).take(SAMPLES).collect())
}

/// What is watched, and what was seen so far.
struct Watch {
    quiet: bool,
    started: Timestamp,
    names: Vec<(Vec<u8>, u16)>,
    listen: SocketAddr,
    agent: PathBuf,
    /// None: it is on another host, where we may not look.
    alertd: Vec<Client>,
    report: Report,
}

fn alertds(arguments: &Arguments) -> Result<Vec<Client>, String> {
    match (crate::config::alertds_at(&arguments.agent_config), &arguments.token_file) {
        (AlertdsAt::Sockets(sockets), _) => {
            Ok(sockets.into_iter().map(|socket| Client::new(socket, ANSWER_WITHIN)).collect())
        }
        (AlertdsAt::Remote { .. }, None) => Ok(Vec::new()),
        (AlertdsAt::Remote { url, ca_file }, Some(token)) => {
            Ok(vec![Client::remote(Remote::new(&url, token.clone(), ca_file)?, ANSWER_WITHIN)])
        }
    }
}

impl Watch {
    /// Looks once a second until the cache says that the drill is over, or Ctrl-C.
    async fn until_over(&mut self, control: &Control) {
        let mut beat = tokio::time::interval(BEAT);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {
                    self.say("ended by hand");
                    let _ = control.end_drill().await;
                    break;
                }
                _ = beat.tick() => {}
            }
            let (asked, resolved) = self.ask_names().await;
            if (resolved < asked) != failing {
                failing = resolved < asked;
                self.say(&format!("{resolved} of {asked} names resolve"));
            }
            match control.status().await {
                Ok(status) => {
                    let ill = status.sensors.iter().find(|sensor| sensor.state == 2);
                    if let Some(sensor) = ill.filter(|_| self.report.detected_after_s.is_none()) {
                        self.report.detected_after_s = Some(self.elapsed());
                        self.say(&format!("the cache knows: {} CRITICAL", sensor.name));
                    }
                    if status.drill.is_none() {
                        break;
                    }
                }
                Err(error) => self.say(&format!("the cache does not answer: {error}")),
            }
            self.look_at_agent().await;
            self.look_at_alertd().await;
        }
        self.report.lasted_s = self.elapsed();
    }

    async fn until_back(&mut self, control: &Control) {
        let ended = clock::wall();
        self.say("the drill is over; upstreams are asked again");
        while seconds_since(ended) < BACK_WITHIN.as_secs_f64() {
            let healthy = control.status().await.is_ok_and(|status| status.health == "healthy");
            if healthy {
                self.report.back_after_s = Some(seconds_since(ended));
                return self.say("upstreams are healthy again");
            }
            // Nobody is asked now: names that we ask for are names that upstream is asked for.
            tokio::time::sleep(BEAT / 4).await;
        }
    }

    /// Asks all names at once, as a program would: by UDP, at the address that the host's programs use.
    async fn ask_names(&mut self) -> (u64, u64) {
        let resolved = match self.exchange().await {
            Ok(resolved) => resolved,
            Err(error) => {
                self.say(&format!("cannot ask {}: {error}", self.listen));
                0
            }
        };
        let asked = self.names.len() as u64;
        self.report.asked += asked;
        self.report.resolved += resolved;
        (asked, resolved)
    }

    async fn exchange(&mut self) -> std::io::Result<u64> {
        let ours: SocketAddr = match self.listen {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(ours).await?;
        socket.connect(self.listen).await?;
        let mut message = Vec::new();
        for (id, (name, kind)) in (0..).zip(&self.names) {
            message.clear();
            wire::write_query(
                &mut message,
                id,
                &wire::Question { name, kind: *kind, class: 1 },
                false,
                false,
            );
            socket.send(&message).await?;
        }
        let sent = clock::wall();
        let mut reply = vec![0; 4_096];
        let mut right = vec![false; self.names.len()];
        while right.contains(&false) {
            let left = ANSWER_WITHIN.saturating_sub(Duration::from_secs_f64(seconds_since(sent)));
            let Ok(received) = timeout(left, socket.recv(&mut reply)).await else { break };
            // Id; NOERROR; at least one answer, or cut short: a name that resolves.
            if let Some([high, low, flags, code, _, _, more, count, ..]) = reply.get(..received?) {
                let truncated = flags & 2 != 0;
                if code & 15 == wire::rcode::NOERROR && (truncated || *count > 0 || *more > 0) {
                    if let Some(place) = right.get_mut(usize::from(u16::from_be_bytes([*high, *low]))) {
                        *place = true;
                    }
                    self.report.slowest_ms = self.report.slowest_ms.max(seconds_since(sent) * 1_000.0);
                }
            }
        }
        Ok(right.iter().filter(|&&right| right).count() as u64)
    }

    async fn look_at_agent(&mut self) {
        if self.report.hard_after_s.is_some() {
            return;
        }
        match Client::new(&self.agent, ANSWER_WITHIN).get::<api::Status>("/v1/status").await {
            Ok(status) => {
                let known = status.services.iter().find(|service| {
                    SERVICES.contains(&service.service.as_str())
                        && service.state == "CRITICAL"
                        && service.state_type == "HARD"
                });
                if let Some(service) = known {
                    self.report.hard_after_s = Some(self.elapsed());
                    self.say(&format!("the agent reports {} CRITICAL", service.service));
                }
            }
            Err(error) => self.unseen("agent", &error.to_string()),
        }
    }

    /// Incidents of these services that were opened since, and who was told.
    async fn look_at_alertd(&mut self) {
        for client in self.alertd.clone() {
            match self.told_by(&client).await {
                Ok(told) => {
                    for (number, receiver) in told {
                        if !self.report.told.contains_key(&receiver) {
                            self.say(&format!("told: {receiver} (incident {number})"));
                            self.report.told.insert(receiver, self.elapsed());
                        }
                    }
                    return;
                }
                Err(error) => self.unseen("alertd", &error),
            }
        }
    }

    async fn told_by(&self, client: &Client) -> Result<Vec<(u64, String)>, String> {
        let status: ctl::Status = client.get("/v1/status").await.map_err(|error| error.to_string())?;
        let ours = status.incidents.iter().filter(|incident| {
            incident.alerts.iter().any(|alert| {
                alert.labels.get("service").is_some_and(|service| SERVICES.contains(&service.as_str()))
                    && alert.since.as_second() >= self.started.as_second()
            })
        });
        Ok(ours
            .flat_map(|incident| incident.told.iter().map(|receiver| (incident.number, receiver.clone())))
            .collect())
    }

    fn judge(mut self) -> Report {
        let report = &mut self.report;
        if !report.told.is_empty() {
            report.unseen.retain(|what| !what.starts_with("alertd"));
        }
        if report.hard_after_s.is_some() {
            report.unseen.retain(|what| !what.starts_with("agent"));
        }
        report.passed = report.resolved == report.asked
            && report.detected_after_s.is_some()
            && (!report.told.is_empty() || !report.told_known)
            && report.back_after_s.is_some();
        self.report
    }

    fn unseen(&mut self, what: &str, why: &str) {
        let line = format!("{what}: {why}");
        if !self.report.unseen.contains(&line) {
            self.say(&format!("cannot look at {line}"));
            self.report.unseen.push(line);
        }
    }

    fn elapsed(&self) -> f64 {
        seconds_since(self.started)
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{} {:>6.1} s  {line}", clock::wall().strftime("%H:%M:%S"), self.elapsed());
        }
    }
}

/// By the wall clock: good enough for a report, and the only one that a command line reads here.
fn seconds_since(earlier: Timestamp) -> f64 {
    clock::wall().duration_since(earlier).as_secs_f64().max(0.0)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let after = |seconds: Option<f64>, never: &str| {
        seconds.map_or_else(|| never.to_owned(), |seconds| format!("after {seconds:.1} s"))
    };
    let _ = writeln!(
        text,
        "\nnames      {} of {} answers right ({} names), slowest {:.1} ms",
        report.resolved, report.asked, report.names, report.slowest_ms
    );
    let _ = writeln!(text, "detected   {}", after(report.detected_after_s, "NOT at all"));
    let _ = writeln!(text, "reported   {}", after(report.hard_after_s, "NOT by the agent"));
    if report.told.is_empty() && report.told_known {
        let _ = writeln!(text, "told       NOBODY; see `alertctl status` and `alertctl history`");
    }
    for (receiver, seconds) in &report.told {
        let _ = writeln!(text, "told       {receiver} after {seconds:.1} s");
    }
    let _ = writeln!(text, "back       {}", after(report.back_after_s, "NOT within 30 s of the end"));
    for unseen in &report.unseen {
        let _ = writeln!(text, "not seen   {unseen}");
    }
    let _ = writeln!(text, "{}", if report.passed { "PASSED" } else { "FAILED" });
    text
}
