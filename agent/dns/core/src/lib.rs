//! The decisions of the DNS cache, and the table of answers behind them, without I/O.
//!
//! Nothing here reads a clock, opens a socket or a file, starts a thread or a task, or draws a
//! random number: time, bytes, keys and seeds come in as arguments, and what to send comes out as
//! values. `Cargo.toml` keeps runtimes, HTTP, TLS and databases out; `clippy.toml` keeps out what
//! the standard library offers. `dogwatch-dns` is the shell around it.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`resolver`] | takes queries, replies and time; returns answers, upstream queries and the next wakeup |
//! | [`resolver::hit`] | answers a packet from the cache, the same way in the loop and in the answering threads |
//! | [`policy`] | decides whether to reply, refresh, serve stale or forward |
//! | [`settings`] | what an operator can configure |
//! | [`zones`] | forward zones and their upstreams, local names, pinned names, keep-warm, where saved answers came from |
//! | [`health`] | whether each upstream works, which one to ask, how long to wait, how fast to recover |
//! | [`guard`] | holds answers that vanish or change in bulk, and serves the last known good ones |
//! | [`cache`] | the answers: TTL bounds and eviction by use; one writer, many readers |
//! | [`message`] | reads and patches DNS messages, names and alias chains |
//! | [`fire_drill`] | pretends that upstreams have failed, for a rehearsal on a live host |
//! | [`moment`] | a point in time that counts suspended time too |
//! | [`random`] | query ids, letter case and jitter, from a key that the shell draws |
//! | [`workers`] | the trait through which the shell runs pieces of work side by side |
//!
//! It never validates DNSSEC (DO, CD and AD pass through), never asks for a CNAME's target by
//! itself, and never re-encodes a record, except that [`message`] spells out the names of an alias
//! chain.
//!
//! `unsafe` is limited to one hint to the CPU (`cache/prefetch.rs`).

pub mod cache;
pub mod fire_drill;
pub mod guard;
pub mod health;
pub mod message;
pub mod moment;
pub mod policy;
pub mod random;
pub mod resolver;
pub mod settings;
pub mod workers;
pub mod zones;
