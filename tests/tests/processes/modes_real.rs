//! The scenarios of `modes.rs` that have a `real` line, with the real `dogwatch dns` and real
//! sockets.
//!
//! All at once, each with its own processes and ports: most of a mode's time is waiting. What is
//! right is to the letter; times, and what is fresh, have room for a busy machine; the exact
//! figures are the virtual runs'. `DOGWATCH_MODE=m16` plays that one only.

use std::{env, fs, path::Path, thread};

use dogwatch_tests::{
    process::skip,
    scenario::{
        Scenario,
        judge::{Measure, judge},
        real,
    },
};

/// The modes that must pass with real processes.
const MODES: [&str; 17] = [
    "m01", "m02", "m03", "m04", "m05", "m06", "m08", "m09", "m11", "m12", "m13", "m14", "m15", "m16", "m19",
    "m22", "m23",
];

#[test]
fn the_real_cache_does_in_each_mode_what_the_core_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let scenarios = files.iter().filter_map(|path| {
        let file = path.file_name()?.to_str()?;
        let scenario =
            Scenario::parse(file, &fs::read_to_string(path).ok()?).unwrap_or_else(|why| panic!("{why}"));
        scenario.real.is_some().then(|| scenario.mapped())
    });
    let only = env::var("DOGWATCH_MODE").ok();
    let wanted: Vec<&str> =
        MODES.into_iter().filter(|mode| only.as_deref().is_none_or(|only| only == *mode)).collect();
    let scenarios: Vec<_> =
        scenarios.filter(|scenario| wanted.iter().any(|mode| scenario.file.starts_with(mode))).collect();
    assert_eq!(scenarios.len(), wanted.len(), "each of {wanted:?} has a real line");
    let runs: Vec<_> = scenarios
        .into_iter()
        .map(|scenario| {
            thread::spawn(move || {
                let log = real::run(&scenario, 4711);
                (judge(&scenario, &log, Measure::Generous), log.answers.len(), scenario)
            })
        })
        .collect();
    let mut failed = Vec::new();
    for run in runs {
        let Ok((complaints, answers, scenario)) = run.join() else {
            failed.push("a run panicked; see above".to_owned());
            continue;
        };
        match (&scenario.pending, complaints.is_empty()) {
            (None, true) => println!("holds, {answers} answers: {}", scenario.title),
            (None, false) => failed.push(format!("{}\n{}", scenario.title, complaints.join("\n"))),
            (Some(why), _) => skip(&format!("{} is pending: {why}", scenario.title)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
