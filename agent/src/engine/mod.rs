//! The main loop of the agent. It owns all state, reads the clock, takes one input at a time, and
//! carries out what the pure modules decide.
//!
//! [`Service`] decides what a result means, [`Schedule`] what runs next, and [`Outbox`] what is
//! sent. Disk, checks and alertd are on other threads and tasks and answer over channels, so
//! nothing that hangs there stops the loop. systemd's watchdog is fed only from here.

mod ask;
mod disk;
mod reload;
mod report;
mod submit;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use dogwatch_checks::{Blind, CheckResult, Host, Past, perfdata};
use dogwatch_daemon::{
    signals::{Asked, Signals},
    systemd,
};
use dogwatch_wire::BatchReply;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    api::Ask,
    changes::Changes,
    clock::Clock,
    config::{Config, Work},
    handler::Runs,
    history::{Sample, writer::Writer},
    lasting::Lasting,
    metrics,
    moment::{Moment, Now},
    passive::Freshness,
    pause::{self, Excuse, Pauses},
    recent::Recent,
    refused::RefusedJobs,
    report::{
        Process,
        client::{Alertds, NotTaken},
        outbox::{Limits, Outbox},
    },
    runner::{Report, Runner},
    schedule::{LaneLimits, Schedule},
    self_check::Lag,
    service::Service,
    state::{Saved, SavedService},
    store::{Done, Found, Store},
};
use disk::DiskState;

/// All state of the agent.
pub(crate) struct Engine {
    clock: Clock,
    config_path: PathBuf,
    /// There was a file at that path when the config was last read.
    had_config_file: bool,
    host: Host,
    config: Config,
    agent_id: String,
    process: Process,
    /// Recent changes of this host.
    changes: Changes,
    started_at: Timestamp,
    schedule: Schedule,
    services: BTreeMap<Arc<str>, Watched>,
    running: BTreeMap<Arc<str>, Running>,
    lag: Lag,
    lags: metrics::Lags,
    outbox: Outbox,
    epoch: u64,
    disk: DiskState,
    alertds: Alertds,
    runner: Runner,
    answers: mpsc::Sender<Result<BatchReply, NotTaken>>,
    /// Why the last reload failed.
    config_problem: Option<String>,
    refused_jobs: RefusedJobs,
    metrics_problem: Option<String>,
    history: Option<Writer>,
    /// Values for the history, and when it gets them.
    samples: Vec<Sample>,
    samples_due: Moment,
    grace_until: Moment,
    asleep: Duration,
    pauses: Pauses,
    next_look: Moment,
    /// No submitted result becomes stale before this.
    stale_at: Option<Moment>,
    /// How often systemd must hear of the loop, and when it does next.
    watchdog: Option<Duration>,
    next_alive: Moment,
}

/// What the loop waits for.
pub(crate) struct Inputs {
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) done: mpsc::Receiver<Done>,
    pub(crate) answers: mpsc::Receiver<Result<BatchReply, NotTaken>>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) signals: Signals,
}

/// A service and what belongs to it besides its status.
struct Watched {
    /// The check that it belongs to.
    check: Arc<str>,
    /// Which of the things that the check finds; `None`: the check as a whole.
    thing: Option<String>,
    service: Service,
    freshness: Freshness,
    lasting: Lasting,
    last: Option<Last>,
    /// The first value of its performance data.
    recent: Recent,
    handler: Runs,
    /// What the handler did about the present problem, and when.
    handled: Option<(Moment, String)>,
    /// When alertd was last sent its text.
    said_at: Option<Moment>,
    /// In how many runs in a row its thing was missing.
    missing: u8,
    /// How long a problem must last to be hard, as of the last result; `None` if results count.
    must_last: Option<Duration>,
    /// The runs of a job that have begun and not ended, by the process of `dogwatch job`.
    runs: BTreeMap<i32, Moment>,
}

/// What belongs to a check, whatever services it has.
#[derive(Default)]
struct Running {
    past: Past,
    took: Duration,
    /// What it cannot watch, and why, in its last run.
    blind: Vec<Blind>,
    excuse: Excuse,
    definition: u64,
}

struct Last {
    result: Arc<CheckResult>,
    /// When the check ran; `None` if it should have and did not.
    at: Option<Timestamp>,
}

