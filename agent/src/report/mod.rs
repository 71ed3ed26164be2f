//! From what the agent believes to what alertd is told: one place that knows both sides' types.

pub mod outbox;
pub mod spool;
