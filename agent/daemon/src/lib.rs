//! What every dogwatch daemon does the same way, so that `dogwatch run`, `dogwatch dns` and `alertd` cannot drift apart:
//!
//! | module | promise |
//! | --- | --- |
//! | [`bounded`] | a listener that nobody can use up |
//! | [`config`] | TOML files in, one typed value or *every* problem at once, each with file, line, column, suggestion |
//! | [`duration`] | `"90s"`, `"5m"`, `"2h 30m"` in configs and on command lines |
//! | [`http_client`] | one request to a daemon, over its socket or over TLS with a token |
//! | [`identity`] | a TLS server's certificate and key, read again when asked |
//! | [`logging`] | one line an event on stderr, with a priority the journal understands |
//! | [`metrics_page`] | the process's metrics, rendered for Prometheus, with the upkeep that keeps memory bounded |
//! | [`secret`] | a password, key or token in a file, never in a log |
//! | [`systemd`] | ready, reloading, stopping, watchdog, inherited sockets |
//! | [`tcp_http`] | HTTP over TCP or TLS for strangers, each bounded in number and time |
//! | [`unix_http`] | HTTP over a unix socket, both ends, with the caller's name from the peer credentials |
//!
//! [`duration`] is a crate of its own, so that pure cores can print durations without depending on a runtime.
//!
//! It knows nothing of checks, DNS or alerts, and holds no state between calls.

pub mod bounded;
pub mod config;
pub mod http_client;
pub mod identity;
pub mod logging;
pub mod metrics_page;
pub mod secret;
pub mod signals;
pub mod systemd;
pub mod tcp_http;
pub mod unix_http;

pub use dogwatch_duration as duration;
