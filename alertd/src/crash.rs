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
//! `ALERTD_HANG_AT` in its place holds the thread there for ever: the loop's, or with `leased` and `sent` a delivery's.
//!
//! The variables are read once; without them a point costs one load and a branch.

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
    tracing::warn!(point = name, "{variable} is set: this alertd is going to fail on purpose");
    Some(Plan { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1).max(1)), hangs })
}

/// Ends the process here, or stands still, if the test asked for it.
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
