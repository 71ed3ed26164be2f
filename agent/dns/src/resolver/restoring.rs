//! What a snapshot remembers, put back; and time that went by without the clock counting it.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Resolver;
use crate::{
    cache::{Drafter, Drafts, Facts},
    local::LocalNames,
    moment::Moment,
    name::{self, Key},
    snapshot::Take,
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

/// Puts back what a snapshot remembers.
pub struct Restoring<'a> {
    resolver: &'a mut Resolver,
    now: Moment,
}

impl Take for Restoring<'_> {
    /// In two threads, if there is much: one reads the answers, this one finds them a place.
    fn take_all(&mut self, count: usize, answers: &mut (dyn Iterator<Item = Remembered<'_>> + Send)) {
        let Self { resolver, now } = self;
        resolver.cache.reserve(count);
        let reader = resolver.reader_as_of(*now);
        let answers = Mutex::new(answers);
        let read = || {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            reader.read(&mut **answers)
        };
        if count > BATCH {
            thread::scope(|scope| {
                let (send, batches) = sync_channel(BATCHES_MAX);
                let work = move || while read().is_some_and(|batch| send.send(batch).is_ok()) {};
                // Without a thread all are left for below.
                let _ = thread::Builder::new().name("restore".into()).spawn_scoped(scope, work);
                for batch in batches {
                    resolver.take_batch(batch, *now);
                }
            });
        }
        while let Some(batch) = read() {
            resolver.take_batch(batch, *now);
        }
    }
}

/// Makes entries of what a snapshot remembers.
struct Reader {
    drafter: Drafter,
    local: Arc<LocalNames>,
    now: Moment,
}

struct Batch {
    drafts: Drafts,
    /// When the last of them was learned.
    learned: Moment,
}

/// Answers that go from thread to thread together, and batches that wait at most.
const BATCH: usize = 512;
const BATCHES_MAX: usize = 4;

impl Reader {
    /// The next answers; `None` if there are no more.
    fn read(&self, answers: &mut (dyn Iterator<Item = Remembered<'_>> + Send)) -> Option<Batch> {
        let mut batch = Batch { drafts: Drafts::default(), learned: Moment::START };
        while batch.drafts.len() < BATCH
            && let Some(answer) = answers.next()
        {
            // What is no answer is left out.
            let _ = self.add(&mut batch, &answer);
        }
        (batch.drafts.len() > 0).then_some(batch)
    }

    fn add(&self, batch: &mut Batch, answer: &Remembered<'_>) -> Option<()> {
        let (question, _) = wire::read_question(answer.message)?;
        let read = wire::read_answer(answer.message, &question).ok()?;
        let key = Key::new(&question, answer.dnssec_ok, answer.checking_disabled);
        if self.local.answer(name::name_of(&key), &question).is_some() {
            return None;
        }
        let learned = self.now - answer.age;
        let facts = self.drafter.draft(&mut batch.drafts, &key, answer.message, &read, learned)?;
        facts.resume(answer.uses, answer.good_for);
        facts.pass_unseen(answer.unseen, self.now);
        batch.learned = batch.learned.max(learned);
        Some(())
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
    pub(super) fn used_within(&self, entry: &Facts, within: Duration, now: Moment) -> bool {
        let last_used = entry.last_used();
        let unheard = self.start.filter(|start| last_used <= start.learned);
        let unheard = unheard.map_or(Duration::ZERO, |start| start.at.since(start.learned));
        entry.popularity() > 0 && now.since(last_used) <= within + unheard
    }

    /// Takes what a snapshot has, as of now.
    pub fn restoring(&mut self, now: Moment) -> Restoring<'_> {
        Restoring { resolver: self, now }
    }

    /// Puts back one answer. Older news of the same question does not replace newer.
    pub fn restore(&mut self, answer: &Remembered<'_>, now: Moment) -> bool {
        let batch = self.reader_as_of(now).read(&mut std::iter::once(*answer));
        batch.is_some_and(|batch| self.take_batch(batch, now) > 0)
    }

    fn reader_as_of(&self, now: Moment) -> Reader {
        Reader { drafter: self.cache.drafter(), local: Arc::clone(&self.settings.local), now }
    }

    /// Returns how many were kept.
    fn take_batch(&mut self, batch: Batch, now: Moment) -> usize {
        let mut kept = 0;
        let newest = self.start.map_or(batch.learned, |start| start.learned.max(batch.learned));
        self.start = Some(Start { learned: newest, at: now });
        batch.drafts.into_each(|hash, facts, block| {
            let learned = facts.learned();
            let positive = facts.verdict == Verdict::Positive;
            let Some(slot) = self.cache.insert_draft(hash, facts, block) else { return };
            kept += 1;
            self.note_pinned(slot, learned);
            if positive && let Some(entry) = self.cache.get(slot) {
                let zone = self.zones.get_mut(self.zones.of_entry(entry.entry()));
                if zone.wants_canary() {
                    zone.restore_canary(&entry.key());
                }
            }
        });
        kept
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
