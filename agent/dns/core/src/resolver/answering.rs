//! Replies to clients: from the cache, at once or when a flight ends.

use std::net::IpAddr;

use super::{
    Outcome, Resolver,
    flight::{Flight, Waiter},
    refreshing,
};
use crate::{
    cache::Slot,
    health::breaker::Failure,
    message::{
        name,
        reply::{self, Extended, Transport, Ttl},
        wire::{self, Query, rcode},
    },
    moment::Moment,
    policy::StaleReason,
    resolver::hit::Lookup,
    zones::zone::{ZoneId, ZoneState},
};

/// A query and its transport.
pub(super) struct ClientQuery<'a> {
    pub(super) query: Query<'a>,
    pub(super) transport: Transport,
}

impl Resolver {
    /// Prepares a lookup on the hit path, with the core's knowledge of the zones.
    pub(super) fn look_up<'a>(
        &'a self,
        query: &'a Query<'a>,
        transport: Transport,
        now: Moment,
    ) -> Lookup<'a, impl Fn(&[u8]) -> Option<(ZoneId, ZoneState)>> {
        let state_of = |name: &[u8]| {
            let zone = self.zones.of(name);
            Some((zone, self.zones.get(zone).state_for(name)))
        };
        Lookup { table: self.cache.table(), state_of, query, transport, now }
    }

    pub(super) fn reply_fresh(
        &mut self,
        asked: &ClientQuery<'_>,
        slot: Slot,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(entry) = self.cache.get(slot) else { return Outcome::Drop };
        self.look_up(&asked.query, asked.transport, now).write_fresh(out, entry.entry());
        drop(entry);
        self.counts.hits_fresh += 1;
        self.last_minute.on_answer(false, now);
        Outcome::Reply
    }

    pub(super) fn reply_stale(
        &mut self,
        asked: &ClientQuery<'_>,
        slot: Slot,
        reason: StaleReason,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(entry) = self.cache.get(slot) else { return Outcome::Drop };
        self.look_up(&asked.query, asked.transport, now).write_stale(out, entry.entry(), reason);
        drop(entry);
        self.counts.hits_stale[reason as usize] += 1;
        self.last_minute.on_answer(true, now);
        Outcome::Reply
    }

    pub(super) fn reply_failure(
        &mut self,
        asked: &ClientQuery<'_>,
        why: Failure,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let extended = match why {
            Failure::Timeout => Extended::NoReachableAuthority,
            Failure::Network
            | Failure::Closed
            | Failure::Handshake
            | Failure::CertificateExpired
            | Failure::CertificateName
            | Failure::CertificateUntrusted
            | Failure::TruncatedWithoutTcp
            | Failure::Malformed => Extended::NetworkError,
            Failure::Servfail | Failure::Refused | Failure::BadCode | Failure::Lies => Extended::CachedError,
        };
        // An upstream's REFUSED does not mean that we refuse this client (RFC 8914 §4.19), so it
        // becomes SERVFAIL too.
        reply::write_error(out, &asked.query, rcode::SERVFAIL, Some((extended, failure_text(why))));
        self.counts.failures += 1;
        self.last_minute.on_answer(false, now);
        Outcome::Reply
    }

    /// Answers every client that waits for this flight from the current cache.
    pub(super) fn answer_all(&mut self, flight: &mut Flight, how: Settled, now: Moment) {
        for waiter in std::mem::take(&mut flight.waiters) {
            self.answer(&flight.key, &waiter, how, now);
        }
    }

    pub(super) fn answer(&mut self, key: &[u8], waiter: &Waiter, how: Settled, now: Moment) {
        let Ok(query) = wire::read_query(&waiter.packet) else { return };
        let asked = ClientQuery { query, transport: waiter.transport };
        let slot = self.cache.find(key);
        let zone = self.zones.get(self.zones.of_key(key));
        // An answer with a TTL of zero is stale at once, yet it is the current one.
        let usable = how == Settled::Answered
            || slot.and_then(|slot| self.cache.get(slot)).is_some_and(|entry| {
                entry.stale_for(now).is_none() || refreshing::may_serve(&entry, zone, now)
            });
        let mut out = Vec::new();
        match (slot.filter(|_| usable), how) {
            (Some(slot), Settled::Held(reason)) if self.stale(slot, now) => {
                self.reply_stale(&asked, slot, reason, now, &mut out)
            }
            (Some(slot), Settled::Answered | Settled::Held(_)) => {
                self.reply_fresh(&asked, slot, now, &mut out)
            }
            (Some(slot), Settled::Late) => {
                self.reply_stale(&asked, slot, StaleReason::ClientTimer, now, &mut out)
            }
            (Some(slot), Settled::Down) => {
                self.reply_stale(&asked, slot, StaleReason::UpstreamDown, now, &mut out)
            }
            (Some(slot), Settled::Failed(_)) => {
                self.reply_stale(&asked, slot, StaleReason::RefreshFailed, now, &mut out)
            }
            (None, Settled::Failed(why)) => self.reply_failure(&asked, why, now, &mut out),
            (None, Settled::Answered | Settled::Late | Settled::Down | Settled::Held(_)) => {
                self.reply_failure(&asked, Failure::Timeout, now, &mut out)
            }
        };
        self.replies.push_back((waiter.client, out));
    }

    fn stale(&self, slot: Slot, now: Moment) -> bool {
        self.cache.get(slot).is_some_and(|entry| entry.stale_for(now).is_some())
    }

    /// The answer leads from a public name into the private network: waiting clients get none, and
    /// it replaces nothing.
    pub(super) fn answer_blocked(&mut self, flight: &mut Flight, address: IpAddr, now: Moment) {
        let zone = self.zones.get_mut(flight.zone);
        zone.guard.on_rebinding(&flight.key, address, now);
        // Cached before the guard was switched on.
        let slot = self.cache.find(&flight.key);
        let before = slot.and_then(|slot| self.cache.get(slot)).is_some_and(|entry| {
            zone.settings.rebinding.blocks(name::name_of(&flight.key), entry.kept().message).is_some()
        });
        if let Some(slot) = slot.filter(|_| before) {
            self.cache.remove(slot);
            self.forgotten.push_back(flight.key.clone());
        }
        for waiter in std::mem::take(&mut flight.waiters) {
            let Ok(query) = wire::read_query(&waiter.packet) else { continue };
            let mut out = Vec::new();
            let why = (Extended::Blocked, "rebinding guard: public name with a private address");
            reply::write_error(&mut out, &query, rcode::NOERROR, Some(why));
            self.last_minute.on_answer(false, now);
            self.replies.push_back((waiter.client, out));
        }
    }

    /// Passes on an answer that must not be cached.
    pub(super) fn answer_unkept(
        &mut self,
        flight: &mut Flight,
        message: &[u8],
        len: usize,
        additionals: u16,
        now: Moment,
    ) {
        let mut message = message.get(..len).unwrap_or_default().to_vec();
        if let Some(count) = message.get_mut(10..12) {
            count.copy_from_slice(&additionals.to_be_bytes());
        }
        for waiter in std::mem::take(&mut flight.waiters) {
            let Ok(query) = wire::read_query(&waiter.packet) else { continue };
            let mut out = Vec::new();
            let kept = reply::Kept { message: &message, ttl_offsets: &[] };
            reply::write_kept(&mut out, &query, waiter.transport, kept, Ttl::Aged(0), None);
            self.last_minute.on_answer(false, now);
            self.replies.push_back((waiter.client, out));
        }
    }
}

/// How the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Answered,
    Late,
    Down,
    Failed(Failure),
    /// The upstream's answer is not believed.
    Held(StaleReason),
}

fn failure_text(why: Failure) -> &'static str {
    match why {
        Failure::Timeout => "all upstreams timed out",
        Failure::Network => "all upstreams unreachable",
        Failure::Closed => "upstream closed the connection",
        Failure::Handshake => "TLS handshake with upstream failed",
        Failure::CertificateExpired => "upstream's certificate has expired",
        Failure::CertificateName => "upstream's certificate is for another name",
        Failure::CertificateUntrusted => "upstream's certificate is not trusted",
        Failure::Servfail => "upstream returned SERVFAIL",
        Failure::Refused => "upstream returned REFUSED",
        Failure::BadCode => "upstream returned an error code",
        Failure::TruncatedWithoutTcp => "upstream's answer is truncated and TCP failed",
        Failure::Malformed => "upstream's answer is unusable",
        Failure::Lies => "upstream denies names that exist",
    }
}
