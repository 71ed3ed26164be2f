//! The part of the loop that reports to alertd.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_checks::State;
use dogwatch_wire::{Batch, BatchReply, Heartbeat, PROTOCOL, ServiceState, digest};
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
        Batch {
            protocol: PROTOCOL,
            agent: self.agent_id.clone(),
            host: self.config.agent.host.clone(),
            epoch: format!("{:016x}", self.epoch),
            run: self.process.run.clone(),
            boot: self.process.boot.clone(),
            sent_at: now.wall,
            events: next.events,
            heartbeat,
            states: next.states.then(|| self.states()),
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

    fn states(&self) -> Vec<ServiceState> {
        let mut states = Vec::with_capacity(self.services.len());
        for (name, watched) in &self.services {
            let Some(check) = self.config.checks.get(&watched.check) else { continue };
            let Some(settings) = check.settings(watched.thing.as_deref()) else { continue };
            let labels = labels(&watched.check, watched.thing.as_deref(), settings);
            let about = About { name, labels: &labels, annotations: &settings.annotations };
            states.push(report::service_state(about, watched.service.announced(), self.started_at));
        }
        report::fit(&mut states);
        states
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

/// As for labels in the config.
const LABEL_BYTES_MAX: usize = 256;
