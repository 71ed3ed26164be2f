//! Commands for operators: `dogwatch dns top`, `dump`, `flush`, and the fire drill.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    super::{Resolver, Send, refreshing::stale_max},
    words::{DrillStatus, RUNWAY_USED_WITHIN, RecordsText, at, verdict_name},
};
use crate::{
    cache::Entry,
    fire_drill::{FireDrill, Pretended},
    message::name,
    moment::Moment,
    policy::Upstreams,
};

/// The order of `top`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Most used first.
    Uses,
    /// Furthest past its TTL first; only names used in the last five minutes.
    Stale,
    /// Too old to serve soonest first; only names used in the last day.
    Risk,
}

/// One cached answer in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub kind: String,
    /// Whether the query had DO, or CD: these answers are cached separately.
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    /// `positive`, `no data` or `nxdomain`.
    pub verdict: String,
    /// In zone-file format, without owner and TTL.
    pub records: Vec<String>,
    pub ttl_s: u64,
    /// Seconds left of the TTL; negative: seconds past it.
    pub left_s: i64,
    pub uses: u32,
    /// Seconds since a client last asked for it.
    pub idle_s: u64,
    /// When it becomes too old to serve, if all upstreams stay down.
    pub served_until: Timestamp,
}

/// A part of the cache, in no particular order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub answers: Vec<Listed>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<u32>,
}

/// The answers that `flush` removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One name (wire format, lower case); one type, or every type.
    Name(Vec<u8>, Option<u16>),
    /// A name and everything below it.
    Zone(Vec<u8>),
}

impl Selection {
    fn has(&self, name: &[u8], kind: u16) -> bool {
        match self {
            Self::Name(wanted, wanted_kind) => {
                name == wanted && wanted_kind.is_none_or(|wanted| wanted == kind)
            }
            Self::Zone(zone) => name::is_below(name, zone),
        }
    }
}

/// The result of `flush`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    pub answers: usize,
    /// Why nothing was removed although answers match.
    pub refused: Option<String>,
}

/// The length of one page: it costs milliseconds of the loop, and kilobytes of JSON.
pub const PAGE_MAX: usize = 2_000;

impl Resolver {
    /// The first `limit` answers in this order. Walks all entries.
    pub fn top(
        &self,
        order: Order,
        limit: usize,
        records: RecordsText,
        now: Moment,
        wall: Timestamp,
    ) -> Vec<Listed> {
        let limit = limit.min(PAGE_MAX);
        let mut best = BinaryHeap::with_capacity(limit + 1);
        for (slot, entry) in self.cache.iter() {
            let Some(rank) = self.rank(order, entry.entry(), now) else { continue };
            best.push(Reverse((rank, slot)));
            if best.len() > limit {
                best.pop();
            }
        }
        let entries =
            best.into_sorted_vec().into_iter().filter_map(|Reverse((_, slot))| self.cache.get(slot));
        entries.filter_map(|entry| self.listed(entry.entry(), records, now, wall)).collect()
    }

    /// The highest rank comes first; `None` is not listed.
    fn rank(&self, order: Order, entry: Entry<'_>, now: Moment) -> Option<u64> {
        let idle = now.since(entry.last_used());
        match order {
            Order::Uses => (entry.popularity() > 0).then(|| u64::from(entry.popularity())),
            Order::Stale => {
                let stale = entry.stale_for(now).filter(|_| entry.uses() > 0)?;
                (idle <= Duration::from_mins(5)).then_some(stale.as_secs())
            }
            Order::Risk => {
                let used = self.used_within(&entry, RUNWAY_USED_WITHIN, now);
                let left = now.until(
                    entry.expires() + stale_max(&entry, self.zones.get(self.zones.of_key(&entry.key()))),
                );
                used.then(|| u64::MAX - left.as_secs())
            }
        }
    }

