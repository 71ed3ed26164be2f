//! Times in the store that cannot be, because it was written while the clock was ahead.
//!
//! What has happened cannot be later than now, and nothing waits longer than its rule permits. Both
//! are true for a store that was written by a right clock, so nothing changes then. Otherwise a
//! page would wait until a wrong clock's tomorrow, which may be years away.
//!
//! Times that people chose (the ends of silences, acks and downtimes) are left alone.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    Loaded,
    rules::{
        incident::Incident,
        moment::later,
        outbox::{Row, RowState, WAIT_MAX},
    },
};

/// Corrects what was loaded.
pub(crate) fn clamp(loaded: &mut Loaded, now: Timestamp) {
    for (_, agent) in &mut loaded.agents {
        past(&mut agent.last_heard_at, now);
        agent.back_at.as_mut().into_iter().for_each(|at| past(at, now));
        if let Some(doubt) = &mut agent.doubt {
            due(&mut doubt.until, now, DOUBT_MAX);
        }
    }
    for (_, alert) in &mut loaded.alerts {
        past(&mut alert.since, now);
        alert.resolved_at.as_mut().into_iter().for_each(|at| past(at, now));
    }
    loaded.incidents.iter_mut().for_each(|incident| clamp_incident(incident, now));
    for (_, _, told) in &mut loaded.told {
        past(&mut told.first_at, now);
        past(&mut told.last_at, now);
    }
    loaded.outbox.iter_mut().for_each(|row| clamp_row(row, now));
    loaded.spent.retain(|(_, at)| *at <= now);
}

fn clamp_incident(incident: &mut Incident, now: Timestamp) {
    past(&mut incident.opened_at, now);
    for at in [&mut incident.resolved_at, &mut incident.last_flush].into_iter().flatten() {
        past(at, now);
    }
    if let Some(at) = &mut incident.flush_at {
        due(at, now, incident.timing.group_wait.max(incident.timing.group_interval));
    }
    incident.escalation.not_after(now);
    incident.pages.iter_mut().for_each(|page| page.run.not_after(now));
    if let Some(ack) = &mut incident.ack {
        past(&mut ack.at, now);
    }
}

fn clamp_row(row: &mut Row, now: Timestamp) {
    match &mut row.state {
        // Whoever waits for it has waited long enough.
        RowState::Queued { not_before } if *not_before > later(now, WAIT_MAX) => *not_before = now,
        RowState::Leased { until } => due(until, now, WAIT_MAX),
        RowState::Queued { .. }
        | RowState::Accepted
        | RowState::Delivered
        | RowState::Failed
        | RowState::Superseded
        | RowState::Digested { .. } => {}
    }
    for at in [&mut row.first_try_at, &mut row.settled_at].into_iter().flatten() {
        past(at, now);
    }
}

fn past(at: &mut Timestamp, now: Timestamp) {
    *at = (*at).min(now);
}

fn due(at: &mut Timestamp, now: Timestamp, most: Duration) {
    *at = (*at).min(later(now, most));
}

/// Two agents that share an id are told apart sooner.
const DOUBT_MAX: Duration = Duration::from_hours(1);
