//! Hosts, alertd's core, a pager with a limit and a mailbox, in virtual time.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::RandomState,
    time::Duration,
};

use anyhow::Context as _;
use dogwatch_alertd::{config::Config, notify::words};
use dogwatch_alertd_core::{
    Change, Core, Lease, Loaded,
    rules::{
        alert::AlertKey,
        moment::{between, later},
        notification::{Accepted, DeliveryError},
        sender::Sender,
    },
};
use dogwatch_wire::{Batch, Event, EventKind, Heartbeat, PROTOCOL, ServiceState, State, Transition};
use jiff::{Timestamp, tz::TimeZone};

use super::{Arrival, PAGER_CALLS_A_MINUTE, Plan, Run, account::Ledger, began_at};

pub(super) const PAGER: &str = "pager";
pub(super) const MAILBOX: &str = "mailbox";

/// Rates are the defaults, but for the pager's: 120 in any minute are 60 at once and one a second.
const CONFIG: &str = r#"
[[route]]
policy = "oncall"
group_wait = "1s"
[policy.oncall]
step = [{ notify = ["primary", "mailbox"] }]
[schedule.primary]
time_zone = "Europe/Berlin"
[[schedule.primary.layer]]
users = ["ann"]
[user.ann]
rules = [{ notify = ["pager"] }]
[receiver.pager]
rate = { burst = 60, every = "1s" }
[receiver.pager.maildir]
path = "/p"
[receiver.mailbox.maildir]
path = "/m"
[[dependency]]                          # the lost rack's hosts are reached through its switch
of = ["host=~rack7-.*"]
on = ["host=switch7", "service=ping"]
[[inhibit]]                             # what cannot look names up fails for that
source = ["service=dns-upstream"]
target = ["service=http"]
equal = ["host"]
"#;

/// Of a hundred hosts: those whose web server fails without names, and those that find another
/// upstream at once.
const WEB_PERCENT: u32 = 30;
const HICCUP_PERCENT: u32 = 2;
const HICCUP_OVER: Duration = Duration::from_secs(15);
const HEARTBEATS_S: u32 = 15;
const TICK: Duration = Duration::from_millis(100);
const LEASES_MAX: usize = 64;
/// From the hand to the receiver and back.
const ANSWERS_AFTER: Duration = Duration::from_millis(150);

/// Something that a host is going to say.
struct Report {
    host: u32,
    service: &'static str,
    state: State,
}

pub(super) struct World {
    plan: Plan,
    core: Core,
    now: Timestamp,
    random: fastrand::Rng,
    coming: BTreeMap<Timestamp, Vec<Report>>,
    seqs: BTreeMap<String, u64>,
    ledger: Ledger,
    arrivals: Vec<Arrival>,
    on_their_way: VecDeque<(Timestamp, Lease)>,
    pager_calls: Vec<Timestamp>,
    refused: usize,
}