/// What `run` passes to the loop.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) config_path: PathBuf,
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) agent_id: String,
    pub(crate) process: Process,
    pub(crate) changes: Changes,
    pub(crate) store: Store,
    pub(crate) found: Found,
    pub(crate) runner: Runner,
    pub(crate) answers: mpsc::Sender<Result<BatchReply, NotTaken>>,
    /// Why there is no metrics page, although one is configured.
    pub(crate) metrics_problem: Option<String>,
    pub(crate) history: Option<Writer>,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            clock,
            config_path,
            host,
            config,
            agent_id,
            process,
            changes,
            store,
            found,
            runner,
            answers,
            metrics_problem,
            history,
        } = parts;
        let now = clock.now();
        let spool = found.spool;
        let waiting = spool.events.into_iter().filter(|event| event.seq > spool.acked).collect();
        let host_hash = crate::schedule::host_hash(&agent_id);
        let mut outbox = Outbox::new(outbox_limits(&config), host_hash, waiting, spool.next_seq, now.moment);
        if found.problem.is_some() {
            outbox.on_spool_failed();
        }
        let mut engine = Self {
            schedule: Schedule::new(&agent_id, lanes(&config)),
            services: BTreeMap::new(),
            running: BTreeMap::new(),
            lag: Lag::default(),
            lags: metrics::Lags::new(),
            outbox,
            epoch: spool.epoch,
            disk: DiskState::new(store, spool.acked, found.problem, now.moment),
            alertds: Alertds::new(&config.alertd),
            runner,
            answers,
            config_problem: None,
            refused_jobs: RefusedJobs::default(),
            metrics_problem,
            history,
            samples: Vec::new(),
            samples_due: now.moment,
            grace_until: Moment::BOOT + config.agent.boot_grace,
            asleep: clock.asleep(),
            pauses: Pauses::default(),
            next_look: now.moment + LOOK_INTERVAL,
            stale_at: None,
            watchdog: systemd::watchdog_interval(),
            next_alive: now.moment,
            started_at: now.wall,
            clock,
            had_config_file: config_path.exists(),
            config_path,
            host,
            agent_id,
            process,
            changes,
            config,
        };
        engine.restore(found.state, now);
        engine
    }

    /// Restores the saved state. A service whose check is no longer in the config is removed, as
    /// by a reload.
    fn restore(&mut self, saved: Saved, now: Now) {
        for (name, past) in saved.pasts {
            self.running.insert(name.into(), Running { past, ..Running::default() });
        }
        for (name, SavedService { service, fresh_until, last }) in saved.services {
            let (check, thing) = self.belongs_to(&name);
            let mut watched = Watched { service, ..Watched::new(check, thing) };
            if let Some(until) = fresh_until {
                let left = Duration::try_from(until.duration_since(now.wall)).unwrap_or_default();
                // If the wall clock was wrong when this was saved, the config says what is
                // possible.
                let most = self.config.checks.get(&watched.check).and_then(|check| match &check.work {
                    Work::Passive(passive) | Work::Jobs(passive) => passive.freshness,
                    _ => None,
                });
                watched.freshness.on_result(Some(left.min(most.unwrap_or(TTL_MAX))), now.moment);
                self.stale_at = watch::earlier(self.stale_at, watched.freshness.until());
            }
            if self.is_submitted(&watched) {
                watched.last = last.map(|last| Last {
                    result: Arc::new(
                        CheckResult::new(last.state, last.summary)
                            .with_perfdata(perfdata::parse(&last.perfdata).items),
                    ),
                    at: last.at,
                });
            }
            self.services.insert(name.into(), watched);
        }
        self.watch(now);
    }

    /// Whether the results of a service come from outside, so that the agent cannot just ask again.
    fn is_submitted(&self, watched: &Watched) -> bool {
        let check = self.config.checks.get(&watched.check);
        check.is_some_and(|check| matches!(check.work, Work::Passive(_) | Work::Jobs(_)))
    }

    /// The check and the thing that a service was named after.
    pub(super) fn belongs_to(&self, service: &str) -> (Arc<str>, Option<String>) {
        if let Some((name, _)) = self.config.checks.get_key_value(service) {
            return (Arc::clone(name), None);
        }
        let spaces = service.match_indices(' ').map(|(at, _)| at).rev();
        for at in spaces {
            if let Some((name, check)) = self.config.checks.get_key_value(&service[..at])
                && check.has_things
            {
                return (Arc::clone(name), Some(service[at + 1..].to_owned()));
            }
        }
        (service.into(), None)
    }

    /// Runs until SIGTERM or SIGINT, or until one of its threads or tasks has ended, which is an
    /// error: an agent that is deaf or mute must be restarted.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), &'static str> {
        loop {
            let now = self.clock.now();
            self.notice_sleep(now);
            self.notice_pause(now);
            self.look_again(now);
            for report in self.runner.poll(now.moment) {
                self.on_report(report);
            }
            self.run_due(now);
            self.expire(now);
            self.write(now);
            self.send(now);
            self.remember(now);
            self.feed_watchdog(now);
            let wake = self.next_wakeup(now);
            self.pauses.on_wait(wake);
            tokio::select! {
                report = inputs.reports.recv() => {
                    self.notice_pause(self.clock.now());
                    self.on_report(report.ok_or("the runner of checks")?);
                    // Those that arrived together share the turn. Their number is bounded by the
                    // channel.
                    while let Ok(report) = inputs.reports.try_recv() {
                        self.on_report(report);
                    }
                }
                () = self.runner.finished() => {}
                done = inputs.done.recv() => self.on_disk_done(done.ok_or("the thread that writes to the disk")?),
                answer = inputs.answers.recv() => self.on_answer(answer.ok_or("the client of alertd")?),
                ask = inputs.asks.recv() => self.on_ask(ask.ok_or("the server of the agent's socket")?),
                asked = inputs.signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => self.reload(),
                },
                () = self.clock.sleep_until(wake) => self.lags.on_wake(self.clock.now().moment.since(wake.unwrap_or(now.moment))),
            }
        }
        self.stop(inputs.done).await;
        Ok(())
    }

    /// Writes what was going to be written anyway. A stop loses no more than a kill.
    async fn stop(mut self, mut done: mpsc::Receiver<Done>) {
        systemd::stopping();
        let last = async {
            if self.disk.is_busy() {
                let Some(answer) = done.recv().await else { return };
                self.on_disk_done(answer);
            }
            self.write_now();
            if let Some(answer) = done.recv().await {
                self.on_disk_done(answer);
            }
            self.hand_over();
            if let Some(history) = self.history.take() {
                let _ = tokio::task::spawn_blocking(|| history.stop()).await;
            }
        };
        if tokio::time::timeout(STOP_WITHIN, last).await.is_err() {
            warn!("the disk does not answer; stopping without the last write");
        }
        info!("stopped");
    }

    /// Each message wakes systemd too, so not in every turn.
    fn feed_watchdog(&mut self, now: Now) {
        if let Some(interval) = self.watchdog
            && now.moment >= self.next_alive
        {
            systemd::alive();
            self.next_alive = now.moment + interval / 2;
        }
    }

    fn next_wakeup(&self, now: Now) -> Option<Moment> {
        let watchdog = self.watchdog.map(|_| self.next_alive.max(now.moment));
        [
            self.schedule.next_wakeup(),
            self.runner.next_wakeup(),
            self.outbox.next_wakeup(),
            self.disk.next_wakeup(),
            watchdog,
            self.stale_at,
            Some(self.next_look),
            self.schedule.is_running().then(|| pause::next_beat(now.moment)),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Watched {
    fn new(check: Arc<str>, thing: Option<String>) -> Self {
        Self {
            check,
            thing,
            service: Service::default(),
            freshness: Freshness::default(),
            lasting: Lasting::default(),
            last: None,
            recent: Recent::default(),
            handler: Runs::default(),
            handled: None,
            said_at: None,
            missing: 0,
            must_last: None,
            runs: BTreeMap::new(),
        }
    }
}

/// Reads of the kernel take microseconds, and those that hang do not count. Network checks only
/// wait.
fn lanes(config: &Config) -> LaneLimits {
    LaneLimits { local: LOCAL_MAX, network: NETWORK_MAX, plugin: config.agent.max_concurrent }
}

fn outbox_limits(config: &Config) -> Limits {
    Limits { bytes_max: config.agent.spool_bytes_max, heartbeat: config.alertd.heartbeat }
}

/// How many jobs can report. Each is a service in the state of the agent and of alertd.
const JOBS_MAX: usize = 200;
/// For all threads of the pool together; most of them wait for the one that works.
const LOCAL_MAX: usize = 64;
const NETWORK_MAX: usize = 256;
/// The longest time for which a submitted result can be valid.
const TTL_MAX: Duration = Duration::from_hours(24 * 366);
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often to look for new things to check.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
