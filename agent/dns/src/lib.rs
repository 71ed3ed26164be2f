//! A caching DNS forwarder that keeps names resolving while its upstreams are dead, slow, refusing or just back, and
//! that says so at once.
//!
//! | module | | what it does |
//! | --- | --- | --- |
//! | [`resolver`] | pure | the brain: queries, replies and time in; answers, upstream queries, next wake-up out |
//! | [`policy`] | pure | reply, refresh, serve stale or forward |
//! | [`health::breaker`], [`health::group`] | pure | is an upstream well; which one to ask, how long to wait |
//! | [`health::letter_case`] | pure | whether an upstream repeats the case of our letters, and so may be held to it (0x20) |
//! | [`zones::zone`], [`health::endpoint`], `views` | pure | forward zones, each with its own upstreams and their health; who answers for a name |
//! | [`zones::local`] | pure | names of a hosts file, `localhost`, `invalid`: answered here, never asked |
//! | [`cache`] | pure | entries, TTL bounds, eviction by use; one writer, many readers |
//! | `chain` | pure | a stale alias chain, each link from the youngest answer that has it |
//! | `hit` | pure | the one way from a packet to an answer out of the cache |
//! | [`message::wire`], [`message::name`], [`message::reply`] | pure | the few bytes that are read and patched |
//! | [`health::pace`] | pure | how fast upstreams may be asked after an outage |
//! | `side_by_side` | shell | a few threads for a burst of work |
//! | [`serve::server`] | shell | sockets and the one loop that owns the resolver |
//! | `prefetch` | pure | entries of a whole batch on their way from memory at once |
//! | `datagrams`, `batch` | shell | threads that answer clients' datagrams, many in one system call |
//! | `tcp_check` | shell | whether a pinned name's new addresses take a connection |
//! | [`transport`] | shell | hickory as the transport to upstreams |
//! | [`snapshot`] | shell | the cache on disk |
//! | [`config`], [`serve::control`], [`serve::metrics`], [`clock`] | shell | dns.toml; the control socket, both ends; metrics; time |
//! | [`host_resolver`] | shell | `dogwatch dns enable` and `disable`: the host's resolver configuration |
//! | [`fire_drill`] | pure | pretends that upstreams are ill, for a rehearsal on a live host |
//! | [`serve::explain`] | shell | what `dogwatch dns status`, `why`, `top` and `dump` print |
//!
//! It never validates DNSSEC (DO, CD and AD pass through), never asks for a CNAME's target by itself, and never
//! re-encodes a record, save that `chain` spells out names.

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
