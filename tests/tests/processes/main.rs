//! Tests with real processes: our daemons and other projects' servers and clients, on loopback.
//!
//! One program for all of them, because linking one costs more than running most. One file alone:
//! `cargo test -p dogwatch-tests --test processes irc::`.

mod alertctl;
mod alertd_crash;
mod backup;
mod differential;
mod dns_by_hand;
mod dns_guard;
mod dns_paused;
mod dns_pinned;
mod dns_real;
mod dns_reload;
mod dns_transports;
mod first_alert;
mod irc;
mod mail;
mod mail_link;
mod masked_outage;
mod metrics;
mod modes_real;
mod oncall;
mod prometheus;
mod quiet;
mod receivers;
mod remote;
mod selfwatch;
mod shared_id;
