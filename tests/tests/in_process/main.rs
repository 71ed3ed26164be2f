//! Tests that run inside the test process: outage modes in virtual time, the policy model, fuzzing.
//!
//! One program for all of them, because linking one costs more than running most. One file alone:
//! `cargo test -p dogwatch-tests --test in_process modes::`.

mod fuzz;
mod modes;
mod policy_model;
