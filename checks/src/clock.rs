//! The only reader of clocks here. What a check measures is how long something took; nothing of it outlives a run.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
