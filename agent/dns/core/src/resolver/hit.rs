//! The hit path: from a client's packet to its answer, using only the cache. The core (for TCP and
//! in drills) and the answering threads (for UDP) share this code.
//!
//! Promises: nothing is allocated unless a refresh is requested (once in an entry's lifetime), and
//! nothing waits. If the writer is using the shard, that is a miss, and misses go to the core. A
//! stale chain whose newer link is in such a shard is served unchanged.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

use crate::{
    cache::{self, Entry, Facts, Table},
    guard::Frozen,
    message::{
        chain,
        name::{self, Key},
        reply::{self, Extended, Transport, Ttl},
        wire::{self, Query, Question, Verdict},
    },
    moment::Moment,
    policy::{self, Cached, Plan, StaleReason},
    zones::zone::{Suffixes, Zone, ZoneId, ZoneState, Zones},
};

/// A query that can be looked up, and its key's hash in this table. The key itself is built only
/// when needed.
pub struct Asked<'a> {
    pub query: Query<'a>,
    pub(crate) hash: u64,
}

/// The outcome of a lookup.
pub enum Hit {
    /// The answer is in the buffer. `refresh` is a key to query in the background.
    Fresh {
        refresh: Option<Box<[u8]>>,
    },
    Stale {
        reason: StaleReason,
        refresh: Option<Box<[u8]>>,
    },
    /// A trip holds the name, and the old answer is in the buffer. Report this to the core now and
    /// then ([`crate::resolver::Resolver::on_frozen`]).
    Frozen,
    /// The core must handle it.
    Miss,
}

/// A packet that is not a query we can look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// The refusal is in the buffer.
    Refused,
    /// No reply is sent.
    Dropped,
}

/// RFC 8767 §5: a stale record's TTL is at most 30 s.
const STALE_TTL_S: u32 = 30;

/// Parses a packet. One that is not a query is answered here, or dropped.
pub(crate) fn read<'a>(table: &Table, packet: &'a [u8], out: &mut Vec<u8>) -> Result<Asked<'a>, Odd> {
    let query = wire::read_query(packet).map_err(|why| {
        reply::write_refusal(out, packet, why);
        if out.is_empty() { Odd::Dropped } else { Odd::Refused }
    })?;
    let hash = table.hash_query(&query);
    Ok(Asked { query, hash })
}

/// One query, and everything its answer from the cache depends on. `state_of` returns the zone of a
/// name (wire format, lower case) and its state; it is called only if the answer depends on it.
pub(crate) struct Lookup<'a, F> {
    pub(crate) table: &'a Table,
    pub(crate) state_of: F,
    pub(crate) query: &'a Query<'a>,
    pub(crate) transport: Transport,
    pub(crate) now: Moment,
}

