//! `dogwatch dns drill`: rehearses an outage of the upstreams on a live host and reports the
//! result.
//!
//! The cache simulates the outage (see `dogwatch_dns::fire_drill`). This program only watches, as a
//! client of the cache, the agent and alertd: whether names resolve, whether the outage is
//! detected, and whether somebody is notified. The report lists what it could not check.

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
use dogwatch_dns::{
    Control,
    config::{Config, DEFAULT_PATH},
    serve::control::Drill,
};
use dogwatch_dns_core::{
    fire_drill::Mode,
    message::{name, wire},
};
use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    api,
    cli::{fail, print},
    clock,
    config::AlertdsAt,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Simulated failure: blackhole (no answers), servfail, refused, nxdomain or empty
    #[arg(long, default_value = "blackhole", value_name = "MODE")]
    mode: Mode,
    /// Length of the drill, at most 4h
    #[arg(long = "for", default_value = "5m", value_name = "DURATION")]
    lasts: Span,
    /// Fail only for this name and the names below it
    #[arg(long, default_value = ".", value_name = "ZONE")]
    zone: String,
    /// End the running drill
    #[arg(long, conflicts_with_all = ["mode", "lasts", "zone"])]
    stop: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Config file of the cache
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Config file of the agent, to find the agent and alertd
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    agent_config: PathBuf,
    /// If alertd is on another host: a token of scope `read`, to see who is notified (the agent's
    /// own token cannot read)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Names queried each second: enough to be meaningful, too few to be a load.
const SAMPLES: usize = 20;
const BEAT: Duration = Duration::from_secs(1);
/// As long as a program on the host would wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Time for recovery after the drill: the probes run every 5 s.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const SERVICES: [&str; 3] = ["dns-upstream", "dns-guard", "dns-stale"];

/// The observations. Times are in seconds after the start; `back_after_s` is after the end.
#[derive(Debug, Default, Serialize)]
struct Report {
    mode: &'static str,
    zone: String,
    lasted_s: f64,
    names: usize,
    asked: u64,
    resolved: u64,
    slowest_ms: f64,
    /// When the cache reported it.
    detected_after_s: Option<f64>,
    /// When the agent's status became hard.
    hard_after_s: Option<f64>,
    /// The notified receivers, and when.
    told: BTreeMap<String, f64>,
    /// Whether alertd could be queried; if not, notifications do not count for the verdict.
    told_known: bool,
    back_after_s: Option<f64>,
    /// What could not be checked, and why.
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
                print("no drill is running\n");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        };
    }
    match rehearse(&arguments, &config, &control).await {
        Ok(report) if arguments.json => match serde_json::to_string_pretty(&report) {
            Ok(json) => {
                print(format_args!("{json}\n"));
                exit_code(&report)
            }
            Err(error) => fail(&error.to_string()),
        },
        Ok(report) => {
            print(text(&report));
            exit_code(&report)
        }
        Err(message) => fail(&message),
    }
}

fn exit_code(report: &Report) -> ExitCode {
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn rehearse(arguments: &Arguments, config: &Config, control: &Control) -> Result<Report, String> {
    let status = control
        .status()
        .await
        .map_err(|error| format!("{error}; is the cache running? See `systemctl status dogwatch-dns`"))?;
    if let Some(drill) = status.drill {
        return Err(format!(
            "a drill started by {} is running until {:.0}; to end it, use --stop",
            drill.by, drill.until
        ));
    }
    if status.health != "healthy" {
        let health = status.health;
        return Err(format!(
            "no drill started, because the upstreams are {health}: see `dogwatch dns status`"
        ));
    }
    let names = samples(control, &arguments.zone).await?;
    if names.is_empty() {
        let message = "the cache contains no recently used name, so there is nothing to watch; look some up first, \
            for example with `getent hosts NAME`";
        return Err(message.into());
    }
    if let Some(missing) = crate::config::missing(&arguments.agent_config) {
        return Err(missing);
    }
    let agent = crate::config::socket(&arguments.agent_config);
    let alertd = alertds(arguments)?;
    let listen = config.listen.first().copied().ok_or("the cache has no listen address")?;
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
        watch.unseen("alertd", "it is on another host; run `alertctl status` there, or use --token-file");
    }
    watch.say(&format!(
        "fire drill: {} for {}, names {}; to end it, press Ctrl-C",
        arguments.mode.name(),
        arguments.lasts,
        if arguments.zone == "." { "of all zones".into() } else { format!("below {}", arguments.zone) }
    ));
    watch.until_over(control).await;
    watch.until_back(control).await;
    Ok(watch.judge())
}

