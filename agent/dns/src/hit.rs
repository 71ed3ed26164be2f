//! The hit path: from a client's packet to its answer, with nothing but the cache. What the core does for TCP and in
//! drills and what the answering threads do for UDP is this one function.
//!
//! Promises: nothing is allocated unless a refresh is asked for (once an entry's life), nothing waits: a shard that the
//! writer is at work in is a miss, and a miss goes to the core.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

use crate::{
    cache::{Entry, Table},
    moment::Moment,
    name::{self, Key},
    policy::{self, Held, Plan, StaleReason, Upstreams},
    reply::{self, Extended, Transport, Ttl},
    wire::{self, Query, Verdict},
    zone::{Suffixes, Zone, Zones},
};

/// A query that can be looked up, and its key's hash in this table. The key itself is made only where it is needed.
pub(crate) struct Asked<'a> {
    pub(crate) query: Query<'a>,
    hash: u64,
}

/// What became of a query.
pub(crate) enum Hit {
    /// The answer is in the buffer. `refresh`: the key to ask upstream for, behind the client's back.
    Fresh {
        refresh: Option<Box<[u8]>>,
    },
    Stale {
        reason: StaleReason,
        refresh: Option<Box<[u8]>>,
    },
    /// The core must see to it.
    Miss,
}

/// A packet that is no query that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    /// The buffer says so.
    Refused,
    /// Not worth an answer.
    Dropped,
}

/// What the policy must know of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZoneState {
    pub(crate) upstreams: Upstreams,
    /// `None`: nothing stale is served.
    pub(crate) max_stale: Option<Duration>,
    /// The guard holds names back: what is past its TTL is the core's, which knows which.
    pub(crate) guarded: bool,
}

/// RFC 8767 §5: at most 30 s in a stale record's TTL.
const STALE_TTL_S: u32 = 30;

/// Reads a packet; one that is no query is answered here, or not at all.
pub(crate) fn read<'a>(table: &Table, packet: &'a [u8], out: &mut Vec<u8>) -> Result<Asked<'a>, Odd> {
    let query = wire::read_query(packet).map_err(|why| {
        reply::write_refusal(out, packet, why);
        if out.is_empty() { Odd::Dropped } else { Odd::Refused }
    })?;
    let hash = table.hash_query(&query);
    Ok(Asked { query, hash })
}

/// Answers a query from the cache if that is all it takes. `state_of` is asked only when the answer hangs on it.
pub(crate) fn answer(
    table: &Table,
    state_of: impl Fn(&Key) -> Option<ZoneState>,
    asked: &Asked<'_>,
    transport: Transport,
    now: Moment,
    out: &mut Vec<u8>,
) -> Hit {
    let Asked { query, hash } = asked;
    let Ok(Some(entry)) = table.try_find_for(query, *hash) else { return Hit::Miss };
    let held = match entry.stale_for(now) {
        None => {
            let left = now.until(entry.expires());
            if !policy::near_expiry(left, entry.ttl()) {
                write_fresh(out, query, transport, &entry, now);
                return Hit::Fresh { refresh: None };
            }
            Held::Fresh { left, ttl: entry.ttl() }
        }
        Some(_) => Held::Expired { recheck_at: entry.recheck_at() },
    };
    let key = Key::of(query);
    let Some(state) = state_of(&key) else { return Hit::Miss };
    if let Some(stale) = entry.stale_for(now)
        && (state.guarded || state.max_stale.is_none_or(|most| stale > most))
    {
        return Hit::Miss;
    }
    let refresh = || entry.ask_refresh().then(|| key.as_bytes().into());
    // Who would have to wait is the core's guest; how long does not matter here.
    match policy::plan(held, state.upstreams, Duration::ZERO, now) {
        Plan::Reply => {
            write_fresh(out, query, transport, &entry, now);
            Hit::Fresh { refresh: None }
        }
        Plan::ReplyThenRefresh => {
            write_fresh(out, query, transport, &entry, now);
            Hit::Fresh { refresh: refresh() }
        }
        Plan::ReplyStale(reason) => {
            write_stale(out, query, transport, &entry, reason, now);
            Hit::Stale { reason, refresh: None }
        }
        Plan::ReplyStaleThenRefresh(reason) => {
            write_stale(out, query, transport, &entry, reason, now);
            Hit::Stale { reason, refresh: refresh() }
        }
        Plan::ReplyStaleThenAsk(_)
        | Plan::ForwardOrReplyStale { .. }
        | Plan::Forward
        | Plan::ForwardPaced
        | Plan::ReplyFailure => Hit::Miss,
    }
}