impl World {
    pub(super) fn new(plan: Plan) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("alertd.toml");
        std::fs::write(&path, CONFIG)?;
        let rules = Config::read(&path).map_err(|problems| anyhow::anyhow!("{problems}"))?.rules;
        let now = began_at().checked_sub(Duration::from_mins(1)).context("1970")?;
        let loaded = Loaded { instance: "drill".into(), ..Loaded::default() };
        let mut world = Self {
            plan,
            core: Core::new(rules, "drill".into(), RandomState::new(), loaded, now),
            now,
            random: fastrand::Rng::with_seed(plan.seed),
            coming: BTreeMap::new(),
            seqs: BTreeMap::new(),
            ledger: Ledger::default(),
            arrivals: Vec::new(),
            on_their_way: VecDeque::new(),
            pager_calls: Vec::new(),
            refused: 0,
        };
        world.greet();
        world.plan_it();
        Ok(world)
    }

    /// The lost rack is the seventh, in fra1.
    fn rack(&self, host: u32) -> u32 {
        host / self.plan.hosts_in_a_rack
    }

    fn name(&self, host: u32) -> String {
        format!("rack{}-{}", self.rack(host), host % self.plan.hosts_in_a_rack)
    }

    fn is_in_lost_rack(&self, host: u32) -> bool {
        self.rack(host) == 7
    }

    /// Everybody has been heard before. Only the lost rack's hosts send often enough to be missed
    /// here.
    fn greet(&mut self) {
        for host in 0..self.plan.hosts {
            let next_within_s = if self.is_in_lost_rack(host) { HEARTBEATS_S } else { 3_600 };
            let name = self.name(host);
            self.batch(&name, Vec::new(), Some(next_within_s));
        }
        self.batch("switch7", Vec::new(), Some(3_600));
        self.turn();
    }

    fn plan_it(&mut self) {
        let began = began_at();
        let within = u64::try_from(self.plan.within.as_millis()).unwrap_or(u64::MAX);
        for host in 0..self.plan.hosts {
            if self.is_in_lost_rack(host) {
                continue;
            }
            let at = later(began, Duration::from_millis(self.random.u64(..within)));
            let lasts =
                if self.random.u32(..100) < HICCUP_PERCENT { HICCUP_OVER } else { self.plan.dns_back };
            let back = later(later(began, lasts), Duration::from_millis(self.random.u64(..within / 4)));
            self.say_later(host, "dns-upstream", State::Critical, at, back);
            if self.random.u32(..100) < WEB_PERCENT {
                let at = later(at, Duration::from_millis(self.random.u64(1..5_000)));
                self.say_later(host, "http", State::Critical, at, later(back, Duration::from_secs(2)));
            }
        }
        let back = later(began, self.plan.rack_back);
        self.say_later(u32::MAX, "ping", State::Critical, later(began, Duration::from_secs(2)), back);
    }

    fn say_later(&mut self, host: u32, service: &'static str, state: State, at: Timestamp, back: Timestamp) {
        self.coming.entry(at).or_default().push(Report { host, service, state });
        self.coming.entry(back).or_default().push(Report { host, service, state: State::Ok });
    }

    pub(super) fn live(&mut self) {
        let end = later(began_at(), self.plan.until);
        let rack_back = later(began_at(), self.plan.rack_back);
        let lost: Vec<_> = (0..self.plan.hosts).filter(|host| self.is_in_lost_rack(*host)).collect();
        let mut next_heartbeats = self.now;
        while self.now < end {
            if self.now >= next_heartbeats && (self.now < began_at() || self.now >= rack_back) {
                for host in &lost {
                    let name = self.name(*host);
                    self.batch(&name, Vec::new(), Some(HEARTBEATS_S));
                }
                next_heartbeats = later(self.now, Duration::from_secs(HEARTBEATS_S.into()));
            }
            while let Some(entry) = self.coming.first_entry().filter(|entry| *entry.key() <= self.now) {
                for report in entry.remove() {
                    self.report(&report);
                }
            }
            self.answer();
            self.turn();
            self.now = self.next_moment(end);
        }
    }

    /// The next that something happens, on a grid: what comes together is decided together.
    fn next_moment(&self, end: Timestamp) -> Timestamp {
        let beat = later(self.now, Duration::from_secs(HEARTBEATS_S.into()));
        let coming = self.coming.keys().next().copied();
        let answer = self.on_their_way.front().map(|(at, _)| *at);
        let next = [coming, answer, self.core.next_wakeup(), Some(beat)].into_iter().flatten().min();
        next.map_or(end, |at| at.max(later(self.now, TICK)))
    }

    fn report(&mut self, report: &Report) {
        let (name, labels) = if report.host == u32::MAX {
            ("switch7".to_owned(), BTreeMap::new())
        } else {
            let dc = ["fra1", "fra1", "fra1", "ams1"][report.host as usize % 4];
            let labels = [("dc", dc.to_owned()), ("rack", format!("r{}", self.rack(report.host)))];
            (self.name(report.host), labels.map(|(name, value)| (name.to_owned(), value)).into())
        };
        if report.state != State::Ok {
            let key = AlertKey::new(format!("id-{name}"), report.service);
            self.ledger.fired.insert(format!("{name}/{}", report.service), key);
        }
        let state = ServiceState {
            service: report.service.into(),
            state: report.state,
            since: self.now,
            flapping: false,
            summary: format!("{} is {}", report.service, report.state.name()),
            detail: String::new(),
            perfdata: String::new(),
            labels,
            annotations: BTreeMap::new(),
        };
        self.batch(&name, vec![EventKind::Transition(Transition { from: State::Ok, now: state })], None);
    }

    fn batch(&mut self, host: &str, events: Vec<EventKind>, next_within_s: Option<u32>) {
        let seq = self.seqs.entry(host.to_owned()).or_default();
        let now = self.now;
        let mut number = |kind| {
            *seq += 1;
            Event { seq: *seq, at: now, kind }
        };
        let batch = Batch {
            protocol: PROTOCOL,
            agent: format!("id-{host}"),
            host: host.to_owned(),
            epoch: "e1".into(),
            run: String::new(),
            boot: String::new(),
            sent_at: now,
            events: events.into_iter().map(&mut number).collect(),
            heartbeat: next_within_s.map(|next_within_s| Heartbeat {
                digest: dogwatch_wire::digest(std::iter::empty::<(&str, State, bool)>()),
                next_within_s,
                version: "1".into(),
                services: 3,
                changes: Vec::new(),
            }),
            states: None,
            states_part: None,
        };
        let taken = self.core.on_batch(&batch, &Sender::default(), now);
        debug_assert!(taken.is_ok(), "{taken:?}");
    }

    /// As alertd's loop: decides, commits, hands over.
    fn turn(&mut self) {
        loop {
            self.core.settle(self.now);
            let leases = self.core.poll_send(LEASES_MAX.saturating_sub(self.on_their_way.len()), self.now);
            self.commit();
            if leases.is_empty() {
                return;
            }
            for lease in leases {
                self.on_their_way.push_back((later(self.now, ANSWERS_AFTER), lease));
            }
        }
    }

    fn commit(&mut self) {
        for change in self.core.take_changes() {
            match change {
                Change::Outbox(row) => drop(self.ledger.rows.insert(row.seq, *row)),
                Change::Alert(key, alert) if alert.resolved_at.is_none() => {
                    let label = |name| alert.labels.get(name).cloned().unwrap_or_default();
                    self.ledger.fired.insert(format!("{}/{}", label("host"), label("service")), key);
                }
                // `CRITICAL rack7-3/agent: no word …; by …`
                Change::History(entry) if entry.kind == "withheld" => {
                    let name = entry.text.split(' ').nth(1).unwrap_or_default().trim_end_matches(':');
                    self.ledger.withheld.insert(name.to_owned(), entry.reason);
                }
                _ => {}
            }
        }
    }

    /// Receivers take what arrives, or refuse what is over their limit.
    fn answer(&mut self) {
        while let Some((at, lease)) = self.on_their_way.pop_front_if(|(at, _)| *at <= self.now) {
            let told = &lease.notification;
            let full = told.receiver == PAGER && {
                self.pager_calls.push(at);
                calls_in_the_minute_before(&self.pager_calls, at) > PAGER_CALLS_A_MINUTE
            };
            let outcome = if full {
                self.refused += 1;
                let after = Some(Duration::from_secs(30));
                Err(DeliveryError::Retry { after, reason: "429 Too Many Requests".into() })
            } else {
                let groups = told.summary.iter().flat_map(|summary| &summary.groups);
                self.arrivals.push(Arrival {
                    after_s: between(began_at(), at).as_secs_f64(),
                    receiver: told.receiver.clone(),
                    kind: format!("{:?}", told.kind).to_lowercase(),
                    title: words::title(told, &TimeZone::UTC),
                    storm_hosts: groups.map(|group| group.hosts).max().unwrap_or(0),
                });
                Ok(Accepted::default())
            };
            self.core.on_delivery(lease.seq, outcome, self.random.u64(..), self.now);
        }
    }

    pub(super) fn into_run(self) -> Run {
        let outbox = self.core.outbox_status();
        let calls = &self.pager_calls;
        let busiest = calls.iter().map(|at| calls_in_the_minute_before(calls, *at)).max().unwrap_or(0);
        let incidents = self.core.status("drill", Vec::new(), self.now).incidents;
        Run {
            plan: self.plan,
            account: self.ledger.account(),
            arrivals: self.arrivals,
            pager_busiest_minute: busiest,
            refused: self.refused,
            left_waiting: outbox.queued + outbox.leased,
            believed: incidents.len(),
            broken: Vec::new(),
        }
    }
}

fn calls_in_the_minute_before(calls: &[Timestamp], at: Timestamp) -> usize {
    calls.iter().filter(|call| **call <= at && between(**call, at) < Duration::from_mins(1)).count()
}
