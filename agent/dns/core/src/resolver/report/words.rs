//! Words and forms that all reports share: check results, times, verdicts.

use std::time::Duration;

use dogwatch_duration::Span;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{message::wire::Verdict, moment::Moment};

/// One check result, as the agent takes it. `state` is the plugin exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorResult {
    pub name: String,
    pub state: u8,
    pub text: String,
    pub perfdata: String,
}

pub(in crate::resolver) const OK: u8 = 0;
pub(in crate::resolver) const WARNING: u8 = 1;
pub(in crate::resolver) const CRITICAL: u8 = 2;

/// A name counts for the runway while it was used this lately.
pub(in crate::resolver) const RUNWAY_USED_WITHIN: Duration = Duration::from_hours(24);

/// Spells out the records of a message, as in a zone file, without owner and TTL. Listings show them; the shell has the
/// parser.
pub type RecordsText = fn(&[u8]) -> Vec<String>;

/// The running fire drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStatus {
    pub mode: String,
    /// `.` for all names.
    pub zone: String,
    pub by: String,
    pub since: Timestamp,
    pub until: Timestamp,
}

/// Why upstream's word on a name is not taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhyHeld {
    /// What upstream says.
    pub says: String,
    pub since: Timestamp,
    /// The old answer is given until then at the latest.
    pub until: Timestamp,
    /// Upstreams that were asked the last time, and those of them that said so.
    pub asked: u8,
    pub agreed: u8,
    /// How often upstream said so.
    pub denials: u32,
    /// Whether it is one of many.
    pub mass: bool,
    pub end_with: String,
}

/// What people call `moment`, given what they call `now`.
pub(in crate::resolver) fn at(moment: Moment, now: Moment, wall: Timestamp) -> Timestamp {
    let offset = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let there = if moment <= now {
        wall.checked_sub(offset(now.since(moment)))
    } else {
        wall.checked_add(offset(now.until(moment)))
    };
    there.unwrap_or(wall)
}

/// `2026-11-21 04:12:33 UTC`.
pub(in crate::resolver) fn clock_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// To the minute, or the second below one: `71h59m` reads better than `71h59m58s`.
pub(in crate::resolver) fn coarse(span: Duration) -> Span {
    let seconds = span.as_secs();
    Span::secs(if seconds >= 60 { seconds - seconds % 60 } else { seconds })
}

pub(in crate::resolver) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Positive => "positive",
        Verdict::NoData => "no data",
        Verdict::NxDomain => "nxdomain",
    }
}
