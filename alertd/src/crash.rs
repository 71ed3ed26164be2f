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
//! delivery for `leased` and `sent`. `ALERTD_PANIC_AT` panics there.
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
    way: Way,
}

#[derive(Clone, Copy)]
enum Way {
    Abort,
    Hang,
    Panic,
}

const VARIABLES: [(&str, Way); 3] =
    [("ALERTD_CRASH_AT", Way::Abort), ("ALERTD_HANG_AT", Way::Hang), ("ALERTD_PANIC_AT", Way::Panic)];

fn read() -> Option<Plan> {
    let mut set =
        VARIABLES.into_iter().filter_map(|(variable, way)| Some((variable, env::var(variable).ok()?, way)));
    let (variable, text, way) = set.next()?;
    let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
    tracing::warn!(point = name, "{variable} is set: this alertd will fail on purpose");
    Some(Plan { name: name.to_owned(), left: AtomicU64::new(nth.parse().unwrap_or(1).max(1)), way })
}

/// Aborts, blocks or panics here if the test asked for it.
pub fn point(name: &str) {
    let Some(plan) = PLAN.get_or_init(read) else { return };
    if plan.name == name && plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        match plan.way {
            Way::Abort => process::abort(),
            Way::Hang => loop {
                thread::park();
            },
            Way::Panic => panic!("on purpose, at {name}"),
        }
    }
}
