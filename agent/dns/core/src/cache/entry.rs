//! One cached answer and its bookkeeping, in 36 bytes and one block.
//!
//! Fields that the answering threads write (use counts, the visited bits), and the recheck time,
//! which only the core writes but they read, are atomic. The rest never changes while the entry
//! exists. The atomics order no other memory: they are hints and counters.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::blocks::{self, Block};
use crate::{
    cache::prefetch::prefetch,
    message::{
        chain,
        name::{Key, key_flags},
        reply::Kept,
        wire::{Answer, HEADER_LEN, Query, Verdict},
    },
    moment::Moment,
};

/// A [`Moment`] in four bytes: in steps of 64 ms it covers eight years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u32);

const STEP_MS: u64 = 64;

impl Stamp {
    /// Rounds down.
    fn of(moment: Moment) -> Self {
        Self(u32::try_from(moment.as_millis() / STEP_MS).unwrap_or(u32::MAX))
    }

    fn moment(self) -> Moment {
        Moment::from_millis(u64::from(self.0) * STEP_MS)
    }
}

/// One cached answer: its bookkeeping and its bytes.
///
/// The key is not stored. Its name, type and class are the question in the message, which is kept
/// in lower case for this purpose.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    facts: &'a Facts,
    /// Message, then TTL offsets (16-bit little-endian).
    block: &'a [u8],
}

impl Deref for Entry<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        self.facts
    }
}

/// The bookkeeping for one answer.
pub struct Facts {
    /// The message and the TTL offsets.
    pub(super) block: Block,
    learned: Stamp,
    /// The remainder that the stamp rounds off: a TTL ends to the millisecond.
    learned_ms: u8,
    good_since: Stamp,
    ttl_s: u32,
    recheck_at: AtomicU32,
    last_used: AtomicU32,
    uses: AtomicU16,
    past_uses: u16,
    message_len: u16,
    ttl_offsets: u16,
    pub verdict: Verdict,
    key_flags: u8,
    marks: AtomicU8,
}

const REFRESH_ASKED: u8 = 2;
const PINNED: u8 = 4;
const OTHER_VIEW: u8 = 8;
const CHAIN: u8 = 16;
/// Visits up to three, in the top bits. If two threads count to four at once, it wraps to zero and
/// no other mark changes.
const VISITS: u8 = 0xc0;
const VISIT: u8 = 0x40;

/// An empty place.
impl Default for Facts {
    fn default() -> Self {
        Self {
            block: Block::NONE,
            learned: Stamp(0),
            learned_ms: 0,
            good_since: Stamp(0),
            ttl_s: 0,
            recheck_at: AtomicU32::new(0),
            last_used: AtomicU32::new(0),
            uses: AtomicU16::new(0),
            past_uses: 0,
            message_len: 0,
            ttl_offsets: 0,
            verdict: Verdict::NoData,
            key_flags: 0,
            marks: AtomicU8::new(0),
        }
    }
}

