//! Parsers of untrusted input, in every test run: the whole corpus, then a limited number of
//! mutations, without coverage. `cargo xtask fuzz` runs the same for longer, or guided by coverage.
//! An input that fails is written to `target/fuzz/`; add it to the corpus when you have fixed the
//! bug.
//!
//! | variable | |
//! | --- | --- |
//! | `DOGWATCH_FUZZ_TARGET` | only this one |
//! | `DOGWATCH_FUZZ_SECONDS` | for each target |
//! | `DOGWATCH_FUZZ_SEED` | other mutations than the usual ones |
//! | `DOGWATCH_FUZZ_INPUT` | this file and nothing else |

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use dogwatch_alertd::notify::irc::line as irc_line;
use dogwatch_tests::policy_model;

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Mutations of each target, and how long they may take on a slow machine, if nothing else is
/// wanted.
const MUTATIONS: u64 = 10_000;
const USUAL: Duration = Duration::from_secs(1);
const INPUT_MAX: usize = 4_096;

#[test]
fn no_target_panics_on_its_corpus_or_on_what_is_like_it() {
    let wanted = env::var("DOGWATCH_FUZZ_TARGET").ok();
    let chosen = |target: &&targets::Target| wanted.as_deref().is_none_or(|wanted| wanted == target.name);
    let chosen: Vec<_> = targets::ALL.iter().filter(chosen).collect();
    assert!(!chosen.is_empty(), "no target {wanted:?}");
    if let Ok(path) = env::var("DOGWATCH_FUZZ_INPUT") {
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        for target in chosen {
            (target.run)(&input);
        }
        return;
    }
    let seconds = number("DOGWATCH_FUZZ_SECONDS").map(Duration::from_secs);
    let bound = seconds.map_or((MUTATIONS, USUAL), |seconds| (u64::MAX, seconds));
    println!("{:<14} {:>7} {:>12} {:>7}", "target", "corpus", "mutations", "per s");
    // All cores, each target on one.
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    println!("{}", run(target, bound));
                }
            });
        }
    });
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[expect(clippy::disallowed_methods, reason = "bounds how long a test takes")]
fn run(target: &targets::Target, (most, span): (u64, Duration)) -> String {
    let corpus = corpus_of(target.name);
    assert!(!corpus.is_empty(), "tests/fuzz/corpus/{} is empty", target.name);
    for (path, input) in &corpus {
        attempt(target, input, &path.display().to_string());
    }
    let mut random = fastrand::Rng::with_seed(number("DOGWATCH_FUZZ_SEED").unwrap_or(4_711));
    let (began, mut done) = (Instant::now(), 0);
    while done < most && began.elapsed() < span {
        let input = mutated(&corpus, &mut random);
        attempt(target, &input, &format!("mutation {done}"));
        done += 1;
    }
    let each = began.elapsed().as_millis().max(1);
    format!("{:<14} {:>7} {done:>12} {:>7}", target.name, corpus.len(), u128::from(done) * 1_000 / each)
}

fn corpus_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

fn attempt(target: &targets::Target, input: &[u8], which: &str) {
    let held = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if held.is_err() {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fuzz");
        let path = folder.join(format!("failed-{}", target.name));
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)).expect("target/ is writable");
        let path = path.canonicalize().unwrap_or(path);
        panic!(
            "{name} fails on {which}; repeat it: cargo xtask fuzz {name} --input {path}",
            name = target.name,
            path = path.display()
        );
    }
}

fn mutated(corpus: &[(PathBuf, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let any = |random: &mut fastrand::Rng| &corpus[random.usize(..corpus.len())].1;
    let mut input = any(random).clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        let end = (at + random.usize(..12)).min(input.len());
        match random.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 if at < input.len() => {
                input[at] = *random.choice(&[0, 1, 0x3f, 0x7f, 0x80, 0xc0, 0xff]).unwrap_or(&0);
            }
            3 => {
                input.drain(at..end);
            }
            4 => input.insert(at, random.u8(..)),
            5 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            6 => {
                let other = any(random);
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(end),
        }
    }
    input.truncate(INPUT_MAX);
    input
}
