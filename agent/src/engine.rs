//! The agent's one loop. It owns every core, reads the clock, feeds one input at a time, does what the cores say.
//!
//! No lock, no decision of its own: what a result means is [`Service`]'s, what runs next is [`Schedule`]'s, what is sent
//! is [`Outbox`]'s. Disk, checks and alertd live on other threads and tasks and answer over channels, so nothing that
//! hangs there stops the loop; the watchdog of systemd is fed from here and nowhere else.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use dogwatch_checks::{CheckResult, Host, State, output};
use dogwatch_daemon::{
    config::closest,
    signals::{Asked, Signals},
    systemd,
    unix_http::Peer,
};
use dogwatch_wire::{Batch, BatchReply, EventKind, Heartbeat, PROTOCOL, ServiceState, digest};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::{
    api::{Ask, Refused, ServiceStatus, SpoolStatus, Status, Submit},
    clock::Clock,
    config::{self, Check, Config, Work},
    metrics::Meters,
    moment::{Moment, Now},
    passive::Freshness,
    report::{
        self, About,
        client::{Alertds, NotTaken},
        outbox::{Limits, Outbox, Parcel, Verdict},
    },
    runner::{Report, Runner},
    schedule::{Due, Schedule},
    service::{Rules, Service},
    state::{Saved, SavedService},
    status::{Confirm, Status as Belief},
    store::{Done, Found, Order, Store},
};

/// Everything the loop owns.
pub(crate) struct Engine {
    pub(crate) clock: Clock,
    pub(crate) config_path: PathBuf,
    pub(crate) host: Host,
    config: Config,
    agent_id: String,
    started_at: Timestamp,
    schedule: Schedule,
    services: BTreeMap<Arc<str>, Watched>,
    outbox: Outbox,
    epoch: u64,
    disk: DiskState,
    alertds: Alertds,
    runner: Runner,
    answers: mpsc::Sender<Result<BatchReply, NotTaken>>,
    meters: Meters,
    /// Why the config on disk is not the one in use.
    config_problem: Option<String>,
    grace_until: Moment,
    asleep: Duration,
    next_look: Moment,
}

/// The other ends of the loop's channels.
pub(crate) struct Inputs {
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) done: mpsc::Receiver<Done>,
    pub(crate) answers: mpsc::Receiver<Result<BatchReply, NotTaken>>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) signals: Signals,
}

/// One service and what is known of it besides its status.
#[derive(Default)]
struct Watched {
    service: Service,
    freshness: Freshness,
    last: Option<Last>,
    running_since: Option<Moment>,
}

struct Last {
    result: CheckResult,
    at: Timestamp,
    took: Duration,
}

/// The conversation with the disk's thread.
struct DiskState {
    store: Store,
    /// Since when an order is out.
    busy_since: Option<Moment>,
    /// When what has changed is to be written at the latest.
    write_at: Option<Moment>,
    not_before: Moment,
    problem: Option<String>,
    settled: u64,
}

impl Engine {
    #[expect(clippy::too_many_arguments, reason = "the parts that `run` has made, once")]
    pub(crate) fn new(
        clock: Clock,
        config_path: PathBuf,
        host: Host,
        config: Config,
        agent_id: String,
        (store, found): (Store, Found),
        runner: Runner,
        answers: mpsc::Sender<Result<BatchReply, NotTaken>>,
        meters: Meters,
    ) -> Self {
        let now = clock.now();
        let spool = found.spool;
        let waiting = spool.events.into_iter().filter(|event| event.seq > spool.acked).collect();
        let outbox = Outbox::new(outbox_limits(&config), waiting, spool.next_seq, now.moment);
        let mut engine = Self {
            schedule: Schedule::new(&agent_id, config.agent.max_concurrent),
            services: BTreeMap::new(),
            outbox,
            epoch: spool.epoch,
            disk: DiskState {
                store,
                busy_since: None,
                write_at: None,
                not_before: now.moment,
                problem: None,
                settled: spool.acked,
            },
            alertds: Alertds::new(&config.alertd),
            runner,
            answers,
            meters,
            config_problem: None,
            grace_until: Moment::BOOT + config.agent.boot_grace,
            asleep: clock.asleep(),
            next_look: now.moment + LOOK_INTERVAL,
            started_at: now.wall,
            clock,
            config_path,
            host,
            agent_id,
            config,
        };
        engine.restore(found.state, now);
        engine
    }