impl Facts {
    /// Describes an answer to `key` and appends its bytes to `blocks`; [`Self::block`] is not set
    /// yet. `None` if the message does not answer `key` or is too long; some bytes may have been
    /// appended even then.
    pub(super) fn new(
        blocks: &mut Vec<u8>,
        key: &[u8],
        message: &[u8],
        answer: &Answer,
        ttl_s: u32,
        learned: Moment,
    ) -> Option<Self> {
        let (&key_flags, question) = key.split_last()?;
        let message = message.get(..answer.len)?;
        let start = blocks.len();
        blocks.extend_from_slice(message);
        let kept = &mut blocks[start..];
        kept.get_mut(HEADER_LEN..HEADER_LEN + question.len())?.copy_from_slice(question);
        // The header's count must not include the OPT record, which was cut off.
        kept[10..HEADER_LEN].copy_from_slice(&answer.additionals.to_be_bytes());
        let marks = if chain::begins(kept) { CHAIN } else { 0 };
        blocks.extend(answer.ttl_offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        let learned_ms = u8::try_from(learned.as_millis() % STEP_MS).ok()?;
        let learned = Stamp::of(learned);
        Some(Self {
            block: Block::NONE,
            learned,
            learned_ms,
            good_since: learned,
            ttl_s,
            recheck_at: AtomicU32::new(learned.0),
            last_used: AtomicU32::new(learned.0),
            uses: AtomicU16::new(0),
            past_uses: 0,
            message_len: u16::try_from(message.len()).ok()?,
            ttl_offsets: u16::try_from(answer.ttl_offsets.len()).ok()?,
            verdict: answer.verdict,
            key_flags,
            marks: AtomicU8::new(marks),
        })
    }

    pub(super) fn is_none(&self) -> bool {
        self.block == Block::NONE
    }

    pub(super) fn block_len(&self) -> usize {
        usize::from(self.message_len) + 2 * usize::from(self.ttl_offsets)
    }

    /// Carries over what outlives a refresh: popularity, the pin, and how long the name has been
    /// good.
    pub(super) fn follow(&mut self, old: &Self) {
        self.past_uses = old.past_uses / 2 + old.uses_a_ttl(self.learned()).min(u16::MAX / 2);
        *self.last_used.get_mut() = old.last_used.load(Relaxed);
        *self.marks.get_mut() |= old.marks.load(Relaxed) & (VISITS | PINNED);
        let both_good = old.verdict == Verdict::Positive && self.verdict == Verdict::Positive;
        if both_good && !old.of_other_view() {
            self.good_since = old.good_since;
        }
    }

    /// Replaces an older answer from the same snapshot.
    pub(super) fn stand_in(&mut self, old: &Self) {
        *self.last_used.get_mut() = old.last_used.load(Relaxed);
        *self.marks.get_mut() |= old.marks.load(Relaxed) & (VISITS | PINNED);
    }

    /// Uses per TTL, at least one if there were any. In an outage an entry is kept for hours;
    /// without this scaling, a name that is queried now and then would count as busy, and be kept
    /// warm, long afterwards.
    fn uses_a_ttl(&self, end: Moment) -> u16 {
        let uses = u128::from(self.uses.load(Relaxed));
        let (ttl, lived) = (self.ttl().as_millis().max(1), end.since(self.learned()).as_millis());
        u16::try_from((uses * ttl).div_ceil(lived.max(ttl))).unwrap_or(u16::MAX)
    }

    /// Restores the state saved in a snapshot.
    pub(crate) fn resume(&mut self, uses: u16, good_for: Duration) {
        // An entry is in the snapshot because a client asked for it, and it was answered after the
        // snapshot was written.
        self.past_uses = uses.max(1);
        self.good_since = Stamp::of(self.learned() - good_for);
        if uses > 1 {
            // It was in use before the restart, so it must not start on probation.
            *self.marks.get_mut() |= 2 * VISIT;
        }
    }

    /// Expires it because other upstreams now answer for its name. It stays as the last known good
    /// answer until they have replied.
    pub(crate) fn pass_unseen(&mut self, unseen: Duration, now: Moment) {
        let learned = self.learned() - now.until(self.expires()).min(unseen);
        self.learned = Stamp::of(learned);
        self.learned_ms = u8::try_from(learned.as_millis() % STEP_MS).unwrap_or(0);
    }

    /// From now on other upstreams answer for it: it ends, and stays as last known good until they
    /// have spoken.
    pub(crate) fn leave_view(&mut self, now: Moment) {
        self.pass_unseen(Duration::MAX, now);
        self.set_recheck_at(now);
        self.mark(OTHER_VIEW);
    }

    /// Whether it came from upstreams that no longer answer for its name.
    pub fn of_other_view(&self) -> bool {
        self.marks.load(Relaxed) & OTHER_VIEW != 0
    }

    /// Whether its records are reached through aliases.
    pub(crate) fn is_chain(&self) -> bool {
        self.marks.load(Relaxed) & CHAIN != 0
    }

    pub(super) fn key_flags(&self) -> u8 {
        self.key_flags
    }

    /// When it came from upstream.
    pub fn learned(&self) -> Moment {
        self.learned.moment() + Duration::from_millis(u64::from(self.learned_ms))
    }

    /// How long this question has been answered positively without a break; `None` if the current
    /// answer is negative.
    pub fn good_since(&self) -> Option<Moment> {
        (self.verdict == Verdict::Positive).then(|| self.good_since.moment())
    }

    pub fn ttl(&self) -> Duration {
        Duration::from_secs(u64::from(self.ttl_s))
    }

    pub fn expires(&self) -> Moment {
        self.learned() + self.ttl()
    }

    /// How long past its TTL; `None` while fresh.
    pub fn stale_for(&self, now: Moment) -> Option<Duration> {
        (now >= self.expires()).then(|| now.since(self.expires()))
    }

    /// Earliest time to retry a failed refresh (RFC 8767 §5, failure recheck timer).
    pub fn recheck_at(&self) -> Moment {
        Stamp(self.recheck_at.load(Relaxed)).moment()
    }

    /// A refresh failed: do not retry before `moment`.
    pub fn set_recheck_at(&self, moment: Moment) {
        self.recheck_at.store(Stamp::of(moment).0, Relaxed);
        self.unmark(REFRESH_ASKED);
    }

    pub fn last_used(&self) -> Moment {
        Stamp(self.last_used.load(Relaxed)).moment()
    }

    /// Answers given from it since it was received.
    pub fn uses(&self) -> u16 {
        self.uses.load(Relaxed)
    }

    /// Answers given from its predecessors, halved at each refresh.
    pub fn past_uses(&self) -> u16 {
        self.past_uses
    }

    /// How much it is asked for, including earlier lifetimes (halved at each refresh).
    pub fn popularity(&self) -> u32 {
        u32::from(self.uses()) + u32::from(self.past_uses)
    }

    /// Records that it answered a query.
    pub fn touch(&self, now: Moment) {
        if self.marks.load(Relaxed) & VISITS != VISITS {
            self.marks.fetch_add(VISIT, Relaxed);
        }
        // Two threads at once may lose a use; this ranks names, so that does not matter.
        self.uses.store(self.uses().saturating_add(1), Relaxed);
        self.last_used.store(Stamp::of(now).0, Relaxed);
    }

    /// True for the first caller to want a refresh, until the refresh succeeds or fails.
    pub fn ask_refresh(&self) -> bool {
        self.marks.load(Relaxed) & REFRESH_ASKED == 0
            && self.marks.fetch_or(REFRESH_ASKED, Relaxed) & REFRESH_ASKED == 0
    }

    /// The refresh request could not be passed on; the next hit may try again.
    pub fn unask_refresh(&self) {
        self.unmark(REFRESH_ASKED);
    }

    /// Pinned entries are never evicted.
    pub fn pinned(&self) -> bool {
        self.marks.load(Relaxed) & PINNED != 0
    }

    pub(super) fn set_pinned(&self, pinned: bool) {
        if pinned { self.mark(PINNED) } else { self.unmark(PINNED) }
    }

    /// Whether it was asked for again after the query that fetched it.
    pub(super) fn asked_again(&self) -> bool {
        self.marks.load(Relaxed) & VISITS > VISIT
    }

    /// Removes one visit; false if there was none.
    pub(super) fn take_visit(&self) -> bool {
        self.marks
            .fetch_update(Relaxed, Relaxed, |marks| (marks & VISITS != 0).then(|| marks - VISIT))
            .is_ok()
    }

    /// Bytes of memory: facts, block, links, and its share of the index in the worst case, just
    /// after doubling (5 bytes per slot, 7/16 full).
    pub(super) fn cost(&self) -> usize {
        cost_of(self.block_len())
    }

    fn mark(&self, mark: u8) {
        if self.marks.load(Relaxed) & mark == 0 {
            self.marks.fetch_or(mark, Relaxed);
        }
    }

    fn unmark(&self, mark: u8) {
        if self.marks.load(Relaxed) & mark != 0 {
            self.marks.fetch_and(!mark, Relaxed);
        }
    }
}

impl<'a> Entry<'a> {
    pub(super) fn new(facts: &'a Facts, block: &'a [u8]) -> Self {
        Self { facts, block }
    }

