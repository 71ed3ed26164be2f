//! The part of the loop that runs checks and turns their results into announcements.

use std::{collections::BTreeSet, fmt::Write as _, ops::Bound, sync::Arc, time::Duration};

use dogwatch_checks::{Blind, CheckResult, Judgement, State};
use dogwatch_daemon::duration::Span;
use dogwatch_wire::{EventKind, limits};
use jiff::tz::TimeZone;
use tracing::{error, info, warn};

use super::{Engine, JOBS_MAX, LOOK_INTERVAL, Last, Watched, report::labels};
use crate::{
    config::{self, Work},
    handler::Decision,
    history::{Key, Sample, writer::Writer},
    lasting::Lasting,
    metrics,
    moment::{Moment, Now},
    passive::Freshness,
    plot,
    report::{self, About},
    runner::{Report, Started},
    schedule::Due,
    self_check::Seen,
    service::{Rules, Transition},
    status::Confirm,
};

impl Engine {
    /// Updates the schedule and the services from the config.
    pub(super) fn watch(&mut self, now: Now) {
        let timings = self.config.checks.iter().filter_map(|(name, check)| match check.work {
            Work::Passive(_) | Work::Jobs(_) | Work::Own => None,
            Work::Native(_) | Work::Plugin(_) => Some((name, check.lane, check.timing)),
        });
        self.schedule.apply(timings, now.moment);
        let gone = self.services.iter().filter(|(_, watched)| {
            let check = self.config.checks.get(&watched.check);
            // A thing of a check that no longer has things, or the other way round, is gone too.
            check.is_none_or(|check| {
                check.settings(watched.thing.as_deref()).is_none()
                    || (watched.thing.is_some() && !check.has_things)
            })
        });
        for name in gone.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            info!(service = &*name, "no longer checked");
            self.remove(&name, now);
        }
        self.running.retain(|name, _| self.config.checks.contains_key(name));
        for (name, check) in &self.config.checks {
            let running = self.running.entry(Arc::clone(name)).or_default();
            let is_new = running.definition == 0;
            let redefined = !is_new && running.definition != check.definition;
            running.definition = check.definition;
            if !check.has_things && !self.services.contains_key(name) {
                self.services.insert(Arc::clone(name), Watched::new(Arc::clone(name), None));
            }
            if redefined {
                // What the old definition has found out does not count for the new one. What was
                // announced stays, so that its end is announced too.
                for watched in self.services.values_mut().filter(|watched| watched.check == *name) {
                    watched.last = None;
                    watched.freshness = Freshness::default();
                    watched.lasting = Lasting::default();
                    watched.service.redefined();
                }
                self.schedule.run_now(name, now.moment);
            }
            let Some(watched) = self.services.get_mut(name) else { continue };
            match &check.work {
                Work::Passive(passive) => {
                    let armed = watched.freshness.until().is_some() || watched.last.is_some();
                    if !armed || redefined {
                        watched.freshness.on_result(passive.freshness, now.moment);
                        self.stale_at = earlier(self.stale_at, watched.freshness.until());
                    }
                }
                Work::Native(_) | Work::Plugin(_) | Work::Jobs(_) | Work::Own => {
                    watched.freshness = Freshness::default();
                }
            }
        }
    }

    /// Ends a service. If alertd knows of it, alertd hears of that.
    pub(super) fn remove(&mut self, name: &Arc<str>, now: Now) {
        self.services.remove(name);
        self.outbox.push(now.wall, EventKind::Removed { service: name.to_string() });
        self.write_within(Duration::ZERO, now.moment);
    }

    pub(super) fn run_due(&mut self, now: Now) {
        while let Some(due) = self.schedule.poll_due(now.moment) {
            match due {
                Due::Run { name, late } => {
                    let Some(check) = self.config.checks.get(&name) else { continue };
                    let late = self.pauses.without(late);
                    let started = Started { name, definition: check.definition, late };
                    self.runner.start(started, &check.work, check.timeout, now.moment);
                }
                Due::StillStuck { name, stuck_for } => {
                    let text = format!("check has been hanging in the kernel for {} s", stuck_for.as_secs());
                    metrics::on_overrun(&name);
                    self.on_whole(&name, CheckResult::unknown(text), now);
                }
            }
        }
        self.runner.kick(now.moment);
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let now = self.clock.now();
        match report {
            Report::Finished { started: Started { name, definition, late }, outcome, cost } => {
                self.on_started(&name, late + cost.waited);
                let current = self.config.checks.get(&name).map(|check| check.definition);
                if current != Some(definition) {
                    // The check was changed or removed while it ran.
                    self.schedule.on_finished(&name, false, Duration::ZERO, now.moment);
                    self.schedule.run_now(&name, now.moment);
                    return;
                }
                if let Some(running) = self.running.get_mut(&name) {
                    running.took = cost.took;
                    if !running.excuse.counts() {
                        self.schedule.on_finished(&name, false, Duration::ZERO, now.moment);
                        self.schedule.run_now(&name, now.moment);
                        return;
                    }
                }
                let soft = self.judge(&name, outcome, now);
                self.schedule.on_finished(&name, soft, cost.cpu, now.moment);
            }
            Report::JobGone { service, pid } => self.on_job_gone(&service, pid, now),
            Report::Stuck { started: Started { name, late, .. }, result } => {
                self.on_started(&name, late);
                error!(check = &*name, "check hangs; it will not be started again until it ends");
                metrics::on_overrun(&name);
                self.on_whole(&name, result, now);
                self.schedule.on_stuck(&name, now.moment);
            }
            Report::Handled { service, result, took } => self.on_handled(&service, &result, took, now),
            Report::Released { name } => {
                info!(check = &*name, "the check that was hanging has ended");
                self.schedule.on_released(&name);
            }
        }
    }

    /// A run began this long after it was due: it waited for the loop, for other checks, and for a
    /// thread.
    fn on_started(&mut self, name: &Arc<str>, late: Duration) {
        self.lags.on_start(late);
        self.lag.on_start(name, late);
    }

    /// Judges what a run has read, with what is known from earlier runs. Returns whether a result
    /// must be confirmed soon.
    fn judge(&mut self, name: &Arc<str>, outcome: Judgement, now: Now) -> bool {
        let Some(running) = self.running.get_mut(name) else { return false };
        let findings = outcome.judge(&mut running.past, now.moment.0);
        let learnt = running.past.take_news();
        if learnt {
            self.write_within(SOFT_WITHIN, now.moment);
        }
        let mut blind = findings.blind;
        let mut found = BTreeSet::new();
        let mut soft = false;
        for finding in findings.list {
            let service = match finding.thing.as_deref() {
                None => Arc::clone(name),
                thing => service_name(name, thing),
            };
            let Some(check) = self.config.checks.get(name) else { return false };
            if check.settings(finding.thing.as_deref()).is_none() {
                blind.push(Blind {
                    thing: finding.thing.unwrap_or_default(),
                    why: "switched off in the config".to_owned(),
                });
                continue;
            }
            if !self.services.contains_key(&service) {
                if self.services.len() >= limits::SERVICES_MAX {
                    blind.push(Blind {
                        thing: finding.thing.unwrap_or_default(),
                        why: format!("the agent already watches {} services", limits::SERVICES_MAX),
                    });
                    continue;
                }
                let watched = Watched::new(Arc::clone(name), finding.thing.clone());
                self.services.insert(Arc::clone(&service), watched);
            }
            soft |= self.on_finding(&service, finding.result, finding.lasting, now);
            found.insert(service);
        }
        blind.sort();
        if findings.all {
            self.miss(name, &found, now);
        }
        if let Some(running) = self.running.get_mut(name) {
            running.blind = blind;
        }
        soft
    }

    /// Ends the services of a check whose things are gone. One run that misses a thing may be a
    /// race with whoever removes it and puts it back.
    fn miss(&mut self, check: &Arc<str>, found: &BTreeSet<Arc<str>>, now: Now) {
        let mut gone = Vec::new();
        // The services of a check are named after it: `disk`, `disk /`, `disk /var`.
        let named = self.services.range_mut::<str, _>((Bound::Included(&**check), Bound::Unbounded));
        let named = named.take_while(|(name, _)| name.starts_with(&**check));
        for (name, watched) in named.filter(|(_, watched)| watched.check == *check) {
            watched.missing = if found.contains(name) { 0 } else { watched.missing.saturating_add(1) };
            if watched.missing >= MISSING_MAX {
                gone.push(Arc::clone(name));
            }
        }
        for name in gone {
            info!(service = &*name, "no longer exists; no longer checked");
            self.remove(&name, now);
        }
    }

    /// A result of the check as a whole, which may have no service of its own as long as it works.
    fn on_whole(&mut self, name: &Arc<str>, result: CheckResult, now: Now) {
        if !self.services.contains_key(name) {
            self.services.insert(Arc::clone(name), Watched::new(Arc::clone(name), None));
        }
        self.on_finding(name, result, None, now);
    }

    pub(super) fn on_result(&mut self, service: &Arc<str>, result: CheckResult, now: Now) {
        self.on_finding(service, result, None, now);
    }

    /// Applies a result to a service and announces what follows. Returns whether the result must
    /// be confirmed soon.
    fn on_finding(
        &mut self,
        service: &Arc<str>,
        result: CheckResult,
        lasting: Option<Duration>,
        now: Now,
    ) -> bool {
        let Some(watched) = self.services.get_mut(service) else { return false };
        let Some(check) = self.config.checks.get(&watched.check) else { return false };
        let Some(settings) = check.settings(watched.thing.as_deref()) else { return false };
        let grace = now.moment < self.grace_until && !matches!(check.work, Work::Passive(_) | Work::Jobs(_));
        let lasting = settings.lasting.or(if settings.counts { None } else { lasting });
        let (confirm, counts) = match lasting {
            Some(span) => (watched.lasting.on_result(result.state, span, now.moment), false),
            None => (Confirm::After(settings.max_attempts), true),
        };
        let confirm = if grace { Confirm::NotYet } else { confirm };
        watched.must_last = lasting;
        for (at, perf) in result.perfdata.iter().enumerate() {
            let Some(value) = perf.value.filter(|value| value.is_finite()) else { continue };
            if at == 0 {
                watched.recent.record(value, now.moment);
            }
            self.samples.push(Sample {
                key: Key { service: service.to_string(), label: perf.label.clone() },
                unit: perf.unit.clone(),
                value,
                max: perf.max,
                at: now.wall,
            });
        }
        let before = (watched.service.status(), watched.service.flapping());
        let rules = Rules { confirm, flapping: settings.flapping };
        let transition = watched.service.on_result(&result, rules, now.wall);
        let result = Arc::new(result);
        watched.last = Some(Last { result: Arc::clone(&result), at: Some(now.wall) });
        let soft = watched.service.status().is_soft();
        if let Some(handler) = &settings.handler
            && !grace
        {
            match watched.handler.decide(handler, before.0, watched.service.status(), now.moment) {
                Decision::Run => {
                    info!(service = &**service, "running the handler: {}", handler.words);
                    watched.handled = Some((now.moment, format!("handler running: {}", handler.words)));
                    self.runner.handle(Arc::clone(service), &watched.check, result.state, handler);
                }
                Decision::Skip(why) => {
                    info!(service = &**service, "the handler does not run: {why}");
                    watched.handled = Some((now.moment, format!("handler not run: {why}")));
                }
                Decision::Nothing => {}
            }
        }
        let changed = before != (watched.service.status(), watched.service.flapping());
        let is_old = watched.said_at.is_none_or(|at| now.moment.since(at) >= REWORD_INTERVAL);
        let reworded = if transition.is_none() && is_old { watched.service.reworded(&result) } else { None };
        let is_news = transition.is_some();
        if let Some(mut transition) = transition.or(reworded) {
            watched.said_at = Some(now.moment);
            if let Some((at, did)) = &watched.handled {
                let mut line = did.clone();
                if transition.now.problem.is_none() {
                    let _ = write!(line, "; recovered after {}", Span::secs(now.moment.since(*at).as_secs()));
                }
                append(&mut transition.now.said.detail, &line);
            }
            if transition.now.problem.is_none() {
                watched.handled = None;
            }
            if let Some((line, span)) = watched.recent.sparkline() {
                append(&mut transition.now.said.detail, &format!("last {}: {line}", Span(span)));
            }
            if let Some(line) = self.history.as_ref().and_then(|history| week_ago(history, service, &result))
            {
                append(&mut transition.now.said.detail, &line);
            }
            if is_news {
                info!(
                    service = &**service,
                    from = transition.from.name(),
                    to = transition.now.state().name(),
                    flapping = transition.now.flapping,
                    "{}",
                    transition.now.said.summary
                );
            }
            let labels = labels(&watched.check, watched.thing.as_deref(), settings);
            let about = About { name: service, labels: &labels, annotations: &settings.annotations };
            let dropped = self.outbox.dropped();
            self.outbox.push(now.wall, report::transition(about, &transition));
            if self.outbox.dropped() > dropped {
                error!(dropped = self.outbox.dropped(), "the spool is full; the oldest events are lost");
            }
            self.write_within(if is_news { Duration::ZERO } else { SOFT_WITHIN }, now.moment);
        } else if changed || before.1 {
            self.write_within(SOFT_WITHIN, now.moment);
        }
        soft && counts
    }

    /// A handler has ended: what it did goes into the incident, and the service is checked again.
    fn on_handled(&mut self, service: &Arc<str>, result: &CheckResult, took: Duration, now: Now) {
        let Some(watched) = self.services.get_mut(service) else { return };
        watched.handler.on_ended();
        let name = Arc::clone(&watched.check);
        let Some(check) = self.config.checks.get(&name) else { return };
        let Some(settings) = check.settings(watched.thing.as_deref()) else { return };
        let words = settings.handler.as_ref().map_or("", |handler| handler.words.as_str());
        let at = now.wall.to_zoned(TimeZone::system()).strftime("%H:%M").to_string();
        let after = Span::secs(took.as_secs());
        let did = if result.state == State::Ok {
            format!("handler ran at {at}: {words} (done after {after})")
        } else {
            format!("handler failed at {at}: {words} ({} after {after})", result.summary)
        };
        let worked = result.state == State::Ok;
        metrics::on_handler(service, worked);
        if worked {
            info!(service = &**service, "{did}");
        } else {
            warn!(service = &**service, "{did}");
        }
        watched.handled = Some((now.moment, did.clone()));
        if let Some(announced) = watched.service.announced().filter(|announced| announced.problem.is_some()) {
            // The same state again, with what was done about it.
            let mut announced = announced.clone();
            append(&mut announced.said.detail, &did);
            let labels = labels(&watched.check, watched.thing.as_deref(), settings);
            let about = About { name: service, labels: &labels, annotations: &settings.annotations };
            let again = Transition { from: announced.state(), now: announced };
            self.outbox.push(now.wall, report::transition(about, &again));
            self.write_within(Duration::ZERO, now.moment);
        }
        self.schedule.run_now(&name, now.moment);
    }

    /// Hands the values of some seconds to the history, which keeps one row a minute. Each time,
    /// its thread wakes up.
    pub(super) fn remember(&mut self, now: Now) {
        let waits = self.samples.len() < SAMPLES_MAX && now.moment < self.samples_due;
        if self.samples.is_empty() || waits {
            return;
        }
        self.hand_over();
        self.samples_due = now.moment + SAMPLES_WITHIN;
    }

    pub(super) fn hand_over(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        if let Some(history) = &self.history {
            history.record(samples);
        }
    }

    /// The agent's own service.
    pub(super) fn check_self(&mut self, now: Now) {
        let own: Vec<_> = self
            .config
            .checks
            .iter()
            .filter(|(_, check)| matches!(check.work, Work::Own))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        self.refused_jobs.expire(now.moment);
        let refused = self.refused_jobs.said(JOBS_MAX);
        let waiting = self.schedule.longest_waiting(now.moment);
        let seen = Seen {
            checks: self.config.checks.len(),
            services: self.services.len(),
            waiting: waiting.map(|(name, _, waits)| (&**name, self.pauses.without(waits))),
            config_problem: self.config_problem.as_deref(),
            disk_problem: self.disk.problem(),
            dropped: self.outbox.dropped(),
            spooled: self.outbox.depth(),
            refused_jobs: refused.as_deref(),
        };
        let result = self.lag.judge(seen);
        for name in own {
            self.on_result(&name, result.clone(), now);
        }
    }

    /// The check of a service.
    pub(super) fn check_of(&self, service: &str) -> Option<&config::Check> {
        self.config.checks.get(&self.services.get(service)?.check)
    }

    /// Makes passive services UNKNOWN whose last result has become stale.
    pub(super) fn expire(&mut self, now: Now) {
        if self.stale_at.is_none_or(|at| now.moment < at) {
            return;
        }
        let stale: Vec<Arc<str>> = self
            .services
            .iter_mut()
            .filter_map(|(name, watched)| watched.freshness.poll_stale(now.moment).then(|| Arc::clone(name)))
            .collect();
        for name in stale {
            let is_job = self.check_of(&name).is_some_and(|check| matches!(check.work, Work::Jobs(_)));
            let at = self.services.get(&name).and_then(|watched| watched.last.as_ref()?.at);
            let result = match (is_job, at) {
                (true, Some(at)) => {
                    CheckResult::new(State::Critical, format!("is late: it has not run since {at:.0}"))
                }
                (true, None) => CheckResult::new(State::Critical, "is late: it began and has not ended"),
                (false, Some(at)) => CheckResult::unknown(format!("stale: the last result is from {at:.0}")),
                (false, None) => CheckResult::unknown("stale: no result was submitted in time"),
            };
            self.on_result(&name, result, now);
            // Nothing has run.
            if let Some(last) = self.services.get_mut(&name).and_then(|watched| watched.last.as_mut()) {
                last.at = at;
            }
            if is_job {
                continue;
            }
            let retry = self.check_of(&name).map(|check| check.timing.retry_interval);
            if let (Some(retry), Some(watched)) = (retry, self.services.get_mut(&name))
                && watched.service.status().is_soft()
            {
                watched.freshness.again_after(retry, now.moment);
            }
        }
        self.stale_at = self.services.values().filter_map(|watched| watched.freshness.until()).min();
    }

    /// After a suspend, much is still starting up, as after a boot.
    pub(super) fn notice_sleep(&mut self, now: Now) {
        let asleep = self.clock.asleep();
        let slept = asleep.saturating_sub(self.asleep);
        if slept > SHORT_SLEEP {
            info!(suspended_s = slept.as_secs(), "the host was suspended; problems stay soft for a while");
            self.grace_until = now.moment + self.config.agent.boot_grace;
        }
        self.asleep = asleep;
    }

    /// After a pause of the agent itself, what was running has not had its time, and results that
    /// were submitted meanwhile are still on their way.
    pub(super) fn notice_pause(&mut self, now: Now) {
        let Some(pause) = self.pauses.on_wake(now.moment) else { return };
        info!(
            paused_s = pause.as_secs(),
            "the agent did not run for a while; what ran meanwhile is run again"
        );
        self.runner.forgive(pause);
        for name in self.schedule.running() {
            if let Some(running) = self.running.get_mut(name) {
                running.excuse.on_pause();
            }
        }
        let earliest = now.moment + AFTER_PAUSE;
        for watched in self.services.values_mut() {
            watched.freshness.not_before(earliest);
        }
        self.stale_at = self.services.values().filter_map(|watched| watched.freshness.until()).min();
    }

    /// Adds built-in checks for what appeared after the start, like the DNS cache or swap.
    pub(super) fn look_again(&mut self, now: Now) {
        if now.moment < self.next_look {
            return;
        }
        self.next_look = now.moment + LOOK_INTERVAL;
        self.check_self(now);
        if !self.config.auto_checks || self.config_problem.is_some() {
            return;
        }
        if let Ok(config) = config::load(&self.config_path, &self.host)
            && config.auto_checks
        {
            let mut found = false;
            for (name, check) in config.checks {
                let built_in = matches!(check.origin, config::Origin::Auto | config::Origin::Changed { .. });
                if built_in && !self.config.checks.contains_key(&name) {
                    self.config.absent.remove(&name);
                    info!(check = &*name, "found on this host; built-in check added");
                    self.config.checks.insert(name, check);
                    found = true;
                }
            }
            if found {
                self.watch(now);
            }
        }
    }
}

