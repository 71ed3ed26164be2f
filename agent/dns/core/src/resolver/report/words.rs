//! Types and texts shared by all reports: check results, times, verdicts.

use std::time::Duration;

use dogwatch_duration::Span;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{message::wire::Verdict, moment::Moment};

/// One check result, in the form that the agent reads. `state` is the plugin exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorResult {
    pub name: String,
    pub state: u8,
    pub text: String,
    pub perfdata: String,
    /// What it cannot watch, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind: Option<String>,
}

pub(in crate::resolver) const OK: u8 = 0;
pub(in crate::resolver) const WARNING: u8 = 1;
pub(in crate::resolver) const CRITICAL: u8 = 2;

/// Only names used within this time count for the runway.
pub(in crate::resolver) const RUNWAY_USED_WITHIN: Duration = Duration::from_hours(24);

/// Formats the records of a message as in a zone file, without owner and TTL, for listings. The
/// shell provides it because the core has no parser for record data.
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

/// Why the upstream's answer for a name is not accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhyHeld {
    /// What the upstream says.
    pub says: String,
    pub since: Timestamp,
    /// The old answer is served until then at the latest.
    pub until: Timestamp,
    /// How many upstreams were asked the last time, and how many of them said so.
    pub asked: u8,
    pub agreed: u8,
    /// How often upstreams gave this answer.
    pub denials: u32,
    /// Whether many other names are held too.
    pub mass: bool,
    pub end_with: String,
}

/// The wall-clock time of `moment`, given that of `now`.
pub(in crate::resolver) fn at(moment: Moment, now: Moment, wall: Timestamp) -> Timestamp {
    let offset = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    let there = if moment <= now {
        wall.checked_sub(offset(now.since(moment)))
    } else {
        wall.checked_add(offset(now.until(moment)))
    };
    there.unwrap_or(wall)
}

/// `04:12 UTC`, or `2026-11-21 04:12 UTC` if that is not today.
pub(in crate::resolver) fn clock_time(time: Timestamp, wall: Timestamp) -> String {
    let day = |time: Timestamp| time.as_second().div_euclid(86_400);
    let format = if day(time) == day(wall) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    time.strftime(format).to_string()
}

/// Rounded down to the minute, below one minute to the second: `71h59m` instead of `71h59m58s`.
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
