//! Named points at which a test can end the process as SIGKILL would: no unwinding, no flush, no goodbye.
//!
//! `ALERTD_CRASH_AT=NAME` or `NAME:N` aborts at the first or Nth passage of a point:
//!
//! | point | has happened | has not |
//! | --- | --- | --- |
//! | `decided` | the core took its inputs | commit: the agent was not answered, it sends again |
//! | `committed` | alert, timers, outbox row and lease are durable | answer to the agent, sending |
//! | `leased` | the same, in the delivery task | sending |
//! | `sent` | the receiver took it | that is recorded: it will be sent again under the same id |
//! | `recorded` | the outcome is durable | – |
//!
//! The variable is read once; without it a point costs one load and a branch.

use std::{
    env, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

struct Plan {
    name: String,
    left: AtomicU64,
}

fn read() -> Option<Plan> {
    let text = env::var("ALERTD_CRASH_AT").ok()?;
    let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
    tracing::warn!(point = name, "ALERTD_CRASH_AT is set: this alertd is going to crash on purpose");
    Some(Plan { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1).max(1)) })
}

/// Ends the process here if the test asked for it.
pub fn point(name: &str) {
    let Some(plan) = PLAN.get_or_init(read) else { return };
    if plan.name == name && plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        process::abort();
    }
}
