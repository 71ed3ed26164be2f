//! Downtimes: scheduled maintenance. While a downtime is in effect, problems of its host or service
//! are suppressed. People who already know of such a problem are notified when the downtime starts
//! and ends.
//!
//! The types are Nagios':
//!
//! - *Fixed*: in effect from its start to its end.
//! - *Flexible*: the first hard problem within its window puts it in effect for its duration, even
//!   past the end of the window. A problem that already exists when the window opens counts.
//! - *Recurring*: in effect between start and end, but only while its period is.
//!
//! A downtime of a host covers its services and the alert for its silent agent.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{matcher::Labels, moment::later, period::Periods};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downtime {
    pub number: u64,
    pub host: String,
    /// `None` for the host and all its services.
    pub service: Option<String>,
    pub author: String,
    pub comment: String,
    /// Start of the downtime, or of the window of a flexible one.
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    Fixed,
    Flexible { lasts: Duration, began_at: Option<Timestamp> },
    Recurring { period: String },
}

impl Downtime {
    /// A service is covered by its own name or by that of its check: `disk` covers `disk /var`.
    pub fn covers(&self, labels: &Labels) -> bool {
        let is = |name, value: &str| labels.get(name).is_some_and(|found| found == value);
        let is_service = |service: &String| is("service", service) || is("check", service);
        is("host", &self.host) && self.service.as_ref().is_none_or(is_service)
    }

    /// When it ends, if it is in effect.
    pub fn in_effect(&self, periods: &Periods, now: Timestamp) -> Option<Timestamp> {
        let until = match &self.shape {
            Shape::Fixed => self.ends_at,
            Shape::Flexible { lasts, began_at } => later((*began_at)?, *lasts),
            Shape::Recurring { period } => {
                periods.is_inside(period).then_some(())?;
                periods.until(period).map_or(self.ends_at, |until| until.min(self.ends_at))
            }
        };
        let began = matches!(self.shape, Shape::Flexible { .. }) || self.starts_at <= now;
        (began && now < until).then_some(until)
    }

    /// The downtime as it was at that time, before a later problem started a flexible one.
    #[must_use]
    pub fn as_before(&self, now: Timestamp) -> Self {
        let mut before = self.clone();
        if let Shape::Flexible { began_at, .. } = &mut before.shape {
            *began_at = began_at.filter(|at| *at < now);
        }
        before
    }

    /// The time after which it is over.
    pub fn over_at(&self) -> Timestamp {
        match self.shape {
            Shape::Flexible { lasts, began_at: Some(began_at) } => later(began_at, lasts),
            _ => self.ends_at,
        }
    }

    /// Whether it is flexible, its window is open, and there was no problem yet.
    pub fn waits_for_a_problem(&self, now: Timestamp) -> bool {
        let unused = matches!(self.shape, Shape::Flexible { began_at: None, .. });
        unused && self.starts_at <= now && now < self.ends_at
    }

    /// `pending`, `active`, `waiting` (for a problem or its period) or `over`.
    pub fn state(&self, periods: &Periods, now: Timestamp) -> &'static str {
        match () {
            () if self.over_at() <= now => "over",
            () if self.in_effect(periods, now).is_some() => "active",
            () if now < self.starts_at => "pending",
            () => "waiting",
        }
    }

    /// `web1`, `web1/disk`.
    pub fn place(&self) -> String {
        match &self.service {
            None => self.host.clone(),
            Some(service) => format!("{}/{service}", self.host),
        }
    }

    /// What suppresses an alert, for people: `downtime 4 of web1`.
    pub fn name(&self) -> String {
        format!("downtime {} of {}", self.number, self.place())
    }
}

/// All current and future downtimes.
#[derive(Debug, Default)]
pub struct Downtimes {
    current: Vec<Downtime>,
    /// Starts up to this time were handled.
    seen: Option<Timestamp>,
}