    /// The answers at and below `zone`, starting at slot `from`, [`PAGE_MAX`] at a time.
    pub fn dump(&self, zone: &[u8], from: u32, records: RecordsText, now: Moment, wall: Timestamp) -> Page {
        let mut page = Page { answers: Vec::new(), next: None };
        for (slot, entry) in self.cache.iter_from(from) {
            let below =
                name::read_key(&entry.key()).is_some_and(|(asked, ..)| name::is_below(asked.name, zone));
            if !below {
                continue;
            }
            if page.answers.len() == PAGE_MAX {
                page.next = Some(slot);
                break;
            }
            page.answers.extend(self.listed(entry.entry(), records, now, wall));
        }
        page
    }

    /// Removes answers, so that the next query goes to the upstream. While the upstreams are
    /// failing, a removed answer is lost, so this needs `force` then.
    pub fn flush(&mut self, selection: &Selection, force: bool) -> Flushed {
        let mut wanted = Vec::new();
        let mut ill = false;
        for (slot, entry) in self.cache.iter() {
            let key = entry.key();
            let Some((asked, ..)) = name::read_key(&key) else { continue };
            if selection.has(asked.name, asked.kind) {
                wanted.push(slot);
                ill |= self.zones.get(self.zones.of_key(&key)).upstreams() != Upstreams::Healthy;
            }
        }
        if ill && !force {
            let refused = format!(
                "upstreams are failing: flushing would break {} cached answers until they are back; use --force to do it anyway",
                wanted.len()
            );
            return Flushed { answers: 0, refused: Some(refused) };
        }
        for &slot in &wanted {
            if let Some(key) = self.cache.get(slot).map(|entry| entry.key()) {
                self.cache.remove(slot);
                self.forgotten.push_back(key.as_bytes().into());
            }
        }
        self.failures.forget(|key| {
            name::read_key(key).is_some_and(|(asked, ..)| selection.has(asked.name, asked.kind))
        });
        Flushed { answers: wanted.len(), refused: None }
    }

    /// A question that was flushed since the last call, to be removed from disk too.
    pub fn poll_forgotten(&mut self) -> Option<Box<[u8]>> {
        self.forgotten.pop_front()
    }

    /// Starts a fire drill, or ends the running one.
    pub fn set_fire_drill(&mut self, drill: Option<FireDrill>) {
        self.fire_drill = drill;
    }

    /// Whether the drill handles this message; if so, it must not be sent.
    pub fn pretend(&mut self, send: &Send, now: Moment) -> bool {
        match self.fire_drill.as_ref().map_or(Pretended::No, |drill| drill.pretend(&send.message)) {
            Pretended::No => false,
            Pretended::Lost => true,
            Pretended::Reply(reply) => {
                self.on_reply(send.try_id, &reply, now);
                true
            }
        }
    }

    pub(in crate::resolver) fn end_fire_drill_if_over(&mut self, now: Moment) {
        if self.fire_drill.as_ref().is_some_and(|drill| drill.is_over(now)) {
            self.fire_drill = None;
        }
    }

    /// The running drill.
    pub fn drill_status(&self, now: Moment, wall: Timestamp) -> Option<DrillStatus> {
        self.fire_drill.as_ref().map(|drill| DrillStatus {
            mode: drill.mode.name().into(),
            zone: name::to_text(&drill.zone),
            by: drill.by.clone(),
            since: at(drill.since, now, wall),
            until: at(drill.until, now, wall),
        })
    }

    fn listed(&self, entry: Entry<'_>, records: RecordsText, now: Moment, wall: Timestamp) -> Option<Listed> {
        let key = entry.key();
        let (question, dnssec_ok, checking_disabled) = name::read_key(&key)?;
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        Some(Listed {
            name: name::to_text(question.name),
            kind: name::type_to_text(question.kind),
            dnssec_ok,
            checking_disabled,
            verdict: verdict_name(entry.verdict).into(),
            records: records(entry.kept().message),
            ttl_s: entry.ttl().as_secs(),
            left_s: match entry.stale_for(now) {
                None => seconds(now.until(entry.expires())),
                Some(stale) => -seconds(stale),
            },
            uses: entry.popularity(),
            idle_s: now.since(entry.last_used()).as_secs(),
            served_until: at(
                entry.expires() + stale_max(&entry, self.zones.get(self.zones.of_key(&entry.key()))),
                now,
                wall,
            ),
        })
    }
}
