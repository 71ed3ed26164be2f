//! A caching DNS forwarder that keeps names resolving while its upstreams are down, slow, refusing
//! or just back, and reports it at once.
//!
//! This crate is the shell: sockets, files, threads and clocks. What to answer and what to ask is
//! decided in `dogwatch-dns-core`, which has no I/O.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`serve`] | the daemon: client sockets, answering threads, the loop that owns the resolver, the control socket, metrics |
//! | [`transport`] | sends queries to upstreams over UDP, TCP, TLS, HTTPS and QUIC, and returns the replies |
//! | [`snapshot`] | keeps the cache on disk, and loads it at start |
//! | [`config`] | reads dns.toml and resolv.conf, and reports every error at once |
//! | [`host_resolver`] | `dogwatch dns enable` and `disable`: edits the host's resolver configuration |
//! | `random` | random bytes from the kernel |
//! | [`clock`] | reads the clocks: time since boot and wall time |

pub mod clock;
pub mod config;
pub mod host_resolver;
mod random;
pub mod serve;
pub mod snapshot;
pub mod transport;

pub use self::serve::memory::keep_small;
pub use self::serve::{
    control::Control,
    server::{RunError, run},
};
