//! A caching DNS forwarder that keeps names resolving while its upstreams are dead, slow, refusing
//! queries or recovering, and reports the trouble at once.
//!
//! | module | | what it does |
//! | --- | --- | --- |
//! | [`resolver`] | pure | the core: queries, replies and time in; answers, upstream queries, next wake-up out |
//! | [`policy`] | pure | reply, refresh, serve stale or forward |
//! | [`guard`] | pure | whether to believe an answer that says a known name is gone or moved |
//! | [`cache`] | pure | entries, TTL bounds, eviction by use, prefetching; one writer, many readers |
//! | [`health`] | pure | breakers, upstream groups, packet loss, letter case (0x20), pacing, recovery |
//! | [`zones`] | pure | forward zones, local and pinned names, keep-warm, where the cache on disk came from |
//! | [`message`] | pure | reading and patching DNS messages, names, replies, stale alias chains |
//! | [`fire_drill`] | pure | treats upstreams as failing, for a rehearsal on a live host |
//! | [`moment`] | pure | the time that the core takes as `now` |
//! | [`serve`] | shell | sockets, the loop that owns the resolver, answering threads, control socket, metrics |
//! | [`transport`] | shell | queries to upstreams, with hickory |
//! | [`snapshot`] | shell | the cache on disk |
//! | [`config`], [`clock`] | shell | `dns.toml`; the clocks |
//! | [`host_resolver`] | shell | `dogwatch dns enable` and `disable`: the host's resolver configuration |
//! | `side_by_side` | shell | a few threads for a burst of work |
//!
//! It never validates DNSSEC (DO, CD and AD pass through), never asks for a CNAME's target on its
//! own, and never re-encodes a record, except that `chain` writes names out uncompressed.

pub mod clock;
pub mod config;
pub mod host_resolver;
pub mod serve;
pub mod snapshot;
pub mod transport;

pub use self::serve::{
    control::Control,
    server::{RunError, run},
};