pub(super) fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    a.into_iter().chain(b).min()
}

pub(super) fn append(detail: &mut String, line: &str) {
    if !detail.is_empty() {
        detail.push('\n');
    }
    detail.push_str(line);
}

/// The service of a thing, or of the check as a whole.
pub(super) fn service_name(check: &str, thing: Option<&str>) -> Arc<str> {
    match thing {
        Some(thing) => format!("{check} {thing}").into(),
        None => check.into(),
    }
}

/// alertd gets a new text of a problem that goes on at most this often, so that whoever is notified
/// later reads how it is, and a host with many problems costs alertd little.
const REWORD_INTERVAL: Duration = Duration::from_mins(5);

/// In how many runs in a row a thing must be missing to be gone.
const MISSING_MAX: u8 = 2;

/// When a soft attempt is on disk. A kill may cost one attempt, but never a transition.
pub(super) const SOFT_WITHIN: Duration = Duration::from_secs(1);
/// What the first value is, and what it was in the same hour a week ago.
fn week_ago(history: &Writer, service: &str, result: &CheckResult) -> Option<String> {
    let perf = result.perfdata.first()?;
    let value = perf.value.filter(|value| value.is_finite())?;
    let key = Key { service: service.to_owned(), label: perf.label.clone() };
    let before = f64::from(history.a_week_ago(&key)?);
    let (value, before) = (plot::value(value, &perf.unit), plot::value(before, &perf.unit));
    Some(format!("{} now {value}, in this hour a week ago {before}", perf.label))
}

/// How long values wait for others before the history gets them, while the loop is awake anyway.
const SAMPLES_WITHIN: Duration = Duration::from_secs(5);
const SAMPLES_MAX: usize = 1_000;
/// No submitted result becomes stale so soon after a pause.
const AFTER_PAUSE: Duration = Duration::from_secs(30);
/// A shorter suspend does not matter.
const SHORT_SLEEP: Duration = Duration::from_mins(1);
