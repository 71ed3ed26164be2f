//! The daemon: sockets, the loop that owns the resolver, the control socket and metrics.

mod batch;
pub mod control;
mod datagrams;
mod event;
pub mod explain;
mod memory;
pub mod metrics;
mod present;
pub mod server;
mod stream;
mod tcp_check;
