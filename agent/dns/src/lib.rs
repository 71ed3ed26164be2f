//! A caching DNS forwarder that keeps names resolving while its upstreams are dead, slow, refusing
//! queries or recovering, and reports the trouble at once.
//!
//! | module | | what it does |
//! | --- | --- | --- |
//! | [`resolver`] | pure | the brain: queries, replies and time in; answers, upstream queries, next wake-up out |
//! | [`policy`] | pure | reply, refresh, serve stale or forward |
//! | [`breaker`], [`group`] | pure | is an upstream well; which one to ask, how long to wait |
//! | [`letter_case`] | pure | whether an upstream repeats the case of our letters, and so may be held to it (0x20) |
//! | [`zone`], [`endpoint`], `views` | pure | forward zones, each with its own upstreams and their health; who answers for a name |
//! | [`local`] | pure | names of a hosts file, `localhost`, `invalid`: answered here, never asked |
//! | [`cache`] | pure | entries, TTL bounds, eviction by use; one writer, many readers |
//! | `chain` | pure | a stale alias chain, each link from the youngest answer that has it |
//! | `hit` | pure | the one way from a packet to an answer out of the cache |
//! | [`wire`], [`name`], [`reply`] | pure | the few bytes that are read and patched |
//! | [`pace`] | pure | how fast upstreams may be asked after an outage |
//! | `side_by_side` | shell | a few threads for a burst of work |
//! | [`server`] | shell | sockets and the one loop that owns the resolver |
//! | `prefetch` | pure | entries of a whole batch on their way from memory at once |
//! | `datagrams`, `batch` | shell | threads that answer clients' datagrams, many in one system call |
//! | `tcp_check` | shell | whether a pinned name's new addresses take a connection |
//! | [`upstream`] | shell | hickory as the transport to upstreams |
//! | [`snapshot`] | shell | the cache on disk |
//! | [`config`], [`control`], [`metrics`], [`clock`] | shell | dns.toml; the control socket, both ends; metrics; time |
//! | [`host_resolver`] | shell | `dogwatch dns enable` and `disable`: the host's resolver configuration |
//! | [`fire_drill`] | pure | pretends that upstreams are ill, for a rehearsal on a live host |
//! | [`explain`] | shell | what `dogwatch dns status`, `why`, `top` and `dump` print |
//!
//! It never validates DNSSEC (DO, CD and AD pass through), never asks for a CNAME's target on its
//! own, and never re-encodes a record, except that `chain` writes names out uncompressed.

mod batch;
pub mod breaker;
pub mod cache;
mod chain;
pub mod clock;
pub mod config;
pub mod control;
mod datagrams;
pub mod endpoint;
mod event;
pub mod explain;
mod failures;
pub mod fire_drill;
pub mod group;
pub mod guard;
mod hit;
pub mod host_resolver;
pub mod letter_case;
pub mod local;
pub mod loss;
mod memory;
pub mod metrics;
pub mod moment;
pub mod name;
pub mod origin;
pub mod pace;
pub mod pinned;
pub mod policy;
mod prefetch;
mod present;
pub mod recovery;
pub mod reply;
pub mod resolver;
pub mod server;
mod side_by_side;
pub mod snapshot;
mod stream;
mod tcp_check;
pub mod upstream;
mod views;
pub mod warm;
pub mod wire;
pub mod zone;

pub use self::{
    control::Control,
    server::{RunError, run},
};
