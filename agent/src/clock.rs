//! The only place in the agent that reads clocks.
//!
//! Durations are measured with `CLOCK_BOOTTIME`, which goes on while the host is suspended. tokio's
//! timers (`CLOCK_MONOTONIC`) stop then, and a check that is due at seven would run at eight. So
//! the loop sleeps on a timer of that clock (timerfd_create(2)).

use std::{cell::Cell, io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::moment::{Moment, Now};

/// The clocks, and one alarm.
#[derive(Debug)]
pub struct Clock {
    timer: AsyncFd<OwnedFd>,
    /// What the timer is set to, until it has expired.
    set_to: Cell<Option<Duration>>,
}

impl Clock {
    /// Needs a running tokio runtime.
    #[expect(unsafe_code, reason = "AsyncFd requires a promise about the descriptor")]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: the `OwnedFd` stays the same open descriptor as long as `AsyncFd` holds it, and
        // it is never taken out.
        let timer = unsafe { AsyncFd::register(timer) }.map_err(io::Error::from)?;
        Ok(Self { timer, set_to: Cell::new(None) })
    }

    pub fn now(&self) -> Now {
        Now { moment: moment(), wall: wall() }
    }

    /// Time spent suspended since boot.
    pub fn asleep(&self) -> Duration {
        let awake = duration(clock_gettime(ClockId::Monotonic));
        moment().0.saturating_sub(awake)
    }

    /// Sleeps until that moment, or forever if there is none. Cancel-safe.
    pub async fn sleep_until(&self, when: Option<Moment>) {
        let Some(when) = when else { return std::future::pending().await };
        // Zero would switch the timer off. The boot is in the past, so any small value will do.
        let at = when.0.max(Duration::from_nanos(1));
        if self.set_to.get() != Some(at) {
            let once = Itimerspec { it_interval: Timespec::default(), it_value: timespec(at) };
            self.set_to.set(None);
            if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once) {
                tracing::error!(%error, "cannot set the timer; waking up every second instead");
                return tokio::time::sleep(Duration::from_secs(1)).await;
            }
            self.set_to.set(Some(at));
        }
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return };
            let expired = rustix::io::read(self.timer.get_ref(), &mut [0_u8; 8]);
            ready.clear_ready();
            if expired.is_ok() {
                self.set_to.set(None);
            }
            // This wakeup may be left over from an earlier alarm.
            if expired.is_ok() || moment() >= when {
                return;
            }
        }
    }
}

/// The wall-clock time, for people and for messages.
#[expect(clippy::disallowed_methods, reason = "the one place in the agent that reads clocks")]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Time since boot, including suspend.
pub fn since_boot() -> Duration {
    moment().0
}

fn moment() -> Moment {
    Moment(duration(clock_gettime(ClockId::Boottime)))
}

fn duration(time: Timespec) -> Duration {
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_at_the_moment_and_at_once_if_that_has_passed() {
        let clock = Clock::new().unwrap();
        let start = clock.now().moment;
        clock.sleep_until(Some(start + Duration::from_millis(30))).await;
        assert!(clock.now().moment >= start + Duration::from_millis(30));
        clock.sleep_until(Some(Moment::BOOT)).await;
    }

    #[tokio::test]
    async fn a_cancelled_sleep_does_not_wake_the_next_one_early() {
        let clock = Clock::new().unwrap();
        let start = clock.now().moment;
        {
            let mut first = Box::pin(clock.sleep_until(Some(start + Duration::from_millis(500))));
            tokio::select! {
                biased;
                () = &mut first => panic!("not yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        let late = start + Duration::from_millis(550);
        clock.sleep_until(Some(late)).await;
        assert!(clock.now().moment >= late);
    }
}
