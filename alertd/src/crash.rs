//! Named points at which a test can end the process as SIGKILL would, without unwinding or
//! flushing.
//!
//! `ALERTD_CRASH_AT=NAME` or `NAME:N` aborts when a point is reached the first or the Nth time:
//!
//! | point | done | not done |
//! | --- | --- | --- |
//! | `decided` | the core has handled its inputs | commit; the agent gets no answer and sends again |
//! | `committed` | alert, timers, outbox row and lease are on disk | answer to the agent, sending |
//! | `leased` | the same, in the delivery task | sending |
//! | `sent` | the receiver has accepted the notification | recording that; it is sent again |
//! | `recorded` | the outcome is on disk | – |
//!
//! `ALERTD_HANG_AT` instead blocks the thread there forever: the loop's thread, or that of a
//! delivery for `leased` and `sent`.
//!
//! The variables are read once. Without them, a point costs one load and a branch.

use std::{
    env, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

struct Plan {
    name: String,
    left: AtomicU64,
    hangs: bool,
}

fn read() -> Option<Plan> {
    let find = |variable, hangs| Some((variable, env::var(variable).ok()?, hangs));
    let (variable, text, hangs) = find("ALERTD_CRASH_AT", false).or_else(|| find("ALERTD_HANG_AT", true))?;
    let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
    tracing::warn!(point = name, "{variable} is set: this alertd will fail on purpose");
    Some(Plan { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1).max(1)), hangs })
}

/// Aborts or blocks here if the test asked for it.
pub fn point(name: &str) {
    let Some(plan) = PLAN.get_or_init(read) else { return };
    if plan.name == name && plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        if !plan.hangs {
            process::abort();
        }
        loop {
            thread::park();
        }
    }
}