    pub fn key(&self) -> Key {
        Key::from_parts(self.question(), self.key_flags)
    }

    /// In wire format, lower case.
    pub(crate) fn name(&self) -> &'a [u8] {
        let question = self.question();
        &question[..question.len().saturating_sub(4)]
    }

    pub(super) fn question(&self) -> &'a [u8] {
        // Type and class follow the root byte.
        let mut end = HEADER_LEN;
        while let Some(&len) = self.block.get(end).filter(|&&len| len > 0) {
            end += 1 + usize::from(len);
        }
        self.block.get(HEADER_LEN..end + 5).unwrap_or_default()
    }

    pub(super) fn is_for(&self, key: &[u8]) -> bool {
        // A name is self-terminating, so a matching prefix is the whole question.
        key.split_last().is_some_and(|(&flags, question)| {
            flags == self.key_flags && self.block.get(HEADER_LEN..).is_some_and(|at| at.starts_with(question))
        })
    }

    /// Whether both answer the same question.
    pub(super) fn is_same(self, other: Entry<'_>) -> bool {
        self.key_flags == other.key_flags
            && self.block.get(HEADER_LEN..).is_some_and(|at| at.starts_with(other.question()))
    }

    pub(super) fn is_for_query(&self, query: &Query<'_>) -> bool {
        let name = query.question.name;
        let Some((own, rest)) = self.block.get(HEADER_LEN..).and_then(|at| at.split_at_checked(name.len()))
        else {
            return false;
        };
        let Some(&[k0, k1, c0, c1]) = rest.first_chunk() else { return false };
        let (kind, class) = (u16::from_be_bytes([k0, k1]), u16::from_be_bytes([c0, c1]));
        // Most queries are in lower case.
        (kind, class, self.key_flags) == (query.question.kind, query.question.class, key_flags(query))
            && (own == name || own.eq_ignore_ascii_case(name))
    }

    /// Prefetches the message into the CPU cache.
    pub(super) fn prefetch_message(&self) {
        prefetch(self.block);
    }

    pub fn kept(&self) -> Kept<'a> {
        let (message, ttl_offsets) = self.block.split_at_checked(self.message_len.into()).unwrap_or_default();
        Kept { message, ttl_offsets }
    }
}

/// [`Facts::cost`] of an entry whose block has this length.
pub(super) fn cost_of(block_len: usize) -> usize {
    blocks::cost(block_len) + size_of::<Facts>() + LINK_LEN + INDEX_SHARE
}

const LINK_LEN: usize = 8;
const INDEX_SHARE: usize = 12;
const _: () = assert!(size_of::<Facts>() == 36);
