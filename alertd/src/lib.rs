//! The alert router: hears of hard problems, decides who has to know, sees to it that they do, once.
//!
//! | module | promise |
//! | --- | --- |
//! | [`core`] | all decisions, pure: inputs and `now` in, rows to commit and notifications to send out |
//! | [`core::rules`] | one rule each, pure, for the core to compose |
//! | [`core::rules::health`] | whether alertd itself is well, pure; [`selfwatch`] asks and pings a dead-man |
//! | [`notify`] | the receivers: rendering and sending |

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
