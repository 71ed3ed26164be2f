//! Digests: one message for all notifications that a rate limit delayed, with numbers, common
//! labels and the first lines.
//!
//! Nothing is dropped: each replaced notification stays a row with state `digested`. When the
//! digest is accepted, the receiver knows their content. So recoveries are sent for problems in a
//! digest, and `alertctl why` shows the digest.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Core;
use crate::rules::{
    alert::Claim,
    budgets::Whose,
    matcher::Labels,
    notification::{Digest, DigestLine, Kind, Notification, NotifiedAlert},
    outbox::Row,
    reason::Reason,
    storm::{self, Group, Item},
    told::Says,
};

/// Maximum number of notifications listed in a digest; the others only count in its groups.
const LINES_MAX: usize = 500;
/// Maximum number of groups in a digest.
const GROUPS_MAX: usize = 8;

impl Core {
    /// Replaces `rows`, which had to wait for `held_by`, by one notification.
    pub(super) fn make_digest(
        &mut self,
        receiver: &str,
        rows: &[u64],
        held_by: &Whose,
        now: Timestamp,
    ) -> u64 {
        let held = || rows.iter().filter_map(|seq| self.outbox.get(*seq)).map(|row| &row.notification);
        let lines = held().take(LINES_MAX).map(|said| DigestLine {
            incident: said.incident,
            kind: said.kind,
            title: super::view::title_of(&said.firing, &said.resolved),
            at: said.created_at,
        });
        let lines = lines.collect();
        let mut groups = self.groups_of(receiver, rows, held());
        let more_groups = groups.len().saturating_sub(GROUPS_MAX);
        groups.truncate(GROUPS_MAX);
        let count = |kinds: &[Kind]| held().filter(|said| kinds.contains(&said.kind)).count();
        let summary = Digest {
            problems: count(&[Kind::Problem, Kind::Update, Kind::Reminder]),
            recoveries: count(&[Kind::Recovery]),
            acks: count(&[Kind::Acknowledged]),
            groups,
            more_groups,
            held_by: held_by.words(),
        };
        let seq = self.next_outbox_seq();
        let notification = Notification {
            id: self.notification_id(seq),
            incident: 0,
            dedup_key: format!("dogwatch-{}-digest-{receiver}", self.instance),
            receiver: receiver.into(),
            kind: Kind::Digest,
            reason: Reason::RateLimited.name().into(),
            created_at: now,
            group: Labels::new(),
            firing: Vec::new(),
            resolved: Vec::new(),
            digest: lines,
            summary: Some(Box::new(summary)),
            ack: None,
            note: None,
            lately: Vec::new(),
        };
        let text = format!(
            "{} to {receiver} replaces {} notifications, delayed by {}",
            notification.id,
            rows.len(),
            held_by.words()
        );
        self.note(now, None, "digested", Reason::RateLimited, &text);
        self.outbox.digest(Row::new(seq, notification, Says::default()), rows, now);
        self.dirty.outbox.extend(rows);
        seq
    }

    /// Groups the alerts of a digest, including alerts of the same storm in other notifications to
    /// this receiver.
    fn groups_of<'a>(
        &'a self,
        receiver: &str,
        rows: &[u64],
        held: impl Iterator<Item = &'a Notification> + Clone,
    ) -> Vec<Group> {
        let told = held.filter(|said| said.kind != Kind::Acknowledged);
        let item = |alert: &'a NotifiedAlert| Item {
            labels: &alert.labels,
            state: Claim::of(alert.state, alert.flapping).map_or(alert.state, Claim::as_state),
            over: alert.resolved_at.is_some(),
            since: alert.resolved_at.unwrap_or(alert.since),
            known: false,
        };
        let mut items: Vec<_> =
            told.flat_map(|said| said.firing.iter().chain(&said.resolved)).map(item).collect();
        let groups = storm::groups(&items);
        if !groups.iter().any(Group::is_storm) {
            return groups;
        }
        let checks: BTreeSet<_> = groups.iter().map(|group| group.check.as_str()).collect();
        let knows = self.incidents.values().filter_map(|incident| incident.told.get(receiver));
        for (key, claim) in knows.flat_map(|told| &told.knows) {
            let Some(alert) = self.alerts.get(key).filter(|alert| alert.claim() == Some(*claim)) else {
                continue;
            };
            if checks.contains(storm::check_of(&alert.labels)) {
                let (labels, state, since) = (&alert.labels, claim.as_state(), alert.since);
                items.push(Item { labels, state, over: false, since, known: true });
            }
        }
        let said: BTreeSet<_> = rows.iter().collect();
        let waits = |row: &&Row| {
            row.is_untried() && row.notification.receiver == receiver && !said.contains(&row.seq)
        };
        let waiting = self.outbox.iter().filter(waits).flat_map(|row| &row.notification.firing);
        items.extend(waiting.map(|alert| Item { known: true, ..item(alert) }));
        storm::groups(&items)
    }
}
