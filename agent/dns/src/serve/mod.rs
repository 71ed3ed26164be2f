//! The daemon: sockets, the loop that owns the resolver, the control socket and metrics.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`server`] | starts everything, and runs the loop that owns the resolver |
//! | `event` | what reaches the loop from clients and from the control socket |
//! | `datagrams` | threads that answer UDP queries from the cache, and pass the rest to the loop |
//! | `counters` | what these threads count |
//! | `batch` | receives and sends many datagrams in one system call |
//! | `stream` | DNS over TCP, on a thread of its own |
//! | `places` | which connection gives way to a new one |
//! | `owner` | which user of this host a TCP client is |
//! | `tcp_check` | tries whether a pinned name's new addresses accept a TCP connection |
//! | [`control`] | the control socket, both ends |
//! | [`explain`] | what `dogwatch dns status`, `why`, `top` and `dump` print |
//! | `present` | writes records as in a zone file |
//! | [`metrics`] | declares and publishes all metrics |
//! | `memory` | makes the allocator return unused memory |

mod answers;
mod batch;
pub mod control;
mod counters;
mod datagrams;
mod event;
pub mod explain;
pub(crate) mod memory;
pub mod metrics;
mod owner;
mod places;
mod present;
pub mod server;
mod stream;
mod tcp_check;
