//! The only module of this crate that reads clocks.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a command of the developer measures and waits in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since `from`, as people read them.
pub(crate) fn took(from: Instant) -> String {
    let seconds = now().duration_since(from).as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}
