//! Requests for silences, and reminders before they end.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{Core, Refused, people::COMMENT_CHARS_MAX};
use crate::rules::{
    incident::Incident,
    moment::{between, later},
    notification::Kind,
    reason::Reason,
    silence::{Reach, Silence, parse_matchers},
    suppression::SuppressedBy,
    text::{self, utc_time},
    told::Says,
};

/// A silence for longer than a year should be a change of the config.
const SILENCE_MAX: Duration = Duration::from_hours(366 * 24);
/// Maximum number of alerts in a preview.
const SHOWN_MAX: usize = 50;
/// Current and future ones. Each takes memory and is compared with every alert.
const SILENCES_MAX: usize = 5_000;

impl Core {
    pub fn on_silence(
        &mut self,
        ask: &ctl::NewSilence,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Silence, Refused> {
        let matchers = parse_matchers(&ask.matchers).map_err(Refused::BadSilence)?;
        let starts_at = ask.starts_at.unwrap_or(now).max(now);
        let ends_at = ask.ends_at.unwrap_or_else(|| later(starts_at, Duration::from_secs(ask.duration_s)));
        let period = ask.period.clone();
        let mut silence = Silence {
            number: 0,
            matchers,
            author: author.into(),
            comment: ask.comment.chars().take(COMMENT_CHARS_MAX).collect(),
            starts_at,
            ends_at,
            period,
            reminded: false,
        };
        check_span(starts_at, ends_at, now).map_err(Refused::BadSilence)?;
        if self.silences.len() >= SILENCES_MAX {
            let words = format!("there are already {SILENCES_MAX} silences; end some first");
            return Err(Refused::BadSilence(words));
        }
        self.check_period(silence.period.as_deref()).map_err(Refused::BadSilence)?;
        if ask.dry_run {
            return Ok(self.view_silence(&silence, now));
        }
        if let Some(words) = self.reach(&silence).is_broad(&silence).filter(|_| !ask.broad) {
            let words = format!("{words}; check it with --preview, and add --broad if you mean it");
            return Err(Refused::BadSilence(words));
        }
        silence.number = self.counters.silence;
        self.counters.silence += 1;
        self.dirty.counters = true;
        self.note_by(now, None, "silenced", Reason::ByHand, Some(author), &silence.text());
        let view = self.view_silence(&silence, now);
        self.dirty.silences.push(silence.clone());
        self.silences.add(silence);
        self.touched.extend(self.groups.values());
        Ok(view)
    }

    pub(super) fn check_period(&self, period: Option<&str>) -> Result<(), String> {
        match period.filter(|period| !self.periods.knows(period)) {
            None => Ok(()),
            Some(period) => {
                let names: Vec<_> = self.periods.names().collect();
                let known = match names[..] {
                    [] => "it has none; add [period.NAME]".to_owned(),
                    _ => format!("periods: {}", names.join(", ")),
                };
                Err(format!("there is no period {period:?} in the config; {known}"))
            }
        }
    }

    pub fn on_silence_end(
        &mut self,
        number: u64,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Silence, Refused> {
        let ended = self.silences.end(number, now).ok_or(Refused::NoSilence(number))?;
        self.note_by(now, None, "silence_ended", Reason::ByHand, Some(author), &ended.text());
        let view = self.view_silence(&ended, now);
        self.dirty.silences.push(ended);
        self.touched.extend(self.groups.values());
        Ok(view)
    }

    /// Changes the end of a silence; author and comment stay.
    pub fn on_silence_extend(
        &mut self,
        number: u64,
        ask: &ctl::ExtendSilence,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Silence, Refused> {
        let starts_at = self.silences.get(number).ok_or(Refused::NoSilence(number))?.starts_at;
        let from = starts_at.max(now);
        let ends_at = ask.ends_at.unwrap_or_else(|| later(from, Duration::from_secs(ask.duration_s)));
        check_span(starts_at, ends_at, now).map_err(Refused::BadSilence)?;
        let extended = self.silences.extend(number, ends_at).ok_or(Refused::NoSilence(number))?;
        let second = ends_at.round(jiff::Unit::Second).unwrap_or(ends_at);
        let text = format!("{} until {second}", extended.text());
        self.note_by(now, None, "silence_extended", Reason::ByHand, Some(author), &text);
        let view = self.view_silence(&extended, now);
        self.dirty.silences.push(extended);
        self.touched.extend(self.groups.values());
        Ok(view)
    }

    /// Handles silences that start or end now, and reminders that are due.
    pub(super) fn turn_silences(&mut self, now: Timestamp) {
        let turn = self.silences.turn(now);
        if turn.started || !turn.ended.is_empty() {
            self.touched.extend(self.groups.values());
        }
        for silence in turn.ended {
            self.note(now, None, "silence_ended", Reason::SilenceEnded, &silence.text());
        }
        for silence in turn.ending {
            self.dirty.silences.push(silence.clone());
            self.announce_end(&silence, now);
        }
    }

    /// Reminds people who know of a suppressed problem early enough to fix it or extend the
    /// silence.
    fn announce_end(&mut self, silence: &Silence, now: Timestamp) {
        let by = silence_name(silence);
        let numbers: Vec<_> = self
            .incidents
            .values()
            .filter(|incident| incident.resolved_at.is_none() && incident.ack.is_none())
            .filter(|incident| {
                incident.withheld.values().any(|w| w.why == SuppressedBy::Silenced && w.by == by)
            })
            .map(|incident| incident.number)
            .collect();
        for number in numbers {
            let Some(incident) = self.incidents.remove(&number) else { continue };
            self.announce_to(&incident, silence, now);
            self.incidents.insert(number, incident);
        }
    }

    fn announce_to(&mut self, incident: &Incident, silence: &Silence, now: Timestamp) {
        let by = silence_name(silence);
        let truth = self.truth(incident, now);
        let held: BTreeSet<_> = truth
            .withheld
            .iter()
            .filter(|(_, w)| w.why == SuppressedBy::Silenced && w.by == by)
            .map(|(k, _)| k)
            .collect();
        if held.is_empty() {
            return;
        }
        let note = format!("{by} of {} ends at {}", silence.author, utc_time(silence.ends_at));
        for receiver in self.audience(incident) {
            let knows = self.expected(incident, &receiver);
            let claim = |key| Some((crate::rules::alert::AlertKey::clone(key), *truth.firing.get(key)?));
            let firing: Vec<_> = knows.keys().filter(|key| held.contains(key)).filter_map(claim).collect();
            if !firing.is_empty() {
                let says = Says { firing, resolved: BTreeSet::new() };
                let reason = Reason::SilenceEnding.name();
                self.push_noted(incident, &receiver, Kind::Reminder, reason, says, Some(&note), now);
            }
        }
        let text = format!("{note}: {}", self.names_of(&held));
        self.note(now, Some(incident.number), "silence_ending", Reason::SilenceEnding, &text);
    }

    fn names_of(&self, keys: &BTreeSet<&crate::rules::alert::AlertKey>) -> String {
        let name = |key: &&crate::rules::alert::AlertKey| Some(text::name_of(&self.alerts.get(key)?.labels));
        let names: Vec<_> = keys.iter().filter_map(name).take(SHOWN_MAX).collect();
        names.join(", ")
    }

    pub fn silences(&self, now: Timestamp) -> Vec<ctl::Silence> {
        self.silences.iter().map(|silence| self.view_silence(silence, now)).collect()
    }

    /// How much a silence would match now. A silence that selects only hosts also counts hosts
    /// without firing alerts.
    fn reach(&self, silence: &Silence) -> Reach {
        let firing = self.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none());
        let (mut reach, mut hosts) = (Reach::default(), BTreeSet::new());
        let mut all_hosts: BTreeSet<&str> = self.agents.values().map(|agent| agent.host.as_str()).collect();
        for (_, alert) in firing {
            reach.all_alerts += 1;
            let host = alert.labels.get("host").map_or("", String::as_str);
            all_hosts.insert(host);
            if silence.matches(&alert.labels) {
                reach.alerts += 1;
                hosts.insert(host);
            }
        }
        if silence.is_of_hosts() {
            let whole = |host: &&str| silence.matches(&[("host".to_owned(), (*host).to_owned())].into());
            hosts.extend(all_hosts.iter().copied().filter(whole));
        }
        Reach { hosts: hosts.len(), all_hosts: all_hosts.len(), ..reach }
    }

    pub(super) fn view_silence(&self, silence: &Silence, now: Timestamp) -> ctl::Silence {
        let firing = self.alerts.iter().filter(|(_, alert)| alert.resolved_at.is_none());
        let matched = firing.filter(|(_, alert)| silence.matches(&alert.labels));
        let reach = self.reach(silence);
        ctl::Silence {
            number: silence.number,
            matchers: silence.matchers.iter().map(ToString::to_string).collect(),
            author: silence.author.clone(),
            comment: silence.comment.clone(),
            starts_at: silence.starts_at,
            ends_at: silence.ends_at,
            active: silence.is_active(&self.periods, now),
            state: silence.state(&self.periods, now).into(),
            period: silence.period.clone(),
            matches: reach.alerts as u64,
            hosts: reach.hosts as u64,
            alerts: matched.take(SHOWN_MAX).map(|(_, alert)| alert.line()).collect(),
            broad: reach.is_broad(silence),
        }
    }
}

pub(super) fn check_span(from: Timestamp, until: Timestamp, now: Timestamp) -> Result<(), String> {
    if until <= from.max(now) {
        return Err("the end must be in the future and after the start; use for example --for 2h".into());
    }
    if between(now, until) > SILENCE_MAX {
        return Err("the end must be within a year; for longer, change the config".into());
    }
    Ok(())
}

pub(super) fn silence_name(silence: &Silence) -> String {
    format!("silence {}", silence.number)
}