/// Answers from the cache a query that should have gone to the core, which has no room for it: what is stale is better
/// than silence. `None`: there is nothing that may be served.
pub(crate) fn answer_overloaded(
    table: &Table,
    state_of: impl Fn(&Key) -> Option<ZoneState>,
    asked: &Asked<'_>,
    transport: Transport,
    now: Moment,
    out: &mut Vec<u8>,
) -> Option<Hit> {
    let Asked { query, hash } = asked;
    let entry = table.try_find_for(query, *hash).ok()??;
    let Some(past) = entry.stale_for(now) else {
        write_fresh(out, query, transport, &entry, now);
        return Some(Hit::Fresh { refresh: None });
    };
    let state = state_of(&Key::of(query))?;
    if state.guarded || state.max_stale.is_none_or(|most| past > most) {
        return None;
    }
    let reason = StaleReason::Overloaded;
    write_stale(out, query, transport, &entry, reason, now);
    Some(Hit::Stale { reason, refresh: None })
}

/// Writes a fresh answer and notes its use.
pub(crate) fn write_fresh(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    transport: Transport,
    entry: &Entry,
    now: Moment,
) {
    entry.touch(now);
    let age = u32::try_from(now.since(entry.learned()).as_secs()).unwrap_or(u32::MAX);
    reply::write_kept(out, query, transport, entry.kept(), Ttl::Aged(age), None);
}

/// Writes a stale answer that says why, and notes its use.
pub(crate) fn write_stale(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    transport: Transport,
    entry: &Entry,
    reason: StaleReason,
    now: Moment,
) {
    entry.touch(now);
    let extended = match entry.verdict {
        Verdict::NxDomain => Extended::StaleNxDomain,
        Verdict::Positive | Verdict::NoData => Extended::StaleAnswer,
    };
    let extended = Some((extended, reason.text()));
    // The links of an alias chain came together and end together.
    let stale_ttl_s = u32::try_from(entry.ttl().as_secs()).unwrap_or(STALE_TTL_S).min(STALE_TTL_S);
    reply::write_kept(out, query, transport, entry.kept(), Ttl::Stale(stale_ttl_s), extended);
}

/// How the zones do, where other threads can read it.
#[derive(Default)]
pub(crate) struct ZoneStates(RwLock<Published>);

#[derive(Default)]
struct Published {
    suffixes: Suffixes,
    states: Vec<ZoneState>,
}

impl ZoneStates {
    /// `None` if it changes just now.
    fn of(&self, key: &Key) -> Option<ZoneState> {
        let published = self.0.try_read()?;
        published.states.get(published.suffixes.of(name::name_of(key)).place()).copied()
    }

    /// Tells the other threads what has changed, if anything has.
    pub(crate) fn publish(&self, zones: &Zones) {
        if self.0.read().states.iter().copied().eq(zones.iter().map(Zone::state)) {
            return;
        }
        self.0.write().states = zones.iter().map(Zone::state).collect();
    }

    /// The zones are others than before.
    pub(crate) fn republish(&self, zones: &Zones) {
        let states = zones.iter().map(Zone::state).collect();
        *self.0.write() = Published { suffixes: zones.suffixes().clone(), states };
    }
}

/// What a thread holds to answer.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) table: Arc<Table>,
    pub(crate) zones: Arc<ZoneStates>,
}

impl Reader {
    pub(crate) fn read<'a>(&self, packet: &'a [u8], out: &mut Vec<u8>) -> Result<Asked<'a>, Odd> {
        read(&self.table, packet, out)
    }

    pub(crate) fn answer(&self, asked: &Asked<'_>, now: Moment, out: &mut Vec<u8>) -> Hit {
        answer(&self.table, |key| self.zones.of(key), asked, Transport::Udp, now, out)
    }

    pub(crate) fn answer_overloaded(&self, asked: &Asked<'_>, now: Moment, out: &mut Vec<u8>) -> Option<Hit> {
        answer_overloaded(&self.table, |key| self.zones.of(key), asked, Transport::Udp, now, out)
    }

    /// Has the answers to all of these come nearer, side by side.
    pub(crate) fn prefetch<'a>(&self, asked: impl Iterator<Item = &'a Asked<'a>> + Clone) {
        self.table.prefetch(&asked.map(|asked| asked.hash));
    }

    /// The wish for a refresh could not be passed on; the next hit may try again.
    pub(crate) fn forget_refresh(&self, key: &[u8]) {
        if let Ok(Some(entry)) = self.table.try_find(key) {
            entry.unask_refresh();
        }
    }
}