impl Downtimes {
    pub fn add(&mut self, downtime: Downtime) {
        self.current.push(downtime);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Downtime> {
        self.current.iter()
    }

    /// The downtime that suppresses an alert with these labels longest, and its end.
    pub fn covering(
        &self,
        labels: &Labels,
        periods: &Periods,
        now: Timestamp,
    ) -> Option<(&Downtime, Timestamp)> {
        let covering = self.current.iter().filter(|downtime| downtime.covers(labels));
        let in_effect = covering.filter_map(|downtime| Some((downtime, downtime.in_effect(periods, now)?)));
        in_effect.max_by_key(|(downtime, until)| (*until, downtime.number))
    }

    /// Starts the flexible downtimes that cover a hard problem with these labels, and returns them.
    pub fn on_problem(&mut self, labels: &Labels, now: Timestamp) -> Vec<Downtime> {
        let mut begun = Vec::new();
        for downtime in self.current.iter_mut().filter(|downtime| downtime.waits_for_a_problem(now)) {
            if downtime.covers(labels)
                && let Shape::Flexible { began_at, .. } = &mut downtime.shape
            {
                *began_at = Some(now);
                begun.push(downtime.clone());
            }
        }
        begun
    }

    /// Removes a downtime; `None` if it does not exist.
    pub fn cancel(&mut self, number: u64, now: Timestamp) -> Option<Downtime> {
        let at = self.current.iter().position(|downtime| downtime.number == number)?;
        let mut cancelled = self.current.remove(at);
        cancelled.ends_at = now.min(cancelled.ends_at);
        if let Shape::Flexible { lasts, began_at: Some(began_at) } = &mut cancelled.shape {
            *lasts = crate::rules::moment::between(*began_at, now).min(*lasts);
        }
        Some(cancelled)
    }

    /// Returns whether a downtime started since the last call, and which ones are over.
    pub fn turn(&mut self, now: Timestamp) -> (bool, Vec<Downtime>) {
        let seen = self.seen.replace(now);
        let since = |at: Timestamp| at <= now && seen.is_none_or(|seen| at > seen);
        let started = self.current.iter().any(|downtime| since(downtime.starts_at));
        (started, self.current.extract_if(.., |downtime| downtime.over_at() <= now).collect())
    }

    /// When the next downtime starts or ends.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let to_come = |at: &Timestamp| self.seen.is_none_or(|seen| *at > seen);
        let next =
            |d: &Downtime| Some(d.starts_at).filter(to_come).map_or(d.over_at(), |at| at.min(d.over_at()));
        self.current.iter().map(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn labels(host: &str, service: &str) -> Labels {
        [("host".to_owned(), host.to_owned()), ("service".to_owned(), service.to_owned())].into()
    }

    fn downtime(service: Option<&str>, shape: Shape) -> Downtime {
        Downtime {
            number: 1,
            host: "web1".into(),
            service: service.map(Into::into),
            author: "eva".into(),
            comment: String::new(),
            starts_at: at(2),
            ends_at: at(6),
            shape,
        }
    }

    /// One character per second. Input: `p` problem. Output: `d` in effect, `w` waiting, `.`
    /// pending, `-` over.
    fn run(shape: Shape, events: &str) -> String {
        let mut all = Downtimes::default();
        all.add(downtime(None, shape));
        let periods = Periods::default();
        let second = |(second, event): (i64, char)| {
            let now = at(second);
            all.turn(now);
            if event == 'p' {
                all.on_problem(&labels("web1", "disk"), now);
            }
            all.iter().next().map_or('-', |downtime| match downtime.state(&periods, now) {
                "active" => 'd',
                "waiting" => 'w',
                _ => '.',
            })
        };
        (0..).zip(events.chars()).map(second).collect()
    }

    #[test]
    fn a_fixed_one_is_in_effect_from_start_to_end() {
        assert_eq!(run(Shape::Fixed, "...p....."), "..dddd---");
    }

    #[test]
    fn a_flexible_one_begins_with_the_first_problem_in_its_window_and_lasts_its_duration() {
        let flexible = || Shape::Flexible { lasts: Duration::from_secs(3), began_at: None };
        assert_eq!(run(flexible(), "..........."), "..wwww-----");
        assert_eq!(run(flexible(), "p..p......."), "..wddd-----");
        assert_eq!(run(flexible(), ".....p....."), "..wwwddd---", "past the end of the window");
        assert_eq!(run(flexible(), "...p.p....."), "..wddd-----", "a second problem does not restart it");
        assert_eq!(run(flexible(), "......p...."), "..wwww-----");
    }

    #[test]
    fn a_hosts_downtime_covers_its_services_and_a_services_only_that_service() {
        let host = downtime(None, Shape::Fixed);
        assert!(host.covers(&labels("web1", "disk")) && host.covers(&labels("web1", "agent")));
        assert!(!host.covers(&labels("web11", "disk")));
        let disk = downtime(Some("disk"), Shape::Fixed);
        assert!(disk.covers(&labels("web1", "disk")) && !disk.covers(&labels("web1", "swap")));
        let mut var = labels("web1", "disk /var");
        assert!(!disk.covers(&var));
        var.insert("check".into(), "disk".into());
        assert!(disk.covers(&var), "all things of a check");
        assert_eq!(
            (host.name(), disk.name()),
            ("downtime 1 of web1".into(), "downtime 1 of web1/disk".into())
        );
    }

    #[test]
    fn of_two_the_longer_one_is_named_and_a_cancelled_one_is_over() {
        let mut all = Downtimes::default();
        all.add(downtime(None, Shape::Fixed));
        all.add(Downtime { number: 2, ends_at: at(9), ..downtime(Some("disk"), Shape::Fixed) });
        let periods = Periods::default();
        let covering = |all: &Downtimes, service| {
            all.covering(&labels("web1", service), &periods, at(3)).map(|(d, until)| (d.number, until))
        };
        assert_eq!(covering(&all, "disk"), Some((2, at(9))));
        assert_eq!(covering(&all, "swap"), Some((1, at(6))));
        assert_eq!(all.cancel(1, at(3)).unwrap().over_at(), at(3));
        assert_eq!((covering(&all, "swap"), all.cancel(1, at(3))), (None, None));
    }
}
