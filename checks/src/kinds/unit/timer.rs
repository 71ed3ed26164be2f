//! Whether a timer is late.

use std::time::Duration;

use super::Reading;
use crate::{read::systemctl::Unit, span};

/// Says how late a timer is, if it is: its last trigger was more than two periods ago.
pub(super) fn late(unit: &Unit, reading: &Reading) -> Option<String> {
    let timer = &unit.timer;
    let period = timer.period?;
    if unit.active != "active" {
        return None;
    }
    let busy = unit.sub == "running";
    let least = if busy { BUSY } else { IDLE };
    let allowed = (2 * period).max(least) + timer.random_delay;
    let up = reading.monotonic.saturating_sub(unit.entered);
    let since = match (timer.last_monotonic, timer.last_wall) {
        (Some(at), _) => reading.monotonic.saturating_sub(at),
        (None, Some(at)) if timer.persistent => {
            // It makes up for the trigger that it missed while the host was off.
            if up < GRACE + timer.random_delay {
                return None;
            }
            Duration::from_secs(u64::try_from(reading.unix.saturating_sub(at)).unwrap_or(0))
        }
        _ => up,
    };
    if since <= allowed {
        return None;
    }
    let since = span::human(since);
    Some(if busy {
        format!("its job has been running for {since}, longer than two periods")
    } else {
        format!("last triggered {since} ago, more than two periods")
    })
}

/// Jobs that run every few seconds may take a while.
const IDLE: Duration = Duration::from_hours(1);
/// A timer does not trigger while its job runs (`OnUnitInactiveSec=`, long backups).
const BUSY: Duration = Duration::from_hours(24);
/// After boot.
const GRACE: Duration = Duration::from_hours(1);
