//! The alert router: hears of hard problems, decides who has to know, sees to it that they do, once.
//!
//! | module | promise |
//! | --- | --- |
//! | [`core`] | all decisions, pure: inputs and `now` in, rows to commit and notifications to send out |
//! | [`alert`], [`agent`], [`route`], [`incident`], [`escalation`], [`schedule`], [`user`], [`ack`], [`silence`], [`downtime`], [`inhibit`], [`period`], [`withheld`], [`told`], [`outbox`], [`budgets`], [`ratelimit`], [`storm`], [`token`] | one rule each, pure, for the core to compose |
//! | [`health`] | whether alertd itself is well, pure; [`selfwatch`] asks and pings a dead-man |
//! | [`notify`] | the receivers: rendering and sending |

pub mod ack;
pub mod agent;
pub mod alert;
pub mod api;
mod api_v2;
pub mod arguments;
pub mod budgets;
pub mod clock;
pub mod config;
pub mod core;
pub mod crash;
pub mod ctl;
pub mod daemon;
pub mod downtime;
pub mod engine;
pub mod escalation;
pub mod external;
pub mod health;
pub mod incident;
pub mod inhibit;
pub mod lately;
pub mod matcher;
pub mod metrics;
pub mod moment;
pub mod notify;
pub mod outbox;
pub mod period;
pub mod ratelimit;
pub mod reason;
pub mod replay;
pub mod route;
pub mod schedule;
pub mod selfwatch;
pub mod silence;
pub mod store;
pub mod storm;
pub mod token;
pub mod told;
pub mod user;
pub mod web;
pub mod withheld;
