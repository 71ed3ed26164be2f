//! Restores answers from a snapshot, and accounts for time that the clock did not count.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::Resolver;
use crate::{
    cache::{Cache, Draft, Facts},
    message::{
        name::{self, Key},
        wire::{self, Answer, Header, Verdict},
    },
    moment::Moment,
    workers::Workers,
    zones::{
        local::LocalNames,
        origin::Origin,
        views::Views,
        zone::{CANARIES_MAX, ZoneId, Zones},
    },
};

/// An answer from before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered<'a> {
    /// As received from the upstream, without OPT.
    pub message: &'a [u8],
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    /// How much it was asked for recently.
    pub uses: u16,
    /// How long the question had been answered positively without a break when this was received.
    pub good_for: Duration,
    /// Time since it was received.
    pub age: Duration,
    /// Additional time that may have passed. It does not expire the answer as last known good, but
    /// it is refreshed.
    pub unseen: Duration,
}

impl<'a> Remembered<'a> {
    /// One that was just received and not used yet.
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

/// Answers from before the start, the oldest first; of one question several, the youngest last.
pub trait RememberedAnswers: Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, place: usize) -> Option<Remembered<'_>>;
}

/// Starting a thread takes as long as restoring a thousand answers.
const WORTH_THREADS: usize = 4_096;

/// What must be known about all answers before the threads can share the work.
struct Sorted {
    hashes: Vec<u64>,
    /// Memory needed if all are cached.
    bytes: usize,
}

impl Sorted {
    fn of(answers: &impl RememberedAnswers, cache: &Cache, count: usize, workers: &impl Workers) -> Self {
        const PIECE: usize = 4_096;
        let mut hashes = vec![0; answers.len()];
        let mut pieces: Vec<_> = hashes.chunks_mut(PIECE).enumerate().map(|piece| (piece, 0)).collect();
        workers.each(count, &mut pieces, |((number, hashes), bytes)| {
            for (place, hash) in (*number * PIECE..).zip(hashes.iter_mut()) {
                let Some(answer) = answers.get(place) else { continue };
                let message = answer.message;
                *hash = cache.table().hash_message(message, answer.dnssec_ok, answer.checking_disabled);
                let records = Header::read(message).map_or(0, |header| header.records());
                *bytes += Cache::cost_at_most(message.len(), records.try_into().unwrap_or(0));
            }
        });
        let bytes = pieces.into_iter().map(|(_, bytes)| bytes).sum();
        Self { hashes, bytes }
    }
}

/// Parses answers from a snapshot.
struct AnswerReader<'a> {
    local: &'a LocalNames,
    now: Moment,
}

/// One parsed answer.
struct Read<'a> {
    key: Key,
    answer: Answer,
    learned: Moment,
    remembered: &'a Remembered<'a>,
}

impl AnswerReader<'_> {
    /// `None` if it is not an answer, or if the name is local now.
    fn read<'a>(&self, remembered: &'a Remembered<'a>) -> Option<Read<'a>> {
        let (question, answer) = wire::read_kept_answer(remembered.message).ok()?;
        let key = Key::new(&question, remembered.dnssec_ok, remembered.checking_disabled);
        if self.local.answer(name::name_of(&key), &question).is_some() {
            return None;
        }
        Some(Read { key, answer, learned: self.now - remembered.age, remembered })
    }
}

impl Read<'_> {
    fn draft(&self) -> Draft<'_> {
        let Self { key, answer, learned, remembered } = self;
        Draft { key, message: remembered.message, answer, learned: *learned }
    }

    fn resume(&self, facts: &mut Facts, now: Moment) {
        facts.resume(self.remembered.uses, self.remembered.good_for);
        facts.pass_unseen(self.remembered.unseen, now);
    }

    fn canary(&self) -> Option<&Key> {
        (self.answer.verdict == Verdict::Positive).then_some(&self.key)
    }
}

/// What one thread found while filling its share.
struct Noticed {
    /// When the newest of them was received.
    learned: Moment,
    canaries: Canaries,
}

/// Questions to probe with: the first ones found, as many as a zone may need.
#[derive(Default)]
struct Canaries(Vec<(usize, ZoneId, Box<[u8]>)>);

impl Canaries {
    fn see(&mut self, order: usize, key: &Key, zones: &Zones) {
        let id = zones.of_known(|| name::name_of(key));
        let zone = name::zone_of(key);
        let of_zone = self.0.iter().filter(|(_, other, _)| *other == id);
        let mut known = 0;
        for (_, _, other) in of_zone {
            known += 1;
            if known >= CANARIES_MAX || name::zone_of(other) == zone {
                return;
            }
        }
        self.0.push((order, id, key.as_bytes().into()));
    }
}

/// What was restored at start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    pub names: usize,
    /// Loading time before the first query was read.
    pub ms: f64,
    /// Problems with the files; each is in the log.
    pub troubles: usize,
}

/// A start with a snapshot: when its newest answer was received, and when it was loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    learned: Moment,
    at: Moment,
}

