//! What `dogwatch run`, `dogwatch dns` and `alertd` have in common as daemons:
//!
//! | module | what it does |
//! | --- | --- |
//! | [`bounds`] | what strangers may use of a daemon: the bounds of every listener |
//! | [`config`] | reads TOML files into one typed value, or reports all problems with file, line, column and suggestion |
//! | [`duration`] | `"90s"`, `"5m"`, `"2h 30m"` in config files and on command lines |
//! | [`http_client`] | sends a request to a daemon, over its unix socket or over TLS with a token |
//! | [`http_server`] | one HTTP connection within the bounds of its listener |
//! | [`identity`] | certificate and key of a TLS server, with reload |
//! | [`logging`] | logs to stderr, with priorities for the journal |
//! | [`metrics_page`] | renders the metrics of the process for Prometheus |
//! | [`replace`] | replaces a file as a whole, also across a power cut |
//! | [`secret`] | reads a password, key or token from a file |
//! | [`signals`] | stop and reload |
//! | [`systemd`] | readiness, status, watchdog, inherited sockets |
//! | [`tcp_http`] | serves HTTP over TCP or TLS to callers that are not trusted |
//! | [`usage`] | the answer to `--help`, `--version` and a wrong command line |
//! | [`unix_http`] | serves HTTP over a unix socket, with the name of the caller |
//!
//! [`duration`] is a crate of its own, so that pure cores can print durations without depending on
//! a runtime.
//!
//! This crate knows nothing about checks, DNS or alerts.

pub mod bounds;
pub mod config;
pub mod http_client;
pub mod http_server;
pub mod identity;
pub mod logging;
pub mod metrics_page;
pub mod replace;
pub mod secret;
pub mod signals;
pub mod systemd;
pub mod tcp_http;
pub mod unix_http;
pub mod usage;

pub use dogwatch_duration as duration;
