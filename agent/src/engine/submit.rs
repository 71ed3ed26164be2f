//! The part of the loop that takes results from outside: `dogwatch submit` and `dogwatch job`.

use std::{sync::Arc, time::Duration};

use dogwatch_checks::{CheckResult, State, output};
use dogwatch_daemon::{config::closest, duration::Span, unix_http::Peer};
use dogwatch_wire::limits;
use tracing::warn;

use super::{
    Engine, JOBS_MAX, TTL_MAX, Watched,
    watch::{SOFT_WITHIN, earlier},
};
use crate::{
    api::{Forget, Refused, Start, Submit},
    config::{Passive, Work},
    metrics,
    moment::Now,
};

/// As for the names of checks, and `job `.
const NAME_BYTES_MAX: usize = 104;
/// How many runs of one job are followed at once.
const RUNS_MAX: usize = 16;

/// Root, the agent's own user, and those that the config names.
fn may_submit(passive: &Passive, peer: &Peer) -> bool {
    let own = rustix::process::geteuid().as_raw();
    peer.uid == 0 || peer.uid == own || passive.submitters.contains(&peer.name())
}

impl Engine {
    pub(super) fn submit(&mut self, submit: &Submit, peer: &Peer) -> Result<(), Refused> {
        let now = self.clock.now();
        let state: State = submit.state.parse().map_err(Refused::Invalid)?;
        let (name, freshness) = self.accept(&submit.service, peer, now)?;
        let ttl = submit.ttl_s.map(Duration::from_secs).or(freshness).map(|ttl| ttl.min(TTL_MAX));
        if let Some(watched) = self.services.get_mut(&name) {
            watched.freshness.on_result(ttl, now.moment);
            self.stale_at = earlier(self.stale_at, watched.freshness.until());
            if let Some(pid) = peer.pid {
                watched.runs.remove(&pid);
            }
        }
        let result = output::parse(state, submit.text.as_bytes());
        self.write_within(SOFT_WITHIN, now.moment);
        self.on_result(&name, result, now);
        Ok(())
    }

    /// A job begins. One that has never ended is expected to end in time from now on.
    pub(super) fn start_job(&mut self, start: &Start, peer: &Peer) -> Result<(), Refused> {
        let now = self.clock.now();
        let (name, freshness) = self.accept(&start.service, peer, now)?;
        let ttl = start.ttl_s.map(Duration::from_secs).or(freshness).map(|ttl| ttl.min(TTL_MAX));
        let Some(watched) = self.services.get_mut(&name) else { return Ok(()) };
        if watched.last.is_none() && watched.freshness.until().is_none() {
            watched.freshness.on_result(ttl, now.moment);
            self.stale_at = earlier(self.stale_at, watched.freshness.until());
            self.write_within(SOFT_WITHIN, now.moment);
        }
        let Some(watched) = self.services.get_mut(&name) else { return Ok(()) };
        if let Some(pid) = peer.pid.filter(|_| watched.runs.len() < RUNS_MAX)
            && self.runner.watch_job(&name, pid)
        {
            watched.runs.insert(pid, now.moment);
        }
        Ok(())
    }

    /// `dogwatch job` has ended. If it has not reported, it was killed, and its command may go on.
    pub(super) fn on_job_gone(&mut self, service: &Arc<str>, pid: i32, now: Now) {
        let Some(began) = self.services.get_mut(service).and_then(|watched| watched.runs.remove(&pid)) else {
            return;
        };
        let after = Span::secs(now.moment.since(began).as_secs());
        let text = format!(
            "`dogwatch job` (process {pid}) was killed after {after}: the command may still run, and its end will \
             not be reported"
        );
        self.write_within(SOFT_WITHIN, now.moment);
        self.on_result(service, CheckResult::new(State::Critical, text), now);
    }