impl Resolver {
    /// Whether a client asked for this within the last `within`. Uses after the snapshot's last
    /// write are unknown, so the time between then and the start does not count.
    pub(super) fn used_within(&self, entry: &Facts, within: Duration, now: Moment) -> bool {
        let last_used = entry.last_used();
        let unheard = self.start.filter(|start| last_used <= start.learned);
        let unheard = unheard.map_or(Duration::ZERO, |start| start.at.since(start.learned));
        entry.popularity() > 0 && now.since(last_used) <= within + unheard
    }

    /// Puts back all answers: side by side into an empty cache that has room for them all, else one
    /// by one.
    pub fn restore_all(&mut self, answers: &impl RememberedAnswers, workers: &impl Workers, now: Moment) {
        let count = if answers.len() < WORTH_THREADS { 1 } else { workers.count() };
        let Sorted { hashes, bytes } = Sorted::of(answers, &self.cache, count, workers);
        if self.cache.can_be_filled_with(bytes) {
            self.fill(answers, &hashes, count, workers, now);
        } else {
            (0..answers.len()).filter_map(|place| answers.get(place)).for_each(|answer| {
                self.restore(&answer, now);
            });
        }
    }

    /// Restores one answer. An older answer does not replace a newer one.
    pub fn restore(&mut self, answer: &Remembered<'_>, now: Moment) -> bool {
        let local = Arc::clone(&self.settings.local);
        let Some(read) = (AnswerReader { local: &local, now }).read(answer) else { return false };
        self.note_start(read.learned, now);
        let change = |facts: &mut Facts| read.resume(facts, now);
        let Some(slot) = self.cache.insert_draft(&read.draft(), change) else { return false };
        self.note_pinned(slot, read.learned);
        if let Some(key) = read.canary() {
            self.zones.get_mut(self.zones.of_known(|| name::name_of(key))).restore_canary(key);
        }
        true
    }

    /// Restores the answers with these hashes; all must fit.
    fn fill(
        &mut self,
        answers: &impl RememberedAnswers,
        hashes: &[u64],
        count: usize,
        workers: &impl Workers,
        now: Moment,
    ) {
        let reader = AnswerReader { local: &self.settings.local, now };
        let zones = &self.zones;
        let noticed = self.cache.fill(answers.len(), count, workers, |filler| {
            let mut noticed = Noticed { learned: Moment::START, canaries: Canaries::default() };
            for (place, &hash) in hashes.iter().enumerate() {
                if !filler.owns(hash) {
                    continue;
                }
                let Some(remembered) = answers.get(place) else { continue };
                let Some(read) = reader.read(&remembered) else { continue };
                noticed.learned = noticed.learned.max(read.learned);
                if filler.put(place, hash, &read.draft(), |facts| read.resume(facts, now))
                    && let Some(key) = read.canary()
                {
                    noticed.canaries.see(place, key, zones);
                }
            }
            noticed
        });
        let mut canaries = Vec::new();
        for one in noticed {
            self.note_start(one.learned, now);
            canaries.extend(one.canaries.0);
        }
        canaries.sort_by_key(|(order, ..)| *order);
        for (_, zone, key) in &canaries {
            self.zones.get_mut(*zone).restore_canary(key);
        }
        let mut pinned: Vec<Box<[u8]>> = self.pins.keys().map(Into::into).collect();
        pinned.sort_unstable();
        for slot in pinned.iter().filter_map(|key| self.cache.find(key)).collect::<Vec<_>>() {
            let learned = self.cache.get(slot).map_or(now, |entry| entry.learned());
            self.note_pinned(slot, learned);
        }
    }

    /// Call after [`Self::restore`]. Names that other upstreams answer for now are queried anew,
    /// and each zone gets its former query rate.
    pub fn restore_origin(&mut self, origin: &Origin, now: Moment) {
        let Some(before) = origin.views() else { return };
        self.on_other_views(&before, now);
        for (suffix, rate) in origin.rates() {
            let same = |id: &ZoneId| *self.zones.get(*id).settings.suffix == *suffix;
            if let Some(id) = self.zones.ids().find(same) {
                self.zones.get_mut(id).baseline.resume(rate);
            }
        }
    }

    fn note_start(&mut self, learned: Moment, now: Moment) {
        let newest = self.start.map_or(learned, |start| start.learned.max(learned));
        self.start = Some(Start { learned: newest, at: now });
    }

    /// Names that now have other upstreams are asked again. The old answer is kept until those
    /// reply, if it is positive. It is removed from disk, where only one list of upstreams is
    /// recorded.
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
        // Holds on these names no longer concern the old zone.
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
                // Zones are configured for names that do not exist elsewhere, so the old negative
                // answer is useless.
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

    /// Time may have passed that the clock did not count (a suspended virtual machine), so fresh
    /// answers may not be fresh. Nothing becomes too old to serve, because it may only be that
    /// someone set the clock.
    pub fn on_unseen_time(&mut self, unseen: Duration, now: Moment) {
        self.cache.pass_unseen(unseen, now);
        self.on_pause(now, unseen, now);
    }
}
