//! The only module of this crate that reads clocks.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use dogwatch_dns_core::moment::Moment;

/// CLOCK_BOOTTIME: includes time spent suspended and never jumps (clock_gettime(2)).
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { started: since_boot() }
    }

    pub fn now(&self) -> Moment {
        Moment::START + since_boot().saturating_sub(self.started)
    }

    /// `moment` on the boot clock, which all processes of this boot share.
    pub fn boot_time(&self, moment: Moment) -> Duration {
        (self.started + moment.since(Moment::START)).saturating_sub(Moment::START.since(moment))
    }
}

pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The wall-clock time.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock")]
pub fn wall() -> Timestamp {
    Timestamp::now()
}
