//! Why a firing alert is suppressed now, and until when.
//!
//! A suppressed alert still fires, is visible, and keeps its incident open. When the last reason
//! ends, the current state is compared with the last notification (`review.rs`), and only a
//! difference is sent. When the cause of a problem is resolved, dependent alerts get some time to
//! recover too (`settle`), so that the end of one outage does not page once per service.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rules::{
    alert::AlertKey,
    moment::later,
    reason::{Cause, Reason},
};

/// In order of precedence: if several apply, the first one is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuppressedBy {
    /// A downtime of its host or service is in effect.
    Downtime,
    /// Its agent is silent: the reports are old, and one alert for the agent covers them.
    HostDown,
    /// An alert that it depends on fires.
    Dependency,
    /// Another alert inhibits it.
    Inhibited,
    Silenced,
    /// Its route is muted at this time.
    Muted,
    /// alertd has just started, and a host that could report the cause has not reported yet.
    Settling,
}

impl SuppressedBy {
    pub const ALL: [Self; 7] = [
        Self::Downtime,
        Self::HostDown,
        Self::Dependency,
        Self::Inhibited,
        Self::Silenced,
        Self::Muted,
        Self::Settling,
    ];

    pub fn reason(self) -> Reason {
        match self {
            Self::Downtime => Reason::Downtime,
            Self::HostDown => Reason::HostDown,
            Self::Dependency => Reason::DependencyDown,
            Self::Inhibited => Reason::Inhibited,
            Self::Silenced => Reason::Silenced,
            Self::Muted => Reason::Muted,
            Self::Settling => Reason::Settling,
        }
    }

    /// Why the policy starts when this ends, if nobody was notified before.
    pub fn ended(self) -> Cause {
        match self {
            Self::Downtime => Cause::DowntimeEnded,
            Self::HostDown => Cause::HostBack,
            Self::Dependency => Cause::DependencyBack,
            Self::Inhibited => Cause::InhibitionEnded,
            Self::Silenced => Cause::SilenceEnded,
            Self::Muted => Cause::MuteEnded,
            Self::Settling => Cause::Opened,
        }
    }

    /// Whether dependent alerts get time to recover when this ends. A silent host has its own
    /// timer, because its new reports wait too.
    fn settles(self) -> bool {
        matches!(self, Self::Dependency | Self::Inhibited)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    pub why: SuppressedBy,
    /// What suppresses it, for people: `web1/agent`, `silence 3`.
    pub by: String,
    /// When the reason ends, or `None` if that is not known.
    pub until: Option<Timestamp>,
    /// The reason has ended; the alert has until `until` to recover.
    #[serde(default)]
    pub released: bool,
}

impl Suppression {
    pub fn new(why: SuppressedBy, by: impl Into<String>, until: Option<Timestamp>) -> Self {
        Self { why, by: by.into(), until, released: false }
    }

    /// Returns the rest of the settle time after the reason has ended, or nothing.
    #[must_use]
    pub fn after_its_reason(&self, settle: Duration, now: Timestamp) -> Option<Self> {
        if self.released {
            return self.until.is_some_and(|until| until > now).then(|| self.clone());
        }
        let until = later(now, settle);
        let waits = self.why.settles() && until > now;
        waits.then(|| Self { until: Some(until), released: true, ..self.clone() })
    }
}

/// By alert. The store contains a list, because JSON keys cannot be structs.
pub type Suppressions = BTreeMap<AlertKey, Suppression>;

pub fn to_rows<S: Serializer>(all: &Suppressions, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all)
}

/// The first version stored only the keys; all these alerts were silenced.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Now(AlertKey, Suppression),
    First(AlertKey),
}

pub fn from_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Suppressions, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    let pair = |entry| match entry {
        Entry::Now(key, withheld) => (key, withheld),
        Entry::First(key) => (key, Suppression::new(SuppressedBy::Silenced, "", None)),
    };
    Ok(entries.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        #[serde(serialize_with = "to_rows", deserialize_with = "from_rows")]
        withheld: Suppressions,
    }

    #[test]
    fn each_reason_stands_at_its_own_number() {
        assert!(SuppressedBy::ALL.iter().enumerate().all(|(number, why)| *why as usize == number));
    }

    #[test]
    fn rows_of_the_first_version_are_read() {
        let old = r#"{"withheld":[{"agent":"a1","service":"disk"}]}"#;
        let read: Holder = serde_json::from_str(old).unwrap();
        let key = AlertKey::new("a1", "disk");
        assert_eq!(read.withheld[&key].why, SuppressedBy::Silenced);
        let again: Holder = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again.withheld, read.withheld);
    }

    #[test]
    fn what_a_cause_withheld_waits_a_moment_and_a_silence_none() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let settle = Duration::from_secs(30);
        let inhibited = Suppression::new(SuppressedBy::Inhibited, "web1/agent", None);
        let waits = inhibited.after_its_reason(settle, at(100)).unwrap();
        assert_eq!(waits.until, Some(at(130)));
        assert_eq!(
            waits.after_its_reason(settle, at(129)),
            Some(waits.clone()),
            "the time does not start again"
        );
        assert_eq!(waits.after_its_reason(settle, at(130)), None);
        assert_eq!(inhibited.after_its_reason(Duration::ZERO, at(100)), None);
        let silenced = Suppression::new(SuppressedBy::Silenced, "silence 1", Some(at(100)));
        assert_eq!(silenced.after_its_reason(settle, at(100)), None);
    }
}