    /// The service that a caller reports for, and for how long its results are valid.
    fn accept(
        &mut self,
        service: &str,
        peer: &Peer,
        now: Now,
    ) -> Result<(Arc<str>, Option<Duration>), Refused> {
        let (check_name, thing) = self.belongs_to(service);
        let Some(check) = self.config.checks.get(&check_name) else {
            let passive =
                self.config.checks.iter().filter(|(_, check)| matches!(check.work, Work::Passive(_)));
            let hint = closest(service, passive.map(|(name, _)| &**name))
                .map(|meant| format!("; did you mean {meant:?}?"))
                .unwrap_or_default();
            let message = format!(
                "no check {service:?}; add [check.{service:?}] kind = \"passive\" to the config{hint}"
            );
            return Err(Refused::NoSuchService(message));
        };
        let passive = match (&check.work, &thing) {
            (Work::Passive(passive), None) | (Work::Jobs(passive), Some(_)) => passive,
            (Work::Jobs(_), None) => {
                return Err(Refused::Invalid("a job needs a name".to_owned()));
            }
            _ => {
                let message = format!(
                    "check {check_name:?} is of kind {:?}; only passive checks accept results",
                    check.kind
                );
                return Err(Refused::Invalid(message));
            }
        };
        if !may_submit(passive, peer) {
            let message = format!(
                "user {:?} is not allowed to submit results for {service:?}; add the user to the submitters of [check.{check_name}]",
                peer.name(),
            );
            return Err(Refused::Forbidden(message));
        }
        let freshness = passive.freshness;
        let name: Arc<str> = service.into();
        if self.services.contains_key(&name) {
            return Ok((name, freshness));
        }
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) || name.trim() != &*name {
            let message = format!(
                "a name must have at most {NAME_BYTES_MAX} bytes, no control characters, and no spaces at its ends"
            );
            return Err(Refused::Invalid(message));
        }
        if check.settings(thing.as_deref()).is_none() {
            return Err(Refused::Invalid(format!("{service:?} is switched off in the config")));
        }
        let jobs = self.services.values().filter(|watched| watched.check == check_name).count();
        if jobs >= JOBS_MAX || self.services.len() >= limits::SERVICES_MAX {
            return Err(self.refuse_job(service, jobs, now));
        }
        self.refused_jobs.remove(service);
        self.services.insert(Arc::clone(&name), Watched::new(check_name, thing));
        Ok((name, freshness))
    }

    /// One job too many. The caller may be a cron job whose mail nobody reads.
    fn refuse_job(&mut self, service: &str, jobs: usize, now: Now) -> Refused {
        let message = if jobs >= JOBS_MAX {
            format!("there are already {jobs} jobs, which is the most; `dogwatch job --forget NAME` ends one")
        } else {
            format!("the agent already watches {} services, which is the most", self.services.len())
        };
        metrics::on_refused_job();
        if self.refused_jobs.on_refused(service, now.moment) {
            warn!(service, "a job is not watched: {message}");
            self.check_self(now);
        }
        Refused::Invalid(message)
    }

    /// Ends the service of a job that no longer runs.
    pub(super) fn forget(&mut self, forget: &Forget, peer: &Peer) -> Result<(), Refused> {
        let now = self.clock.now();
        let name: Arc<str> = forget.service.as_str().into();
        let (check, _) = self.belongs_to(&name);
        let passive = self.config.checks.get(&check).and_then(|check| match &check.work {
            Work::Jobs(passive) => Some(passive),
            _ => None,
        });
        let known = self.services.contains_key(&name) || self.refused_jobs.knows(&name);
        let Some(passive) = passive.filter(|_| known) else {
            let message =
                format!("no job has reported as {:?}; `dogwatch status` lists the services", forget.service);
            return Err(Refused::NoSuchService(message));
        };
        if !may_submit(passive, peer) {
            return Err(Refused::Forbidden(format!("{} may not end {:?}", peer.name(), forget.service)));
        }
        if self.refused_jobs.remove(&name) {
            self.check_self(now);
        }
        if self.services.contains_key(&name) {
            self.remove(&name, now);
        }
        Ok(())
    }
}
