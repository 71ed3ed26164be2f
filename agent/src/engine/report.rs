//! The part of the loop that reports to alertd.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use dogwatch_checks::State;
use dogwatch_wire::{
    Batch, BatchReply, Heartbeat, PROTOCOL, PROTOCOL_PARTS, ServiceState, StatesPart, digest, limits,
};
use tracing::{error, info, warn};

use super::Engine;
use crate::{
    config::Settings,
    metrics,
    moment::Now,
    report::{
        self, About,
        client::NotTaken,
        outbox::{Failure, NextBatch, Verdict},
    },
    service::Announced,
};

impl Engine {
    pub(super) fn send(&mut self, now: Now) {
        let Some(next) = self.outbox.poll_send(now.moment) else { return };
        let batch = self.batch(next, now);
        if let Some(through) = batch.states_part.as_ref().and_then(|part| part.through.as_deref()) {
            self.outbox.on_part(through.into());
        }
        let (alertds, answers) = (self.alertds.clone(), self.answers.clone());
        tokio::spawn(async move {
            // In a task of its own, so that a panic in it counts as a failed batch.
            let sent = tokio::spawn(async move { alertds.send(&batch).await }).await;
            let answer = sent.unwrap_or_else(|error| {
                let reason = format!("the client panicked (a bug in dogwatch; please report it): {error}");
                Err(NotTaken { failure: Failure::Later { retry_after: None }, reason })
            });
            let _ = answers.send(answer).await;
        });
    }

    fn batch(&self, next: NextBatch, now: Now) -> Batch {
        let heartbeat = next.heartbeat.then(|| Heartbeat {
            digest: self.digest(),
            next_within_s: u32::try_from(self.config.alertd.heartbeat.as_secs()).unwrap_or(u32::MAX).max(1),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: u32::try_from(self.services.len()).unwrap_or(u32::MAX),
            changes: self.changes.known(),
        });
        let (states, states_part) =
            if next.states { self.states(next.states_after.as_ref()) } else { (None, None) };
        Batch {
            protocol: if states_part.is_some() { PROTOCOL_PARTS } else { PROTOCOL },
            agent: self.agent_id.clone(),
            host: self.config.agent.host.clone(),
            epoch: format!("{:016x}", self.epoch),
            run: self.process.run.clone(),
            boot: self.process.boot.clone(),
            sent_at: now.wall,
            events: next.events,
            heartbeat,
            states,
            states_part,
        }
    }

    fn start_epoch(&mut self, now: Now) {
        self.epoch = fastrand::u64(1..);
        self.outbox.start_epoch(now.moment);
        self.write_within(Duration::ZERO, now.moment);
    }

    fn digest(&self) -> String {
        digest(self.services.iter().map(|(name, watched)| {
            let announced = watched.service.announced();
            let state = announced.map_or(State::Ok, Announced::state);
            (&**name, state, announced.is_some_and(|announced| announced.flapping))
        }))
    }

    /// The states of all services. If there are too many for one body: of those after `after`, as
    /// many as have room, and which those are.
    fn states(&self, after: Option<&Arc<str>>) -> (Option<Vec<ServiceState>>, Option<StatesPart>) {
        let is_part = after.is_some() || self.services.len() > limits::STATES_MAX;
        let most = if is_part { STATES_IN_PART } else { limits::STATES_MAX };
        let begin = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Arc::clone(after)));
        let mut rest = self.services.range((begin, Bound::Unbounded));
        let some: Vec<_> = rest.by_ref().take(most).collect();
        let last = some.last().map(|(name, _)| name.to_string());
        let part = is_part.then(|| StatesPart {
            after: after.map(ToString::to_string).unwrap_or_default(),
            through: last.filter(|_| rest.next().is_some()),
        });
        let mut states = Vec::with_capacity(some.len());
        for (name, watched) in some {
            let Some(check) = self.config.checks.get(&watched.check) else { continue };
            let Some(settings) = check.settings(watched.thing.as_deref()) else { continue };
            let labels = labels(&watched.check, watched.thing.as_deref(), settings);
            let about = About { name, labels: &labels, annotations: &settings.annotations };
            states.push(report::service_state(about, watched.service.announced(), self.started_at));
        }
        report::fit(&mut states);
        (Some(states), part)
    }

    pub(super) fn on_answer(&mut self, answer: Result<BatchReply, NotTaken>) {
        let now = self.clock.now();
        let random = fastrand::f64();
        match answer {
            Ok(reply) => {
                let failing = self.outbox.failures() > 0;
                metrics::on_batch(true);
                match self.outbox.on_reply(&reply, now.moment, random) {
                    Verdict::Amnesia => {
                        error!(
                            acked = reply.acked_seq,
                            next = self.outbox.next_seq(),
                            "alertd has events that the spool does not have: the disk has lost them; starting a new epoch"
                        );
                        self.start_epoch(now);
                    }
                    Verdict::Copied => {
                        warn!(
                            "another host reports with the id of this one: they have the same machine id, as copies of one image do; on each copy run `rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup && systemctl restart dogwatch`"
                        );
                        self.start_epoch(now);
                    }
                    Verdict::Accepted if failing => info!("reports reach alertd again"),
                    Verdict::Accepted => {}
                }
            }
            Err(NotTaken { failure, reason }) => {
                metrics::on_batch(false);
                if self.outbox.failures() == 0 {
                    warn!(waiting = self.outbox.depth(), "cannot report to alertd: {reason}; trying again");
                }
                self.outbox.on_failure(failure, now.moment, random);
            }
        }
    }
}

/// The labels of a service: those of the config, and for a thing the check and the thing, so that
/// routes and silences need not take names apart.
pub(super) fn labels(check: &str, thing: Option<&str>, settings: &Settings) -> BTreeMap<String, String> {
    let mut labels = settings.labels.clone();
    if let Some(thing) = thing {
        labels.insert("check".to_owned(), check.to_owned());
        labels.insert("thing".to_owned(), report::cut(thing.to_owned(), LABEL_BYTES_MAX));
    }
    labels
}

/// So few that most keep their details ([`report::fit`]).
const STATES_IN_PART: usize = 500;

/// As for labels in the config.
const LABEL_BYTES_MAX: usize = 256;
