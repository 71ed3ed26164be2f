//! Who is on call now and later, overrides made at run time, and gaps.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::ctl;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{
    Core, Refused,
    oncall::Who,
    own_alerts::{OWN, OwnAlert},
    people::COMMENT_CHARS_MAX,
};
use crate::rules::{
    alert::{AlertKey, Ending},
    moment::later,
    reason::Reason,
    schedule::{self, NOBODY, Override, Schedule},
    user::User,
};

/// An override made at run time. It is stored, and takes precedence over the config's overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideByHand {
    pub number: u64,
    pub schedule: String,
    /// `None` for nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub author: String,
    #[serde(default)]
    pub comment: String,
}

/// How far ahead to look for gaps.
pub const LOOK_AHEAD: Duration = Duration::from_hours(7 * 24);
/// How often to look for gaps.
const GAPS_INTERVAL: Duration = Duration::from_mins(15);
/// A longer override should be a change of the rotation.
const OVERRIDE_MAX: Duration = Duration::from_hours(366 * 24);
/// Most overrides at the same time.
const OVERRIDES_MAX: usize = 1_000;

impl Core {
    pub(super) fn is_covered(&self, schedule: &str, now: Timestamp) -> bool {
        matches!(self.who(schedule, now), Who::User(..))
    }

    pub(super) fn raise_nobody(&mut self, schedule: &str, now: Timestamp) {
        let until = self.schedules.get(schedule).map_or(Timestamp::MAX, |found| found.next_change(now));
        if self.uncovered.insert(schedule.to_owned(), until).is_some() {
            return;
        }
        let own = OwnAlert {
            key: own_key(schedule),
            host: self.rules.host.clone(),
            service: "oncall",
            labels: [("schedule".to_owned(), schedule.to_owned())].into(),
            summary: format!(
                "nobody is on call in schedule {schedule}; notifying {} instead; to put somebody on call: alertctl override {schedule} USER --until TIME",
                self.rules.catch_all
            ),
            since: now,
            reason: Reason::NoOneOnCall,
        };
        self.raise(own, now);
    }

