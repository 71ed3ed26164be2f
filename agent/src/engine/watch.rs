//! The part of the loop that runs checks and turns their results into announcements.

use std::{sync::Arc, time::Duration};

use dogwatch_checks::CheckResult;
use dogwatch_wire::EventKind;
use tracing::{error, info};

use super::{Engine, LOOK_INTERVAL, Last};
use crate::{
    config::{self, Work},
    metrics,
    moment::Now,
    report::{self, About},
    runner::Report,
    schedule::Due,
    service::Rules,
    status::Confirm,
};

impl Engine {
    /// Updates the schedule and the services from the config.
    pub(super) fn watch(&mut self, now: Now) {
        let timings = self.config.checks.iter().filter_map(|(name, check)| match check.work {
            Work::Passive(_) => None,
            Work::Native(_) | Work::Plugin(_) => Some((name, check.timing)),
        });
        self.schedule.apply(timings, now.moment);
        let gone: Vec<_> =
            self.services.keys().filter(|name| !self.config.checks.contains_key(*name)).cloned().collect();
        for name in gone {
            info!(check = &*name, "check removed");
            self.services.remove(&name);
            self.outbox.push(now.wall, EventKind::Removed { service: name.to_string() });
            self.write_within(Duration::ZERO, now.moment);
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

    pub(super) fn run_due(&mut self, now: Now) {
        while let Some(due) = self.schedule.poll_due(now.moment) {
            match due {
                Due::Run { name, late } => {
                    let Some(check) = self.config.checks.get(&name) else { continue };
                    if let Some(watched) = self.services.get_mut(&name) {
                        watched.running_since = Some(now.moment);
                    }
                    metrics::on_start(late);
                    self.runner.start(name, &check.work, check.timeout);
                }
                Due::StillStuck { name, stuck_for } => {
                    let text = format!("check has been hanging in the kernel for {} s", stuck_for.as_secs());
                    metrics::on_overrun(&name);
                    self.on_result(&name, CheckResult::unknown(text), now);
                }
            }
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        let now = self.clock.now();
        match report {
            Report::Finished { name, result, cpu } => {
                self.on_result(&name, result, now);
                let soft = self.services.get(&name).is_some_and(|watched| watched.service.status().is_soft());
                self.schedule.on_finished(&name, soft, cpu, now.moment);
            }
            Report::Stuck { name, result } => {
                error!(check = &*name, "check hangs; it will not be started again until it ends");
                metrics::on_overrun(&name);
                self.on_result(&name, result, now);
                self.schedule.on_stuck(&name, now.moment);
            }
            Report::Released { name } => {
                info!(check = &*name, "the check that was hanging has ended");
                self.schedule.on_released(&name);
            }
        }
    }

    pub(super) fn on_result(&mut self, name: &Arc<str>, result: CheckResult, now: Now) {
        let (Some(check), Some(watched)) = (self.config.checks.get(name), self.services.get_mut(name)) else {
            // The check was removed while it ran.
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
                error!(dropped = self.outbox.dropped(), "the spool is full; the oldest events are lost");
            }
            self.write_within(Duration::ZERO, now.moment);
        } else if changed || before.1 {
            self.write_within(SOFT_WITHIN, now.moment);
        }
        self.measure(name, now);
    }

    /// Makes passive services UNKNOWN whose last result has become stale.
    pub(super) fn expire(&mut self, now: Now) {
        let stale: Vec<Arc<str>> = self
            .services
            .iter_mut()
            .filter_map(|(name, watched)| watched.freshness.poll_stale(now.moment).then(|| Arc::clone(name)))
            .collect();
        for name in stale {
            let last = self.services.get(&name).and_then(|watched| watched.last.as_ref());
            let text = match last {
                Some(last) => format!("stale: the last result is from {:.0}", last.at),
                None => "stale: no result was submitted in time".to_owned(),
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

    /// Adds built-in checks for what appeared after the start, like the DNS cache or swap.
    pub(super) fn look_again(&mut self, now: Now) {
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

/// When a soft attempt is on disk. A kill may cost one attempt, but never a transition.
pub(super) const SOFT_WITHIN: Duration = Duration::from_secs(1);
/// A shorter suspend does not matter.
const SHORT_SLEEP: Duration = Duration::from_mins(1);
