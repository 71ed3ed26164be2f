//! The only place in this crate that reads clocks: to measure how long something took, whether
//! something on disk is old or still valid, and whether the clocks themselves agree.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The Unix time.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `CLOCK_MONOTONIC`: time since boot without suspend, as systemd uses it.
pub(crate) fn monotonic() -> Duration {
    clock(ClockId::Monotonic)
}

/// The clocks of the host at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Clocks {
    /// Unix time.
    pub(crate) wall: Duration,
    /// Since boot, including suspend.
    pub(crate) boot: Duration,
    /// Since boot, without suspend.
    pub(crate) awake: Duration,
}

/// Of three readings, the one that was interrupted least: on a busy host, this thread may have to
/// wait between two clocks.
pub(crate) fn clocks() -> Clocks {
    let read = || {
        let awake = clock(ClockId::Monotonic);
        let boot = clock(ClockId::Boottime);
        let clocks = Clocks { awake, boot, wall: clock(ClockId::Realtime) };
        (clock(ClockId::Boottime).saturating_sub(boot), clocks)
    };
    let readings = [read(), read(), read()];
    readings.into_iter().min_by_key(|(took, _)| *took).map(|(_, clocks)| clocks).unwrap_or_default()
}

fn clock(id: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), u32::try_from(tv_nsec).unwrap_or(0))
}