impl<F: Fn(&[u8]) -> Option<(ZoneId, ZoneState)>> Lookup<'_, F> {
    /// Answers from the cache if nothing else is needed. `hash` is the query's in this table.
    pub(crate) fn answer(&self, hash: u64, out: &mut Vec<u8>) -> Hit {
        let now = self.now;
        let Ok(Some(entry)) = self.table.try_find_for(self.query, hash) else { return Hit::Miss };
        let past = entry.stale_for(now);
        let cached = match past {
            None => {
                let left = now.until(entry.expires());
                if !policy::near_expiry(left, entry.ttl()) {
                    self.write_fresh(out, entry.entry());
                    return Hit::Fresh { refresh: None };
                }
                Cached::Fresh { left, ttl: entry.ttl() }
            }
            Some(_) => Cached::Expired { recheck_at: entry.recheck_at() },
        };
        let key = Key::of(self.query);
        let Some((_, state)) = (self.state_of)(name::name_of(&key)) else { return Hit::Miss };
        if past.is_some_and(|past| state.freezes(&entry, past, now)) {
            self.write_stale(out, entry.entry(), StaleReason::HeldTrip);
            return Hit::Frozen;
        }
        if past.is_some_and(|past| !state.serves(past)) {
            return Hit::Miss;
        }
        let refresh = || entry.ask_refresh().then(|| key.as_bytes().into());
        // Queries that would wait go to the core, so the patience does not matter here.
        match policy::plan(cached, state.upstreams, Duration::ZERO, now) {
            Plan::Reply => {
                self.write_fresh(out, entry.entry());
                Hit::Fresh { refresh: None }
            }
            Plan::ReplyThenRefresh => {
                self.write_fresh(out, entry.entry());
                Hit::Fresh { refresh: refresh() }
            }
            Plan::ReplyStale(reason) => {
                self.write_stale(out, entry.entry(), reason);
                Hit::Stale { reason, refresh: None }
            }
            Plan::ReplyStaleThenRefresh(reason) => {
                self.write_stale(out, entry.entry(), reason);
                Hit::Stale { reason, refresh: refresh() }
            }
            Plan::ReplyStaleThenAsk(_)
            | Plan::ForwardOrReplyStale { .. }
            | Plan::Forward
            | Plan::ForwardPaced
            | Plan::ReplyFailure => Hit::Miss,
        }
    }

    /// Answers a query from the cache because the core has no room for it: stale is better than
    /// silence. `None`: nothing may be served.
    pub(crate) fn answer_overloaded(&self, hash: u64, out: &mut Vec<u8>) -> Option<Hit> {
        let entry = self.table.try_find_for(self.query, hash).ok()??;
        let Some(past) = entry.stale_for(self.now) else {
            self.write_fresh(out, entry.entry());
            return Some(Hit::Fresh { refresh: None });
        };
        let (_, state) = (self.state_of)(name::name_of(&Key::of(self.query)))?;
        if !state.serves(past) {
            return None;
        }
        let reason = StaleReason::Overloaded;
        self.write_stale(out, entry.entry(), reason);
        Some(Hit::Stale { reason, refresh: None })
    }

    /// Writes a fresh answer and records its use.
    pub(crate) fn write_fresh(&self, out: &mut Vec<u8>, entry: Entry<'_>) {
        entry.touch(self.now);
        let age = u32::try_from(self.now.since(entry.learned()).as_secs()).unwrap_or(u32::MAX);
        reply::write_kept(out, self.query, self.transport, entry.kept(), Ttl::Aged(age), None);
    }

    /// Writes a stale answer with its reason, and records its use.
    pub(crate) fn write_stale(&self, out: &mut Vec<u8>, entry: Entry<'_>, reason: StaleReason) {
        entry.touch(self.now);
        let text = reason.text();
        if let Some(ttl_s) = entry.is_chain().then(|| self.assemble(out, entry)).flatten() {
            let extended = Some((Extended::StaleAnswer, text));
            return reply::write_assembled(out, self.query, self.transport, ttl_s, extended);
        }
        let extended = match entry.verdict {
            Verdict::NxDomain => Extended::StaleNxDomain,
            Verdict::Positive | Verdict::NoData => Extended::StaleAnswer,
        };
        // The links of an alias chain arrived together and expire together.
        let ttl = Ttl::Stale(stale_ttl_s(&entry));
        reply::write_kept(out, self.query, self.transport, entry.kept(), ttl, Some((extended, text)));
    }

    /// Combines a stale chain with newer answers for its targets, and returns the TTL of the
    /// result. `None`: nothing newer is cached. All links are in one zone, hence in one view, and
    /// none is held by a guard.
    fn assemble(&self, out: &mut Vec<u8>, chain: Entry<'_>) -> Option<u32> {
        let Query { question, checking_disabled, .. } = *self.query;
        let (zone, state) = (self.state_of)(chain.name())?;
        // The rebinding guard has seen the chain, but not what would be combined with it.
        if !state.serves(Duration::ZERO) || state.rebinding {
            return None;
        }
        let (mut learned, mut ttl_s) = (chain.learned(), stale_ttl_s(&chain));
        let younger = |target: &[u8]| {
            let key =
                Key::new(&Question { name: target, ..question }, self.query.dnssec_ok(), checking_disabled);
            if (self.state_of)(name::name_of(&key))?.0 != zone {
                return None;
            }
            let entry = self.table.try_find(&key).ok()??;
            let left_s = match entry.stale_for(self.now) {
                None => u32::try_from(self.now.until(entry.expires()).as_secs()).unwrap_or(u32::MAX),
                Some(past) if state.serves(past) => stale_ttl_s(&entry),
                Some(_) => return None,
            };
            let good = entry.verdict == Verdict::Positive && !entry.of_other_view();
            if !good || entry.learned() <= learned {
                return None;
            }
            learned = entry.learned();
            ttl_s = ttl_s.min(left_s);
            Some(Younger(entry))
        };
        chain::assemble(out, chain.kept().message, younger)?;
        Some(ttl_s.max(1))
    }
}

