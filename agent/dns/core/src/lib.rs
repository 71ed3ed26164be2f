//! The core of the DNS cache: every decision, without a clock, socket, file or thread.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`resolver`] | queries, replies and time in; answers, upstream queries and the next wake-up out |
//! | [`policy`] | reply, refresh, serve stale or forward |
//! | [`guard`] | whether to believe an answer that says a known name is gone or moved |
//! | [`cache`] | entries, TTL bounds, eviction by use, prefetching; one writer, many readers |
//! | [`health`] | breakers, upstream groups, packet loss, letter case (0x20), pacing, recovery |
//! | [`zones`] | forward zones, local and pinned names, keep-warm, the origin of the cache on disk |
//! | [`message`] | reading and patching DNS messages, names, replies, stale alias chains |
//! | [`fire_drill`] | treats upstreams as failing, for a rehearsal on a live host |
//! | [`settings`] | the settings of the resolver and of zones |
//! | [`moment`], [`workers`] | time and threads, as the shell passes them in |

pub mod cache;
pub mod fire_drill;
pub mod guard;
pub mod health;
pub mod message;
pub mod moment;
pub mod policy;
pub mod resolver;
pub mod settings;
pub mod workers;
pub mod zones;
