//! The alert router. Agents and other tools report alerts; alertd decides who is notified and when,
//! and delivers each notification once.
//!
//! All decisions are made in the crate [`dogwatch_alertd_core`], which has no clock and does no
//! I/O. The modules here are the shells around it.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`engine`] | owns the core: one loop that commits what was decided before it answers or sends |
//! | [`api`] | HTTP for agents, Prometheus and `alertctl`, Alertmanager's API v2 included |
//! | [`web`] | the page behind the links in emails |
//! | [`notify`] | the receivers: renders a notification and sends it |
//! | [`store`] | what survives a restart: one SQLite file, its checks and backups |
//! | [`config`] | reads `alertd.toml`, with every error at once |
//! | [`ctl`] | the command `alertctl` |
//! | [`selfwatch`] | asks alertd for its own health and pings the dead-man while it is well |
//! | [`replay`] | shows what another config would have sent |
//! | [`daemon`] | the process `alertd`: start, sockets, reload, stop |
//! | [`arguments`] | the command line of `alertd` |
//! | [`clock`] | the only reader of clocks |
//! | [`metrics`] | every metric of alertd |
//! | [`crash`] | named points at which a test can end the process |

pub mod api;
pub mod arguments;
pub mod clock;
pub mod config;
pub mod crash;
pub mod ctl;
pub mod daemon;
pub mod engine;
pub mod metrics;
pub mod notify;
pub mod replay;
pub mod selfwatch;
pub mod store;
pub mod web;
