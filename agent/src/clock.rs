//! The only reader of clocks in the agent.
//!
//! Reckoning uses `CLOCK_BOOTTIME`, which goes on while the host sleeps: tokio's own timers stop then (`CLOCK_MONOTONIC`),
//! and a check due at seven would run at eight. So the loop sleeps on a timer of that clock (timerfd_create(2)).

use std::{io, os::fd::OwnedFd, time::Duration};

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
}

impl Clock {
    /// Needs a running tokio runtime.
    #[expect(unsafe_code, reason = "AsyncFd wants a promise about the descriptor")]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: an `OwnedFd` is one and the same open descriptor for as long as `AsyncFd` holds it; it is never taken out.
        Ok(Self { timer: unsafe { AsyncFd::register(timer) }.map_err(io::Error::from)? })
    }

    pub fn now(&self) -> Now {
        Now { moment: moment(), wall: wall() }
    }

    /// Time spent asleep since boot: grows by exactly the length of each suspend.
    pub fn asleep(&self) -> Duration {
        let awake = duration(clock_gettime(ClockId::Monotonic));
        moment().0.saturating_sub(awake)
    }

    /// Sleeps until then; for ever if there is nothing to wait for. Cancel-safe.
    pub async fn sleep_until(&self, when: Option<Moment>) {
        let Some(when) = when else { return std::future::pending().await };
        // A timer set to zero is switched off; boot itself is long past.
        let at = when.0.max(Duration::from_nanos(1));
        let once = Itimerspec { it_interval: Timespec::default(), it_value: timespec(at) };
        if let Err(error) = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once) {
            tracing::error!(%error, "the boot clock's timer cannot be set; falling back to one second");
            return tokio::time::sleep(Duration::from_secs(1)).await;
        }
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return };
            let expired = rustix::io::read(self.timer.get_ref(), &mut [0_u8; 8]);
            ready.clear_ready();
            // A reading left over from an alarm that was set again meanwhile is not ours.
            if expired.is_ok() || moment() >= when {
                return;
            }
        }
    }
}

/// The time for people.
#[expect(clippy::disallowed_methods, reason = "this is the agent's reader of clocks")]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
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
    async fn it_wakes_when_the_moment_has_come_and_at_once_when_it_is_past() {
        let clock = Clock::new().unwrap();
        let start = clock.now().moment;
        clock.sleep_until(Some(start + Duration::from_millis(30))).await;
        assert!(clock.now().moment >= start + Duration::from_millis(30));
        clock.sleep_until(Some(Moment::BOOT)).await;
    }

    #[tokio::test]
    async fn an_alarm_that_was_given_up_does_not_wake_the_next_sleeper_early() {
        let clock = Clock::new().unwrap();
        let start = clock.now().moment;
        {
            let mut first = Box::pin(clock.sleep_until(Some(start + Duration::from_millis(5))));
            tokio::select! {
                biased;
                () = &mut first => panic!("not yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        let late = start + Duration::from_millis(60);
        clock.sleep_until(Some(late)).await;
        assert!(clock.now().moment >= late);
    }
}
