//! What a snapshot remembers, put back; and time that went by without the clock counting it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Resolver;
use crate::{
    cache::Entry,
    moment::Moment,
    name::{self, Key},
    views::Views,
    wire::{self, Verdict},
};

/// An answer from before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered<'a> {
    /// As upstream gave it, without OPT.
    pub message: &'a [u8],
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    /// How much it was asked for lately.
    pub uses: u16,
    /// How long the question had been answered positively without a break when it was learned.
    pub good_for: Duration,
    /// Time since it was learned.
    pub age: Duration,
    /// Time that may have passed besides: no reason to forget it, but to ask again.
    pub unseen: Duration,
}

impl<'a> Remembered<'a> {
    /// One that was learned just now and that nobody has asked for.
    pub fn new(message: &'a [u8]) -> Self {
        Self {
            message,
            dnssec_ok: false,
            checking_disabled: false,
            uses: 0,
            good_for: Duration::ZERO,
            age: Duration::ZERO,
            unseen: Duration::ZERO,
        }
    }
}

/// What the start brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    pub names: usize,
    /// What loading them took, before the first query was read.
    pub ms: f64,
    /// Troubles with the files; each is in the log.
    pub troubles: usize,
}

/// A start in the midst of things: when the last answer was learned that it brought back, and when it brought it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    learned: Moment,
    at: Moment,
}

impl Resolver {
    /// Whether somebody asked for this within so long. Who asked before the start while no upstream answered was told what
    /// the disk knows of, but not that he asked: that time does not count.
    pub(super) fn used_within(&self, entry: &Entry, within: Duration, now: Moment) -> bool {
        let last_used = entry.last_used();
        let unheard = self.start.filter(|start| last_used <= start.learned);
        let unheard = unheard.map_or(Duration::ZERO, |start| start.at.since(start.learned));
        entry.popularity() > 0 && now.since(last_used) <= within + unheard
    }

    /// Puts back what a snapshot remembers. Older news of the same question does not replace newer.
    pub fn restore(&mut self, answer: &Remembered<'_>, now: Moment) -> bool {
        let Some((question, _)) = wire::read_question(answer.message) else { return false };
        let Ok(read) = wire::read_answer(answer.message, &question) else { return false };
        let key = Key::new(&question, answer.dnssec_ok, answer.checking_disabled);
        if self.is_local(&key) {
            return false;
        }
        let learned = now - answer.age;
        let newest = self.start.map_or(learned, |start| start.learned.max(learned));
        self.start = Some(Start { learned: newest, at: now });
        let kept = self.cache.insert_unless_older(&key, answer.message, &read, learned);
        let Some(slot) = kept else { return false };
        self.cache.edit(slot, |entry| {
            entry.resume(answer.uses, answer.good_for);
            entry.pass_unseen(answer.unseen, now);
        });
        self.note_pinned(slot, learned);
        if read.verdict == Verdict::Positive {
            let zone = self.zones.of_key(&key);
            self.zones.get_mut(zone).restore_canary(&key);
        }
        true
    }

    /// Names that other upstreams answer for than before are asked anew; the old answer stays for as long as those are silent,
    /// if it is one. The disk forgets it: only one list of upstreams is kept there.
    pub(crate) fn on_other_views(&mut self, before: &Views, now: Moment) {
        let views = Views::of(&self.zones);
        if views == *before {
            return;
        }
        let moved: Vec<_> = self
            .cache
            .iter()
            .map(|(slot, entry)| (slot, entry.key(), entry.verdict))
            .filter(|(_, key, _)| before.differ(&views, key.as_bytes()))
            .collect();
        // What was doubted there is no business of the old zone's any more.
        for suffix in views.added(before) {
            for id in self.zones.ids() {
                let zone = self.zones.get_mut(id);
                if !name::is_below(&zone.settings.suffix, suffix) {
                    zone.guard.accept(suffix, now);
                }
            }
        }
        for (slot, key, verdict) in moved {
            self.forgotten.push_back(key.as_bytes().into());
            if verdict != Verdict::Positive {
                // That a name is not to be found elsewhere is why a zone is named: nobody wants to hear it again.
                self.cache.remove(slot);
                continue;
            }
            self.cache.edit(slot, |entry| entry.leave_view(now));
            if self.pins.contains(key.as_bytes()) {
                self.start_refresh(key.as_bytes(), now);
            }
        }
        let zones_differ = |key: &[u8]| before.differ(&views, key);
        self.failures.forget(zones_differ);
    }

    /// Time may have passed that the clock did not count (a virtual machine was frozen): what was fresh may not be any
    /// more. Nothing becomes too old by it, for it may as well have been somebody who set the clock.
    pub fn on_unseen_time(&mut self, unseen: Duration, now: Moment) {
        self.cache.pass_unseen(unseen, now);
    }
}
