//! The core in virtual time: timelines, and a model with random faults.

mod clock_timelines;
mod config;
mod downtime_timelines;
mod mass_timelines;
mod model;
mod model_limits;
mod model_rota;
mod model_shared_id;
mod model_suppress;
mod play;
mod rota_timelines;
mod shared_id_timelines;
mod silence_timelines;
mod storm_timelines;
mod suppress_timelines;
mod timelines;

use std::hash::RandomState;

use jiff::{Timestamp, tz::TimeZone};

use crate::rules::notification::{Kind, Notification};

pub(crate) fn notification(created_at: Timestamp) -> Notification {
    Notification {
        id: String::new(),
        incident: 1,
        dedup_key: String::new(),
        receiver: "mail".into(),
        kind: Kind::Problem,
        reason: String::new(),
        created_at,
        group: [].into(),
        firing: Vec::new(),
        resolved: Vec::new(),
        digest: Vec::new(),
        summary: None,
        ack: None,
        note: None,
        lately: Vec::new(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is its own shell, which draws the key")]
pub(crate) fn hash_key() -> RandomState {
    RandomState::new()
}

#[expect(clippy::disallowed_methods, reason = "a test is its own shell, which looks names of time zones up")]
pub(crate) fn time_zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}
