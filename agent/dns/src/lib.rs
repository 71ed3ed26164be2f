//! A caching DNS forwarder that keeps names resolving while its upstreams are dead, slow, refusing
//! queries or recovering, and reports the trouble at once.
//!
//! The core, `dogwatch_dns_core`, decides everything without I/O. This crate is the shell around it:
//!
//! | module | what it does |
//! | --- | --- |
//! | [`serve`] | sockets, the loop that owns the resolver, answering threads, control socket, metrics |
//! | [`transport`] | queries to upstreams, with hickory |
//! | [`snapshot`] | the cache on disk |
//! | [`config`], [`clock`] | `dns.toml`; the clocks |
//! | [`host_resolver`] | `dogwatch dns enable` and `disable`: the host's resolver configuration |
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
