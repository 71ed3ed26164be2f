//! Requests from people: acknowledge, remove an ack, send a test notification.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{Core, Refused, review::Truth, rules::text::utc_time};
use crate::rules::{
    ack::Ack,
    incident::Incident,
    matcher::Labels,
    moment::later,
    notification::{Kind, Notification},
    outbox::Row,
    reason::{Cause, Reason},
    told::Says,
};

/// Maximum number of characters in a comment.
pub(super) const COMMENT_CHARS_MAX: usize = 2_000;

impl Core {
    pub fn on_ack(
        &mut self,
        number: u64,
        ask: &ctl::Ack,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Incident, Refused> {
        let mut incident = self.take_open(number)?;
        let ack = Ack {
            author: author.into(),
            comment: ask.comment.chars().take(COMMENT_CHARS_MAX).collect(),
            at: now,
            sticky: ask.sticky,
            reminded: false,
            expires_at: ask.expire_s.map(|seconds| later(now, Duration::from_secs(seconds))),
        };
        self.note_by(now, Some(number), "acked", Reason::Acked, Some(author), &ack.comment);
        self.detail(ctl::Detail { ack: Some(ack.to_info()), ..ctl::Detail::default() });
        incident.ack = Some(ack);
        incident.pause(now);
        for receiver in self.audience(&incident) {
            self.supersede_untried(number, &receiver, Reason::Acked, now);
            // Only receivers that were notified of the problem are notified of the ack.
            if !self.expected(&incident, &receiver).is_empty() {
                self.push(
                    &incident,
                    &receiver,
                    Kind::Acknowledged,
                    Reason::Acked.name(),
                    Says::default(),
                    now,
                );
            }
        }
        let view = self.view_incident(&incident, now);
        self.put_back(incident);
        Ok(view)
    }

    /// Acknowledges through a link in an email, once for each `nonce`. Used nonces are stored with
    /// the incident; no link can acknowledge a resolved incident.
    pub fn on_ack_by_link(
        &mut self,
        number: u64,
        nonce: &str,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Incident, Refused> {
        self.link(number, nonce, now)?;
        if let Some(incident) = self.incidents.get_mut(&number) {
            incident.used_links.insert(nonce.to_owned());
        }
        self.on_ack(number, &ctl::Ack::default(), author, now)
    }

    /// The incident of a link in an email, if the link can still be used.
    pub fn link(&self, number: u64, nonce: &str, now: Timestamp) -> Result<ctl::Incident, Refused> {
        let open = self.incidents.get(&number).filter(|incident| incident.resolved_at.is_none());
        let incident = open.ok_or(Refused::NoIncident(number))?;
        if incident.used_links.contains(nonce) {
            return Err(Refused::LinkUsed(number));
        }
        Ok(self.view_incident(incident, now))
    }

    /// Sends a reminder that an ack ends soon: to its author if the config has that user, otherwise
    /// to everybody who was notified of the problem.
    pub(super) fn remind_of_ack(&mut self, incident: &mut Incident, truth: &Truth, now: Timestamp) {
        let Some(ack) = &mut incident.ack else { return };
        ack.reminded = true;
        let (author, ends_at) = (ack.author.clone(), ack.expires_at.unwrap_or(now));
        self.dirty.incidents.insert(incident.number);
        if truth.visible.is_empty() {
            return;
        }
        let note = format!("the ack of {author} ends at {}", utc_time(ends_at));
        let first_rule = self.rules.users.get(&author).and_then(|user| user.rules.first());
        let receivers = match first_rule {
            Some(rule) => rule.notify.iter().cloned().collect(),
            None => self.audience(incident),
        };
        self.note(now, Some(incident.number), "ack_ending", Reason::AckEnding, &note);
        for receiver in receivers {
            let firing = truth.visible.clone().into_iter().collect();
            let says = Says { firing, resolved: BTreeSet::new() };
            let reason = Reason::AckEnding.name();
            self.push_noted(incident, &receiver, Kind::Reminder, reason, says, Some(&note), now);
        }
    }

    pub fn on_unack(
        &mut self,
        number: u64,
        ask: &ctl::Unack,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Incident, Refused> {
        let mut incident = self.take_open(number)?;
        let ended = incident.end_ack(Cause::Unacked, now);
        let view = self.view_incident(&incident, now);
        self.put_back(incident);
        if ended.is_none() {
            return Err(Refused::NotAcked(number));
        }
        let comment: String = ask.comment.chars().take(COMMENT_CHARS_MAX).collect();
        self.note_by(now, Some(number), "unacked", Reason::Unacked, Some(author), &comment);
        self.detail(ctl::Detail::default());
        Ok(view)
    }

    fn take_open(&mut self, number: u64) -> Result<Incident, Refused> {
        if !self.is_open(number) {
            return Err(Refused::NoIncident(number));
        }
        self.incidents.remove(&number).ok_or(Refused::NoIncident(number))
    }

    fn put_back(&mut self, incident: Incident) {
        self.dirty.incidents.insert(incident.number);
        self.touched.insert(incident.number);
        self.incidents.insert(incident.number, incident);
    }

    /// Queues a test notification regardless of routes, limits and silences. Returns its number in
    /// the outbox.
    pub fn on_test(&mut self, receiver: &str, author: &str, now: Timestamp) -> Result<u64, Refused> {
        if !self.rules.receivers.contains_key(receiver) {
            let names: Vec<_> = self.rules.receivers.keys().map(String::as_str).collect();
            return Err(Refused::NoReceiver(receiver.into(), names.join(", ")));
        }
        let seq = self.next_outbox_seq();
        let id = self.notification_id(seq);
        let notification = Notification {
            dedup_key: format!("dogwatch-{}-test-{seq}", self.instance),
            id,
            incident: 0,
            receiver: receiver.into(),
            kind: Kind::Test,
            reason: Reason::Test.name().into(),
            created_at: now,
            group: Labels::new(),
            firing: Vec::new(),
            resolved: Vec::new(),
            digest: Vec::new(),
            summary: None,
            ack: None,
            note: None,
            lately: Vec::new(),
        };
        self.note_by(
            now,
            None,
            "notified",
            Reason::Test,
            Some(author),
            &format!("test notification to {receiver}"),
        );
        self.outbox.insert(Row::new(seq, notification, Says::default()));
        self.dirty.outbox.insert(seq);
        Ok(seq)
    }
}