    /// Ends the alert once someone is on call again.
    pub(super) fn find_covered(&mut self, now: Timestamp) {
        let due: Vec<_> =
            self.uncovered.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let ending = match self.who(&name, now) {
                Who::User(..) => Ending::Well("someone is on call again"),
                Who::Nobody(_) => {
                    let at = self.schedules.get(&name).map_or(Timestamp::MAX, |found| found.next_change(now));
                    self.uncovered.insert(name, at);
                    continue;
                }
                Who::Receiver(_) | Who::Unknown => Ending::Unwatched,
            };
            self.uncovered.remove(&name);
            let key = own_key(&name);
            let change = self.alerts.resolve(&key, ending, now);
            self.on_move(&key, change, Reason::OnCallAgain, now);
            let waiting = self.incidents.values().filter(|incident| incident.missed.contains(&name));
            self.touched.extend(waiting.map(|incident| incident.number));
        }
        if self.gaps_looked_at.is_none_or(|at| later(at, GAPS_INTERVAL) <= now) {
            self.look_for_gaps(now);
        }
    }

    pub(super) fn next_covered(&self) -> Option<Timestamp> {
        self.uncovered.values().min().copied().filter(|at| *at < Timestamp::MAX)
    }

    fn look_for_gaps(&mut self, now: Timestamp) {
        let all = self.schedules.values();
        self.gaps = all
            .filter_map(|schedule| {
                let gaps = schedule.gaps(now, later(now, LOOK_AHEAD));
                let first = gaps.first()?;
                Some((schedule.name.clone(), first.from, first.until, gaps.len() - 1))
            })
            .collect();
        self.gaps_looked_at = Some(now);
    }

    /// One sentence per schedule about coming times at which nobody is on call.
    pub(super) fn gap_warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.gaps.iter().map(|(name, from, until, more)| {
            let zone = self.schedules.get(name).map_or(TimeZone::UTC, |schedule| schedule.zone.clone());
            let shown = |at: &Timestamp| at.to_zoned(zone.clone()).strftime("%a %d %b %H:%M").to_string();
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more times"),
            };
            format!(
                "nobody is on call in schedule {name} from {} until {}{more} in the next 7 days; see `alertctl oncall --week`",
                shown(from),
                shown(until)
            )
        })
    }

    /// Combines the config's schedules with the overrides made at run time, after either changed.
    pub(super) fn apply_schedules(&mut self, now: Option<Timestamp>) {
        if let Some(now) = now {
            self.overrides.retain(|_, one| one.until > now);
        }
        self.schedules.clone_from(&self.rules.schedules);
        for one in self.overrides.values() {
            let known = one.user.as_ref().is_none_or(|user| self.rules.users.contains_key(user));
            if let Some(schedule) = self.schedules.get_mut(&one.schedule).filter(|_| known) {
                schedule.overrides.push(Override {
                    user: one.user.clone(),
                    from: one.from,
                    until: one.until,
                });
            }
        }
        // Forces a new check.
        self.gaps_looked_at = None;
        self.uncovered.values_mut().for_each(|at| *at = Timestamp::MIN);
    }

    /// Restores internal alerts about missing on-call people from before the restart.
    pub(super) fn restore_uncovered(&mut self) {
        let own = self.alerts.of_agent(OWN).filter(|(_, alert)| alert.resolved_at.is_none());
        let names = own.filter_map(|(_, alert)| alert.labels.get("schedule").cloned());
        self.uncovered = names.map(|name| (name, Timestamp::MIN)).collect();
    }

    pub fn on_override(
        &mut self,
        ask: &ctl::NewOverride,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Override, Refused> {
        let names = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>().join(", ");
        if !self.rules.schedules.contains_key(&ask.schedule) {
            let all = names(self.rules.schedules.keys().collect());
            return Err(Refused::NoSchedule(ask.schedule.clone(), all));
        }
        let user = Some(ask.user.clone()).filter(|user| user != NOBODY);
        if user.as_ref().is_some_and(|user| !self.rules.users.contains_key(user)) {
            let all = names(self.rules.users.keys().collect());
            return Err(Refused::NoUser(ask.user.clone(), all));
        }
        let from = ask.from.unwrap_or(now).max(now);
        if ask.until <= from || ask.until > later(from, OVERRIDE_MAX) {
            let words = "an override must end in the future, after its start, and last at most a year";
            return Err(Refused::BadOverride(words.into()));
        }
        self.apply_schedules(Some(now));
        if self.overrides.len() >= OVERRIDES_MAX {
            let words =
                format!("there are already {OVERRIDES_MAX} overrides; change the rotation in the config");
            return Err(Refused::BadOverride(words));
        }
        let number = self.counters.overrides;
        self.counters.overrides += 1;
        self.dirty.counters = true;
        let made = OverrideByHand {
            number,
            schedule: ask.schedule.clone(),
            user,
            from,
            until: ask.until,
            author: author.into(),
            comment: ask.comment.chars().take(COMMENT_CHARS_MAX).collect(),
        };
        self.note_by(now, None, "overridden", Reason::ByHand, Some(author), &text_of(&made));
        let view = view_override(&made);
        self.dirty.overrides.push(made.clone());
        self.overrides.insert(number, made);
        self.apply_schedules(Some(now));
        Ok(view)
    }

    pub fn on_override_end(
        &mut self,
        number: u64,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Override, Refused> {
        let mut ended = self.overrides.remove(&number).ok_or(Refused::NoOverride(number))?;
        ended.until = ended.until.min(now);
        self.note_by(now, None, "override_ended", Reason::ByHand, Some(author), &text_of(&ended));
        let view = view_override(&ended);
        self.dirty.overrides.push(ended);
        self.apply_schedules(Some(now));
        Ok(view)
    }

    /// Overrides made at run time that are not over, and those of the config.
    pub fn overrides(&self, now: Timestamp) -> Vec<ctl::Override> {
        let by_hand = self.overrides.values().filter(|one| one.until > now).map(view_override);
        let of_config = self.rules.schedules.values().flat_map(|schedule| {
            schedule.overrides.iter().filter(|one| one.until > now).map(|one| ctl::Override {
                number: None,
                schedule: schedule.name.clone(),
                user: one.user.clone(),
                from: one.from,
                until: one.until,
                author: None,
                comment: String::new(),
            })
        });
        by_hand.chain(of_config).collect()
    }

    /// Who is on call in every schedule at `at`, and the shifts until `until`.
    pub fn on_call(&self, at: Timestamp, until: Timestamp) -> ctl::OnCall {
        let view = |schedule: &Schedule| {
            let shifts = schedule.shifts(at, until.max(later(at, LOOK_AHEAD)));
            let shift = |shift: &schedule::Shift| ctl::Shift {
                user: shift.user.clone(),
                from: shift.from,
                until: shift.until,
            };
            let user = schedule.at(at).map(str::to_owned);
            let reached_by = user.as_ref().and_then(|user| self.rules.users.get(user));
            let mut receivers: Vec<_> = reached_by.into_iter().flat_map(User::receivers).cloned().collect();
            let mut seen = BTreeSet::new();
            receivers.retain(|name| seen.insert(name.clone()));
            ctl::OnCallSchedule {
                name: schedule.name.clone(),
                time_zone: schedule.zone.iana_name().unwrap_or("UTC").into(),
                user,
                receivers,
                overridden: schedule.override_at(at).is_some(),
                until: shifts.first().map(|first| first.until).filter(|_| shifts.len() > 1),
                next: shifts.get(1).map(shift),
                shifts: shifts.iter().filter(|shift| shift.from < until).map(shift).collect(),
                gaps: schedule.gaps(at, until).iter().map(shift).collect(),
            }
        };
        ctl::OnCall {
            at,
            until,
            schedules: self.schedules.values().map(view).collect(),
            catch_all: self.rules.catch_all.clone(),
        }
    }
}

fn own_key(schedule: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@schedule {schedule}"))
}

fn text_of(one: &OverrideByHand) -> String {
    let OverrideByHand { number, schedule, user, from, until, .. } = one;
    let user = user.as_deref().unwrap_or(NOBODY);
    format!("override {number}: {user} in {schedule} from {from:.0} until {until:.0}")
}

fn view_override(one: &OverrideByHand) -> ctl::Override {
    ctl::Override {
        number: Some(one.number),
        schedule: one.schedule.clone(),
        user: one.user.clone(),
        from: one.from,
        until: one.until,
        author: Some(one.author.clone()),
        comment: one.comment.clone(),
    }
}