/// Names with addresses that clients use, the most used first.
async fn samples(control: &Control, zone: &str) -> Result<Vec<(Vec<u8>, u16)>, String> {
    let listed = control.top("uses", 2_000).await.map_err(|error| error.to_string())?;
    let zone = name::from_text(zone).ok_or_else(|| format!("{zone:?} is not a domain name"))?;
    let usable = listed.into_iter().filter(|one| one.verdict == "positive" && one.left_s > -3_600);
    let named =
        usable.filter_map(|one| Some((name::from_text(&one.name)?, name::type_from_text(&one.kind)?)));
    Ok(named.filter(|(name, _)| name::is_below(name, &zone.to_ascii_lowercase())).take(SAMPLES).collect())
}

/// What is watched, and the observations so far.
struct Watch {
    quiet: bool,
    started: Timestamp,
    names: Vec<(Vec<u8>, u16)>,
    listen: SocketAddr,
    agent: PathBuf,
    /// Empty if alertd is on another host and there is no token.
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
    /// Checks once a second until the drill has ended, or Ctrl-C.
    async fn until_over(&mut self, control: &Control) {
        let mut beat = tokio::time::interval(BEAT);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {
                    self.say("ended by Ctrl-C");
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
                        self.say(&format!("the cache reports {} CRITICAL", sensor.name));
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
        self.say("the drill has ended; the cache uses its upstreams again");
        while seconds_since(ended) < BACK_WITHIN.as_secs_f64() {
            let healthy = control.status().await.is_ok_and(|status| status.health == "healthy");
            if healthy {
                self.report.back_after_s = Some(seconds_since(ended));
                return self.say("upstreams are healthy again");
            }
            // Query no names now: each query could cause an upstream query.
            tokio::time::sleep(BEAT / 4).await;
        }
    }

    /// Queries all names at once, as a program would: by UDP, at the address that programs use.
    async fn ask_names(&mut self) -> (u64, u64) {
        let resolved = match self.exchange().await {
            Ok(resolved) => resolved,
            Err(error) => {
                self.say(&format!("cannot query {}: {error}", self.listen));
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
            // The name resolves if the ID matches and the reply is NOERROR with an answer, or
            // truncated.
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

    /// Records who was notified of the incidents that these services opened since the start.
    async fn look_at_alertd(&mut self) {
        for client in self.alertd.clone() {
            match self.told_by(&client).await {
                Ok(told) => {
                    for (number, receiver) in told {
                        if !self.report.told.contains_key(&receiver) {
                            self.say(&format!("notified: {receiver} (incident {number})"));
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
            self.say(&format!("cannot check {line}"));
            self.report.unseen.push(line);
        }
    }

    fn elapsed(&self) -> f64 {
        seconds_since(self.started)
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            let at = clock::wall().strftime("%H:%M:%S");
            print(format_args!("{at} {:>6.1} s  {line}\n", self.elapsed()));
        }
    }
}

/// By the wall clock, which is accurate enough for a report.
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
        "\nnames      {} of {} queries answered ({} names), slowest {:.1} ms",
        report.resolved, report.asked, report.names, report.slowest_ms
    );
    let _ = writeln!(text, "detected   {}", after(report.detected_after_s, "NEVER by the cache"));
    let _ = writeln!(text, "reported   {}", after(report.hard_after_s, "NEVER by the agent"));
    if report.told.is_empty() && report.told_known {
        let _ = writeln!(text, "notified   NOBODY; see `alertctl status` and `alertctl history`");
    }
    for (receiver, seconds) in &report.told {
        let _ = writeln!(text, "notified   {receiver} after {seconds:.1} s");
    }
    let _ = writeln!(text, "recovered  {}", after(report.back_after_s, "NOT within 30 s after the end"));
    for unseen in &report.unseen {
        let _ = writeln!(text, "unchecked  {unseen}");
    }
    let _ = writeln!(text, "{}", if report.passed { "PASSED" } else { "FAILED" });
    text
}
