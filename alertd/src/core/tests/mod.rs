//! The core in virtual time: timelines, and a model with random faults.

mod config;
mod downtime_timelines;
mod model;
mod model_limits;
mod model_rota;
mod model_suppress;
mod play;
mod rota_timelines;
mod silence_timelines;
mod storm_timelines;
mod suppress_timelines;
mod timelines;

use jiff::Timestamp;

use crate::core::rules::notification::{Kind, Notification};

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
