//! One binary for all targets; `DOGWATCH_FUZZ_TARGET` names the one to run.

#![no_main]

// The reference is the test crate's; the rest of that crate (alertd, a database) is not needed
// here.
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../src/dns_message.rs"]
mod dns_message;
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../../alertd/src/notify/irc/line.rs"]
mod irc_line;
#[expect(dead_code, reason = "not all of it is needed here")]
#[path = "../src/policy_model.rs"]
mod policy_model;
mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("DOGWATCH_FUZZ_TARGET").unwrap_or_default();
        let known = targets::ALL.iter().find(|target| target.name == name);
        known.unwrap_or_else(|| panic!("DOGWATCH_FUZZ_TARGET names no target: {name:?}")).run
    });
    run(data);
});
