//! The outage modes M1 to M26, each a file in `scenarios/`, with the real core in virtual time.
//!
//! A wrong expectation is told with its line and what happened instead. What is pending fails too,
//! where nothing may be skipped (`DOGWATCH_TEST_STRICT=1`), and fails everywhere once it works and
//! still says that it does not.

use std::{collections::BTreeSet, fs, path::PathBuf};

use dogwatch_tests::{
    dns_world::{self, Subject},
    process::skip,
    scenario::{
        Scenario,
        judge::{Measure, judge},
    },
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn play(file: &str) {
    let file = format!("{file}.txt");
    let text = fs::read_to_string(folder().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let scenario = Scenario::parse(&file, &text).unwrap_or_else(|why| panic!("{why}"));
    let mut complaints = Vec::new();
    for seed in 0..scenario.seeds {
        let log = dns_world::run(&scenario, seed, Subject::Dogwatch);
        let found = judge(&scenario, &log, Measure::Exact);
        complaints.extend(found.into_iter().map(|complaint| format!("seed {seed}: {complaint}")));
    }
    match (&scenario.pending, complaints.is_empty()) {
        (None, true) => println!("holds: {}", scenario.title),
        (None, false) => panic!("{}\n{}", scenario.title, complaints.join("\n")),
        (Some(why), false) => {
            println!("{}", complaints.join("\n"));
            skip(&format!("{} is pending: {why}", scenario.title));
        }
        (Some(why), true) => panic!("{} holds: it is no longer pending ({why})", scenario.title),
    }
}

macro_rules! modes {
    ($($test:ident: $file:literal,)*) => {
        $(#[test]
        fn $test() {
            play($file);
        })*
        const FILES: &[&str] = &[$($file),*];
    };
}

modes! {
    m01_blackhole: "m01-blackhole",
    m02_refused_connection: "m02-refused-connection",
    m03_servfail: "m03-servfail",
    m04_refused: "m04-refused",
    m05_nxdomain_for_all: "m05-nxdomain-for-all",
    m06_empty_answer_for_a_hot_name: "m06-empty-answer-for-a-hot-name",
    m07_fewer_addresses: "m07-fewer-addresses",
    m08_slow: "m08-slow",
    m09_truncated_and_tcp_blocked: "m09-truncated-and-tcp-blocked",
    m10_sinkhole: "m10-sinkhole",
    m11_half_lost: "m11-half-lost",
    m12_nine_tenths_lost: "m12-nine-tenths-lost",
    m13_flapping: "m13-flapping",
    m14_ttl_zero: "m14-ttl-zero",
    m15_recovery_herd: "m15-recovery-herd",
    m16_restart_in_the_outage: "m16-restart-in-the-outage",
    m17_longer_than_max_stale: "m17-longer-than-max-stale",
    m18_older_data: "m18-older-data",
    m19_one_of_three_ill: "m19-one-of-three-ill",
    m20_bogus: "m20-bogus",
    m21_retry_storm: "m21-retry-storm",
    m22_crash_flood_stolen_port: "m22-crash-flood-stolen-port",
    m23_other_upstreams: "m23-other-upstreams",
    m24_clock_jump: "m24-clock-jump",
    m25_alias_chain: "m25-alias-chain",
    m26_search_list: "m26-search-list",
}

#[test]
fn every_file_of_a_mode_is_played() {
    let played: BTreeSet<String> = FILES.iter().map(|file| format!("{file}.txt")).collect();
    let there =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.filter(|file| file.starts_with('m')).collect::<BTreeSet<_>>(), played);
    assert_eq!(played.len(), 26);
}
