//! The part of the loop that answers requests: the status.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use dogwatch_checks::State;

use super::{Engine, JOBS_MAX, Watched, watch::append};
use crate::{
    api::{Ask, BlindStatus, ServiceStatus, SpoolStatus, Status},
    config::{Check, Settings, Work},
    history::writer::Writer,
    measures::{Measures, OwnMeasures, ServiceMeasures},
    moment::Now,
    status::Status as Belief,
};

/// The detail of the last result, and what the handler did about the problem.
fn detail(watched: &Watched) -> String {
    let mut detail = watched.last.as_ref().map(|last| last.result.detail.clone()).unwrap_or_default();
    if let Some((_, did)) = &watched.handled {
        append(&mut detail, did);
    }
    detail
}

impl Engine {
    pub(super) fn on_ask(&mut self, ask: Ask) {
        match ask {
            // If the caller is gone, it does not need the answer.
            Ask::Status(answer) => drop(answer.send(self.status())),
            Ask::Measures { after, answer } => drop(answer.send(self.measures(after))),
            Ask::Forget { forget, peer, answer } => drop(answer.send(self.forget(&forget, &peer))),
            Ask::Start { start, peer, answer } => drop(answer.send(self.start_job(&start, &peer))),
            Ask::Submit { submit, peer, answer } => drop(answer.send(self.submit(&submit, &peer))),
        }
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let services =
            self.services.iter().filter_map(|(name, watched)| self.service_status(name, watched, now));
        let mut services: Vec<_> = services.collect();
        // A check that has not found its things yet.
        let heard: BTreeSet<&str> = self.services.values().map(|watched| &*watched.check).collect();
        let silent = self.config.checks.iter().filter(|(name, check)| {
            let runs = matches!(check.work, Work::Native(_));
            runs && check.has_things && !heard.contains(&***name)
        });
        services.extend(silent.filter_map(|(name, check)| {
            let done = self.running.get(name).is_some_and(|running| !running.took.is_zero());
            let nothing = Watched::new(Arc::clone(name), None);
            (!done).then(|| self.status_of(name, check, &check.settings, &nothing, now))
        }));
        services.sort_by(|a, b| a.service.cmp(&b.service));
        let blind = self.running.iter().flat_map(|(name, running)| {
            running.blind.iter().map(|blind| BlindStatus {
                check: name.to_string(),
                thing: blind.thing.clone(),
                why: blind.why.clone(),
            })
        });
        let absent = self.config.absent.iter().map(|(name, why)| BlindStatus {
            check: name.to_string(),
            thing: "all".to_owned(),
            why: why.clone(),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.config.agent.host.clone(),
            agent: self.agent_id.clone(),
            started_at: self.started_at,
            warnings: self.warnings(now),
            services,
            blind: blind.chain(absent).collect(),
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
            warnings.push(format!("invalid config; the running config is unchanged: {problem}"));
        }
        warnings.extend(self.config.warnings());
        warnings.extend(self.metrics_problem.clone());
        if let Some(problem) = self.disk.problem() {
            warnings.push(format!("cannot write the spool: {problem}; events are only in memory"));
        }
        if self.outbox.failures() > 0 {
            let events = self.outbox.depth();
            let noun = if events == 1 { "event" } else { "events" };
            warnings.push(format!("cannot report to alertd; {events} {noun} queued"));
        }
        if self.outbox.dropped() > 0 {
            warnings.push(format!("{} events were lost because the spool was full", self.outbox.dropped()));
        }
        warnings.extend(self.refused_jobs.said(JOBS_MAX));
        if now.moment < self.grace_until {
            let left = self.grace_until.since(now.moment).as_secs();
            warnings.push(format!("the host has just booted or resumed; problems stay soft for {left} s"));
        }
        warnings
    }

    fn service_status(&self, name: &Arc<str>, watched: &Watched, now: Now) -> Option<ServiceStatus> {
        let check = self.config.checks.get(&watched.check)?;
        let settings = check.settings(watched.thing.as_deref())?;
        Some(self.status_of(name, check, settings, watched, now))
    }

    fn status_of(
        &self,
        name: &Arc<str>,
        check: &Check,
        settings: &Settings,
        watched: &Watched,
        now: Now,
    ) -> ServiceStatus {
        let service = &watched.service;
        let last = watched.last.as_ref();
        let announced = service.announced();
        let believed = believed(service.status());
        let pending = last.is_none() && believed == State::Ok;
        let next = self.schedule.next_run(&watched.check).or_else(|| watched.freshness.until());
        let output = match (last, announced) {
            (Some(last), _) => last.result.summary.clone(),
            (None, Some(announced)) => announced.said.summary.clone(),
            (None, None) => String::new(),
        };
        let took = match &check.work {
            Work::Native(_) | Work::Plugin(_) => {
                self.running.get(&watched.check).map(|running| running.took.as_secs_f64())
            }
            // As `dogwatch job` measured it.
            Work::Jobs(_) => last.and_then(|last| {
                last.result.perfdata.iter().find(|perf| perf.label == "duration" && perf.unit == "s")?.value
            }),
            Work::Passive(_) | Work::Own => None,
        };
        let lasted = watched.lasting.lasted(now.moment).filter(|_| watched.must_last.is_some());
        ServiceStatus {
            service: name.to_string(),
            check: watched.check.to_string(),
            thing: watched.thing.clone(),
            kind: check.kind.clone(),
            origin: check.origin.to_string(),
            state: if pending { "PENDING".to_owned() } else { believed.name().to_owned() },
            state_type: if service.status().is_soft() { "SOFT" } else { "HARD" }.to_owned(),
            attempt: service.status().attempt(settings.max_attempts),
            max_attempts: settings.max_attempts,
            must_last_s: watched.must_last.map(|span| span.as_secs_f64()),
            lasted_s: lasted.map(|span| span.as_secs_f64()),
            flapping: service.flapping(),
            flapping_percent: service.flapping_percent(),
            since: announced.map(|announced| announced.since),
            last_run: last.and_then(|last| last.at),
            next_run: next.and_then(|next| now.wall.checked_add(next.since(now.moment)).ok()),
            duration_s: last.and(took),
            output,
            detail: detail(watched),
            perfdata: last.map(|last| last.result.perfdata_text()).unwrap_or_default(),
        }
    }

    /// For the metrics page. A service without a result has no state to show.
    fn measures(&self, after: Option<Arc<str>>) -> Measures {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.services.range((from, Bound::Unbounded));
        let some: Vec<_> = rest.by_ref().take(MEASURED_AT_ONCE).collect();
        let more = rest.next().is_some();
        Measures {
            own: OwnMeasures {
                spool_events: self.outbox.depth(),
                spool_memory_bytes: self.outbox.bytes(),
                spool_file_bytes: self.disk.spool_bytes(),
                dropped_events: self.outbox.dropped(),
                history_dropped: self.history.as_ref().map_or(0, Writer::dropped),
                config_ok: self.config_problem.is_none(),
            },
            more_after: some.last().filter(|_| more).map(|(name, _)| Arc::clone(name)),
            services: some.into_iter().filter_map(|(name, watched)| self.measured(name, watched)).collect(),
        }
    }

    fn measured(&self, name: &Arc<str>, watched: &Watched) -> Option<ServiceMeasures> {
        let settings = self.config.checks.get(&watched.check)?.settings(watched.thing.as_deref())?;
        let service = &watched.service;
        let (state, last) = (believed(service.status()), watched.last.as_ref());
        if last.is_none() && state == State::Ok {
            return None;
        }
        let took = self.running.get(&watched.check).map(|running| running.took);
        Some(ServiceMeasures {
            service: Arc::clone(name),
            state,
            hard: !service.status().is_soft(),
            attempt: service.status().attempt(settings.max_attempts),
            flapping: service.flapping(),
            skipped: self.schedule.skipped(&watched.check),
            took: last.and(took),
            last: last
                .and_then(|last| Some((Arc::clone(&last.result), last.at?.as_duration().as_secs_f64()))),
        })
    }
}

fn believed(status: Belief) -> State {
    match status {
        Belief::Ok => State::Ok,
        Belief::Soft { problem, .. } | Belief::Hard(problem) => problem.into(),
    }
}

/// How many services are measured in one turn of the loop, which takes less than a millisecond.
const MEASURED_AT_ONCE: usize = 1_000;