/// A newer answer to a chain's target, locked while it is read.
struct Younger<'a>(cache::EntryRef<'a>);

impl AsRef<[u8]> for Younger<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.kept().message
    }
}

fn stale_ttl_s(entry: &Facts) -> u32 {
    u32::try_from(entry.ttl().as_secs()).unwrap_or(STALE_TTL_S).min(STALE_TTL_S)
}

/// The state of the zones, for other threads to read.
#[derive(Default)]
pub(crate) struct ZoneStates(RwLock<Published>);

#[derive(Default)]
struct Published {
    suffixes: Suffixes,
    zones: Vec<PublishedZone>,
}

struct PublishedZone {
    state: ZoneState,
    /// [`crate::guard::Guard::frozen_domains`].
    frozen: Vec<(Box<[u8]>, Frozen)>,
}

impl PublishedZone {
    fn of(zone: &Zone) -> Self {
        let frozen = zone.guard.frozen_domains().map(|(domain, frozen)| (domain.into(), frozen));
        Self { state: zone.state(), frozen: frozen.collect() }
    }

    fn is_of(&self, zone: &Zone) -> bool {
        self.state == zone.state() && zone.guard.frozen_domains().eq(self.frozen())
    }

    fn frozen(&self) -> impl Iterator<Item = (&[u8], Frozen)> {
        self.frozen.iter().map(|(domain, frozen)| (&**domain, *frozen))
    }
}

impl ZoneStates {
    /// `None` if it is being changed.
    fn of(&self, name: &[u8]) -> Option<(ZoneId, ZoneState)> {
        let published = self.0.try_read()?;
        let zone = published.suffixes.of(name);
        let of_zone = published.zones.get(zone.place())?;
        Some((zone, of_zone.state.for_name(name, of_zone.frozen())))
    }

    /// Publishes changes, if there are any, to the other threads.
    pub(crate) fn publish(&self, zones: &Zones) {
        let is_current = |published: &[PublishedZone]| {
            published.len() == zones.iter().count()
                && published.iter().zip(zones.iter()).all(|(of_zone, zone)| of_zone.is_of(zone))
        };
        if is_current(&self.0.read().zones) {
            return;
        }
        self.0.write().zones = zones.iter().map(PublishedZone::of).collect();
    }

    /// Publishes a changed set of zones.
    pub(crate) fn republish(&self, zones: &Zones) {
        let of_zones = zones.iter().map(PublishedZone::of).collect();
        *self.0.write() = Published { suffixes: zones.suffixes().clone(), zones: of_zones };
    }
}

/// What a thread needs to answer queries.
#[derive(Clone)]
pub struct Reader {
    pub(crate) table: Arc<Table>,
    pub(crate) zones: Arc<ZoneStates>,
}

impl Reader {
    pub fn read<'a>(&self, packet: &'a [u8], out: &mut Vec<u8>) -> Result<Asked<'a>, Odd> {
        read(&self.table, packet, out)
    }

    pub fn answer(&self, asked: &Asked<'_>, now: Moment, out: &mut Vec<u8>) -> Hit {
        self.answer_over(asked, Transport::Udp, now, out)
    }

    pub fn answer_over(
        &self,
        asked: &Asked<'_>,
        transport: Transport,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Hit {
        self.look_up(asked, transport, now).answer(asked.hash, out)
    }

    pub fn answer_overloaded(&self, asked: &Asked<'_>, now: Moment, out: &mut Vec<u8>) -> Option<Hit> {
        self.look_up(asked, Transport::Udp, now).answer_overloaded(asked.hash, out)
    }

    fn look_up<'a>(
        &'a self,
        asked: &'a Asked<'a>,
        transport: Transport,
        now: Moment,
    ) -> Lookup<'a, impl Fn(&[u8]) -> Option<(ZoneId, ZoneState)>> {
        let state_of = |name: &[u8]| self.zones.of(name);
        Lookup { table: &self.table, state_of, query: &asked.query, transport, now }
    }

    /// Prefetches the entries for all of these into the CPU cache.
    pub fn prefetch<'a>(&self, asked: impl Iterator<Item = &'a Asked<'a>> + Clone) {
        self.table.prefetch(&asked.map(|asked| asked.hash));
    }

    /// The refresh request could not be passed on; the next hit may try again.
    pub fn forget_refresh(&self, key: &[u8]) {
        if let Ok(Some(entry)) = self.table.try_find(key) {
            entry.unask_refresh();
        }
    }
}