    /// Takes back what the disk knows; what is no longer in the config is removed as if it had been so now.
    fn restore(&mut self, saved: Saved, now: Now) {
        for (name, SavedService { service, fresh_until }) in saved.services {
            let mut freshness = Freshness::default();
            if let Some(until) = fresh_until {
                let left = Duration::try_from(until.duration_since(now.wall)).unwrap_or_default();
                freshness.on_result(Some(left), now.moment);
            }
            self.services.insert(name.into(), Watched { service, freshness, ..Watched::default() });
        }
        self.watch(now);
    }

    /// Until it is told to stop.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        loop {
            let now = self.clock.now();
            self.notice_sleep(now);
            self.look_again(now);
            self.run_due(now);
            self.expire(now);
            self.write(now);
            self.send(now);
            self.meters.on_turn(&self.outbox, self.config_problem.is_none());
            systemd::alive();
            let wake = self.next_wakeup(now);
            tokio::select! {
                Some(report) = inputs.reports.recv() => self.on_report(report),
                Some(done) = inputs.done.recv() => self.on_disk_done(done),
                Some(answer) = inputs.answers.recv() => self.on_answer(answer),
                Some(ask) = inputs.asks.recv() => self.on_ask(ask),
                asked = inputs.signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => self.reload(),
                },
                () = self.clock.sleep_until(wake) => self.meters.on_wake(self.clock.now().moment.since(wake.unwrap_or(now.moment))),
            }
        }
        self.stop(inputs.done).await;
    }

    /// A stop loses nothing that a kill would not; it only writes what was going to be written anyway.
    async fn stop(mut self, mut done: mpsc::Receiver<Done>) {
        systemd::stopping();
        let last = async {
            while self.disk.busy_since.is_some() {
                let Some(answer) = done.recv().await else { return };
                self.on_disk_done(answer);
            }
            let now = self.clock.now();
            self.disk.write_at = Some(now.moment);
            self.disk.not_before = now.moment;
            self.write(now);
            if let Some(answer) = done.recv().await {
                self.on_disk_done(answer);
            }
        };
        if tokio::time::timeout(STOP_WITHIN, last).await.is_err() {
            warn!("the disk did not answer; what it has is what a kill would leave");
        }
        info!("stopped");
    }

    fn next_wakeup(&self, now: Now) -> Option<Moment> {
        let fresh = self.services.values().filter_map(|watched| watched.freshness.until());
        let disk = self.disk.busy_since.map(|since| since + DISK_HANGS_AFTER).or_else(|| {
            let write_at = self.disk.write_at?;
            Some(write_at.max(self.disk.not_before))
        });
        let watchdog = systemd::watchdog_interval().map(|interval| now.moment + interval);
        [self.schedule.next_wakeup(), self.outbox.next_wakeup(), disk, watchdog, Some(self.next_look)]
            .into_iter()
            .flatten()
            .chain(fresh)
            .min()
    }

    // --- checks ---

    /// Fits schedule and services to the config.
    fn watch(&mut self, now: Now) {
        let timings = self.config.checks.iter().filter_map(|(name, check)| match check.work {
            Work::Passive(_) => None,
            Work::Native(_) | Work::Plugin(_) => Some((name, check.timing)),
        });
        self.schedule.apply(timings, now.moment);
        let gone: Vec<_> =
            self.services.keys().filter(|name| !self.config.checks.contains_key(*name)).cloned().collect();
        for name in gone {
            info!(check = &*name, "no longer watched");
            self.services.remove(&name);
            self.outbox.push(now.wall, EventKind::Removed { service: name.to_string() });
            self.write_soon(now.moment, Duration::ZERO);
        }
        for (name, check) in &self.config.checks {
            let watched = self.services.entry(Arc::clone(name)).or_default();
            if let Work::Passive(passive) = &check.work
                && watched.freshness.until().is_none()
                && watched.last.is_none()
            {
                watched.freshness.on_result(passive.freshness, now.moment);
            }
        }
    }

    fn run_due(&mut self, now: Now) {
        while let Some(due) = self.schedule.poll_due(now.moment) {
            match due {
                Due::Run { name, late } => {
                    let Some(check) = self.config.checks.get(&name) else { continue };
                    if let Some(watched) = self.services.get_mut(&name) {
                        watched.running_since = Some(now.moment);
                    }
                    self.meters.on_start(late);
                    self.runner.start(name, &check.work, check.timeout);
                }
                Due::StillStuck { name, stuck_for } => {
                    let text = format!("check hangs in the kernel since {}s", stuck_for.as_secs());
                    self.meters.on_overrun(&name);
                    self.on_result(&name, CheckResult::unknown(text), now);
                }
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        let now = self.clock.now();
        match report {
            Report::Finished { name, result, cpu } => {
                self.on_result(&name, result, now);
                let soft = self.services.get(&name).is_some_and(|watched| watched.service.status().is_soft());
                self.schedule.on_finished(&name, soft, cpu, now.moment);
            }
            Report::Stuck { name, result } => {
                error!(check = &*name, "check hangs past its deadline; it is in quarantine until it ends");
                self.meters.on_overrun(&name);
                self.on_result(&name, result, now);
                self.schedule.on_stuck(&name, now.moment);
            }
            Report::Released { name } => {
                info!(check = &*name, "check that hung has ended");
                self.schedule.on_released(&name);
            }
        }
    }

    fn on_result(&mut self, name: &Arc<str>, result: CheckResult, now: Now) {
        let (Some(check), Some(watched)) = (self.config.checks.get(name), self.services.get_mut(name)) else {
            // Removed while it ran.
            return;
        };
        let grace = now.moment < self.grace_until && !matches!(check.work, Work::Passive(_));
        let confirm = if grace { Confirm::NotYet } else { Confirm::After(check.max_attempts) };
        let before = (watched.service.status(), watched.service.flapping());
        let transition =
            watched.service.on_result(&result, Rules { confirm, flapping: check.flapping }, now.wall);
        let took = watched.running_since.take().map_or(Duration::ZERO, |since| now.moment.since(since));
        watched.last = Some(Last { result, at: now.wall, took });
        let changed = before != (watched.service.status(), watched.service.flapping());
        if let Some(transition) = transition {
            info!(
                check = &**name,
                from = transition.from.name(),
                to = transition.now.state().name(),
                flapping = transition.now.flapping,
                "{}",
                transition.now.said.summary
            );
            let about = About { name, labels: &check.labels, annotations: &check.annotations };
            let dropped = self.outbox.dropped();
            self.outbox.push(now.wall, report::transition(about, &transition));
            if self.outbox.dropped() > dropped {
                error!(dropped = self.outbox.dropped(), "the spool is full; its oldest events are lost");
            }
            self.write_soon(now.moment, Duration::ZERO);
        } else if changed || before.1 {
            self.write_soon(now.moment, SOFT_WRITE_WITHIN);
        }
        self.measure(name, now);
    }

    /// Passive services whose last result holds no longer.
    fn expire(&mut self, now: Now) {
        let stale: Vec<Arc<str>> = self
            .services
            .iter_mut()
            .filter_map(|(name, watched)| watched.freshness.poll_stale(now.moment).then(|| Arc::clone(name)))
            .collect();
        for name in stale {
            let last = self.services.get(&name).and_then(|watched| watched.last.as_ref());
            let text = match last {
                Some(last) => format!("stale: the last result is of {:.0}", last.at),
                None => "stale: no result came in time".to_owned(),
            };
            self.on_result(&name, CheckResult::unknown(text), now);
            let retry = self.config.checks.get(&name).map(|check| check.timing.retry_interval);
            if let (Some(retry), Some(watched)) = (retry, self.services.get_mut(&name))
                && watched.service.status().is_soft()
            {
                watched.freshness.again_after(retry, now.moment);
            }
        }
    }

    /// Sleep is not time: what was watched before says little, and much is still waking up.
    fn notice_sleep(&mut self, now: Now) {
        let asleep = self.clock.asleep();
        if asleep.saturating_sub(self.asleep) > SHORT_SLEEP {
            info!(
                slept_s = (asleep - self.asleep).as_secs(),
                "the host has slept; problems stay soft for a while"
            );
            self.grace_until = now.moment + self.config.agent.boot_grace;
        }
        self.asleep = asleep;
    }

    /// What the host has may come up after the agent: a cache, swap.
    fn look_again(&mut self, now: Now) {
        if now.moment < self.next_look {
            return;
        }
        self.next_look = now.moment + LOOK_INTERVAL;
        for name in self.config.checks.keys().cloned().collect::<Vec<_>>() {
            self.measure(&name, now);
        }
        if !self.config.auto_checks || self.config_problem.is_some() {
            return;
        }
        if let Ok(config) = config::load(&self.config_path, &self.host)
            && config.auto_checks
        {
            let mut found = false;
            for (name, check) in config.checks {
                if check.origin == config::Origin::Auto && !self.config.checks.contains_key(&name) {
                    info!(check = &*name, "found on this host; watching it from now on");
                    self.config.checks.insert(name, check);
                    found = true;
                }
            }
            if found {
                self.watch(now);
            }
        }
    }

    // --- disk ---

    fn write_soon(&mut self, now: Moment, within: Duration) {
        let at = now + within;
        self.disk.write_at = Some(self.disk.write_at.map_or(at, |before| before.min(at)));
    }

    fn write(&mut self, now: Now) {
        if let Some(since) = self.disk.busy_since {
            if now.moment >= since + DISK_HANGS_AFTER {
                self.disk_fails("the disk does not answer");
            }
            return;
        }
        if self.outbox.settled() != self.disk.settled {
            self.disk.settled = self.outbox.settled();
            self.write_soon(now.moment, ACK_WRITE_WITHIN);
        }
        let due = self.disk.write_at.is_some_and(|at| now.moment >= at.max(self.disk.not_before));
        if !due {
            return;
        }
        self.disk.write_at = None;
        let order = Order {
            epoch: self.epoch,
            events: self.outbox.unspooled().cloned().collect(),
            next_seq: self.outbox.next_seq(),
            settled: self.outbox.settled(),
            state: self.snapshot(now),
        };
        match self.disk.store.send(order) {
            Ok(()) => self.disk.busy_since = Some(now.moment),
            Err(error) => {
                self.disk_fails(&error.to_string());
                self.disk.not_before = now.moment + DISK_RETRY_AFTER;
                self.write_soon(now.moment, DISK_RETRY_AFTER);
            }
        }
    }

    fn on_disk_done(&mut self, done: Done) {
        let now = self.clock.now();
        self.disk.busy_since = None;
        self.meters.on_spool_bytes(done.spool_bytes);
        if done.spooled.is_ok() {
            self.outbox.on_spooled(done.through);
        }
        match done.spooled.and(done.saved) {
            Ok(()) => {
                if let Some(problem) = self.disk.problem.take() {
                    info!(was = problem, "the disk takes the spool again");
                }
                if self.outbox.unspooled().next().is_some() {
                    self.write_soon(now.moment, Duration::ZERO);
                }
            }
            Err(error) => {
                self.disk_fails(&error.to_string());
                self.disk.not_before = now.moment + DISK_RETRY_AFTER;
                self.write_soon(now.moment, DISK_RETRY_AFTER);
            }
        }
    }

    /// Says it loudly once; events are sent from memory until it ends.
    fn disk_fails(&mut self, why: &str) {
        if self.outbox.unspooled().next().is_some() {
            self.outbox.on_spool_failed();
        }
        if self.disk.problem.is_none() {
            error!(
                dir = %self.config.agent.state_dir.display(),
                "cannot write the spool: {why}; events stay in memory, are sent from there, and are lost if the agent ends"
            );
            self.meters.on_spool_error();
        }
        self.disk.problem = Some(why.to_owned());
    }

    fn snapshot(&self, now: Now) -> Saved {
        let services = self.services.iter().map(|(name, watched)| {
            let fresh_until = watched
                .freshness
                .until()
                .and_then(|until| now.wall.checked_add(until.since(now.moment)).ok());
            (name.to_string(), SavedService { service: watched.service.clone(), fresh_until })
        });
        Saved { epoch: self.epoch, through: self.outbox.next_seq() - 1, services: services.collect() }
    }

    // --- alertd ---

    fn send(&mut self, now: Now) {
        let Some(parcel) = self.outbox.poll_send(now.moment) else { return };
        let batch = self.batch(parcel, now);
        let (alertds, answers) = (self.alertds.clone(), self.answers.clone());
        tokio::spawn(async move {
            let answer = alertds.send(&batch).await;
            let _ = answers.send(answer).await;
        });
    }

    fn batch(&self, parcel: Parcel, now: Now) -> Batch {
        let heartbeat = parcel.heartbeat.then(|| Heartbeat {
            digest: self.digest(),
            next_within_s: u32::try_from(self.config.alertd.heartbeat.as_secs()).unwrap_or(u32::MAX).max(1),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: u32::try_from(self.services.len()).unwrap_or(u32::MAX),
        });
        Batch {
            protocol: PROTOCOL,
            agent: self.agent_id.clone(),
            host: self.config.agent.host.clone(),
            epoch: format!("{:016x}", self.epoch),
            sent_at: now.wall,
            events: parcel.events,
            heartbeat,
            states: parcel.states.then(|| self.states()),
        }
    }

    fn digest(&self) -> String {
        digest(self.services.iter().map(|(name, watched)| {
            let announced = watched.service.announced();
            let state = announced.map_or(State::Ok, crate::service::Announced::state);
            (&**name, report::to_wire(state), announced.is_some_and(|announced| announced.flapping))
        }))
    }

    fn states(&self) -> Vec<ServiceState> {
        let mut states: Vec<_> = self
            .config
            .checks
            .iter()
            .map(|(name, check)| {
                let about = About { name, labels: &check.labels, annotations: &check.annotations };
                let announced = self.services.get(name).and_then(|watched| watched.service.announced());
                report::service_state(about, announced, self.started_at)
            })
            .collect();
        report::fit(&mut states);
        states
    }

    fn on_answer(&mut self, answer: Result<BatchReply, NotTaken>) {
        let now = self.clock.now();
        let random = fastrand::f64();
        match answer {
            Ok(reply) => {
                let failing = self.outbox.failures() > 0;
                self.meters.on_batch(true);
                if self.outbox.on_reply(&reply, now.moment, random) == Verdict::Amnesia {
                    error!(
                        acked = reply.acked_seq,
                        next = self.outbox.next_seq(),
                        "alertd has events that this spool never numbered: the disk lost them; a new epoch begins"
                    );
                    self.epoch = fastrand::u64(1..);
                    self.outbox.start_epoch(now.moment);
                    self.write_soon(now.moment, Duration::ZERO);
                } else if failing {
                    info!("alertd takes batches again");
                }
            }
            Err(NotTaken { failure, reason }) => {
                self.meters.on_batch(false);
                if self.outbox.failures() == 0 {
                    warn!(waiting = self.outbox.depth(), "no alertd takes the batch: {reason}; trying again");
                }
                self.outbox.on_failure(failure, now.moment, random);
            }
        }
    }

    // --- people ---

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            // A caller that is gone has its answer.
            Ask::Status(answer) => drop(answer.send(self.status())),
            Ask::Submit { submit, peer, answer } => drop(answer.send(self.submit(submit, &peer))),
        }
    }

    fn submit(&mut self, submit: Submit, peer: &Peer) -> Result<(), Refused> {
        let now = self.clock.now();
        let Some((name, check)) = self.config.checks.get_key_value(submit.service.as_str()) else {
            let passive =
                self.config.checks.iter().filter(|(_, check)| matches!(check.work, Work::Passive(_)));
            let hint = closest(&submit.service, passive.map(|(name, _)| &**name))
                .map(|meant| format!("; did you mean {meant:?}?"))
                .unwrap_or_default();
            let message = format!(
                "no check {:?}; add [check.{:?}] kind = \"passive\" to the config{hint}",
                submit.service, submit.service
            );
            return Err(Refused::NoSuchService(message));
        };
        let Work::Passive(passive) = &check.work else {
            let message =
                format!("check {name:?} is of kind {:?}; results are taken for passive ones", check.kind);
            return Err(Refused::Invalid(message));
        };
        let own = rustix::process::geteuid().as_raw();
        if peer.uid != 0 && peer.uid != own && !passive.submitters.contains(&peer.name()) {
            let message = format!(
                "{} may not submit results for {name:?}; add the name to its submitters",
                peer.name()
            );
            return Err(Refused::Forbidden(message));
        }
        let state: State = submit.state.parse().map_err(Refused::Invalid)?;
        let ttl = submit.ttl_s.map(Duration::from_secs).or(passive.freshness);
        let name = Arc::clone(name);
        if let Some(watched) = self.services.get_mut(&name) {
            watched.freshness.on_result(ttl, now.moment);
        }
        let result = output::parse(state, submit.text.as_bytes());
        self.write_soon(now.moment, SOFT_WRITE_WITHIN);
        self.on_result(&name, result, now);
        Ok(())
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let services = self.config.checks.iter().map(|(name, check)| self.service_status(name, check, now));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.config.agent.host.clone(),
            agent: self.agent_id.clone(),
            started_at: self.started_at,
            warnings: self.warnings(now),
            services: services.collect(),
            spool: SpoolStatus {
                events: self.outbox.depth(),
                dropped: self.outbox.dropped(),
                alertd_failures: self.outbox.failures(),
            },
        }
    }

    fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(problem) = &self.config_problem {
            warnings.push(format!("the config on disk is invalid; the one before is in use: {problem}"));
        }
        if let Some(problem) = &self.disk.problem {
            warnings.push(format!("cannot write the spool: {problem}; events are in memory only"));
        }
        if self.outbox.failures() > 0 {
            warnings.push(format!("no alertd takes reports; {} events wait", self.outbox.depth()));
        }
        if self.outbox.dropped() > 0 {
            warnings.push(format!("{} events were lost: the spool was full", self.outbox.dropped()));
        }
        if now.moment < self.grace_until {
            let left = self.grace_until.since(now.moment).as_secs();
            warnings.push(format!("the host has just booted or woken: no problem becomes hard for {left} s"));
        }
        warnings
    }

    fn service_status(&self, name: &Arc<str>, check: &Check, now: Now) -> ServiceStatus {
        let watched = self.services.get(name);
        let service = watched.map(|watched| watched.service.clone()).unwrap_or_default();
        let last = watched.and_then(|watched| watched.last.as_ref());
        let announced = service.announced();
        let believed = match service.status() {
            Belief::Ok => State::Ok,
            Belief::Soft { problem, .. } | Belief::Hard(problem) => problem.into(),
        };
        let pending = last.is_none() && believed == State::Ok;
        let next = self.schedule.next_run(name).or_else(|| watched?.freshness.until());
        let output = match (last, announced) {
            (Some(last), _) => last.result.summary.clone(),
            (None, Some(announced)) => announced.said.summary.clone(),
            (None, None) => String::new(),
        };
        ServiceStatus {
            service: name.to_string(),
            kind: check.kind.clone(),
            origin: check.origin.to_string(),
            state: if pending { "PENDING".to_owned() } else { believed.name().to_owned() },
            state_type: if service.status().is_soft() { "SOFT" } else { "HARD" }.to_owned(),
            attempt: service.status().attempt(check.max_attempts),
            max_attempts: check.max_attempts,
            flapping: service.flapping(),
            flapping_percent: service.flapping_percent(),
            since: announced.map(|announced| announced.since),
            last_run: last.map(|last| last.at),
            next_run: next.and_then(|next| now.wall.checked_add(next.since(now.moment)).ok()),
            duration_s: last.map(|last| last.took.as_secs_f64()),
            output,
            detail: last.map(|last| last.result.detail.clone()).unwrap_or_default(),
            perfdata: last.map(|last| last.result.perfdata_text()).unwrap_or_default(),
        }
    }

    fn measure(&self, name: &Arc<str>, now: Now) {
        let (Some(check), Some(watched)) = (self.config.checks.get(name), self.services.get(name)) else {
            return;
        };
        let status = self.service_status(name, check, now);
        let perfdata = watched.last.as_ref().map_or(&[][..], |last| &last.result.perfdata);
        self.meters.on_service(&status, perfdata, self.schedule.skipped(name));
    }

    // --- config ---

    /// Applies the config on disk, whole or not at all.
    fn reload(&mut self) {
        let now = self.clock.now();
        let config = match config::load(&self.config_path, &self.host) {
            Ok(config) => config,
            Err(problems) => {
                for problem in &problems.0 {
                    error!("{problem}");
                }
                error!("the new config is invalid; the old one stays in use");
                self.config_problem = problems.0.first().map(ToString::to_string);
                return;
            }
        };
        self.config_problem = None;
        let (old, new) = (&self.config.agent, &config.agent);
        for (what, differs) in [
            ("state_dir", old.state_dir != new.state_dir),
            ("socket", old.socket != new.socket),
            ("metrics", old.metrics != new.metrics),
            ("machine_id_file", old.machine_id_file != new.machine_id_file),
            ("max_concurrent", old.max_concurrent != new.max_concurrent),
        ] {
            if differs {
                warn!("agent.{what} has changed; that takes a restart");
            }
        }
        let relabelled = self.config.checks.iter().any(|(name, old)| {
            let new = config.checks.get(name);
            new.is_some_and(|new| (&new.labels, &new.annotations) != (&old.labels, &old.annotations))
        });
        self.alertds = Alertds::new(&config.alertd);
        self.outbox.set_limits(outbox_limits(&config));
        self.config = config;
        self.watch(now);
        if relabelled {
            self.outbox.offer_states(now.moment);
        }
        info!(checks = self.config.checks.len(), "config reloaded");
        systemd::ready(&format!("{} checks", self.config.checks.len()));
    }
}

fn outbox_limits(config: &Config) -> Limits {
    Limits { bytes_max: config.agent.spool_bytes_max, heartbeat: config.alertd.heartbeat }
}

/// A soft attempt is on disk this soon: a kill may cost one attempt, never a transition.
const SOFT_WRITE_WITHIN: Duration = Duration::from_secs(1);
/// An acknowledgement that is lost costs one repeat.
const ACK_WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How long an order to the disk may take until events are sent from memory.
const DISK_HANGS_AFTER: Duration = Duration::from_secs(10);
const DISK_RETRY_AFTER: Duration = Duration::from_secs(5);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A shorter sleep changes nothing that is watched.
const SHORT_SLEEP: Duration = Duration::from_secs(60);
/// How often the built-in checks are looked for again, and gauges are refreshed.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
