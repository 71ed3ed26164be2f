//! `cargo xtask fuzz`: runs the fuzz targets of `tests/fuzz`.
//!
//! Without `--guided` it runs `tests/tests/in_process/fuzz.rs`: mutations of the corpus, in the
//! test build, so CI needs no further build. With `--guided` it runs libFuzzer: linked by
//! `libfuzzer-sys`, with LLVM's instrumentation enabled by `-C passes` of stable rustc. That needs
//! no nightly and no cargo-fuzz, but a release build of everything. New inputs are kept in
//! `target/fuzz/found/TARGET` for the next run; `--merge` adds those that increase coverage to the
//! corpus in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use dogwatch_daemon::duration::Span;

use crate::sh;

#[derive(Args)]
pub(crate) struct Options {
    /// The target; all targets if it is left out
    target: Option<String>,
    /// How long each target runs
    #[arg(long = "for", default_value = BOUNDED)]
    time: String,
    /// Seed of the mutations
    #[arg(long, conflicts_with = "guided")]
    seed: Option<u64>,
    /// Run only this input, to reproduce a failure
    #[arg(long, requires = "target", conflicts_with = "guided")]
    input: Option<PathBuf>,
    /// Guided by coverage, with libFuzzer; the build takes minutes
    #[arg(long)]
    guided: bool,
    /// Add inputs that increase coverage to tests/fuzz/corpus
    #[arg(long, requires = "guided")]
    merge: bool,
}

/// Time for each target in CI.
const BOUNDED: &str = "7s";

/// Instrumentation for libFuzzer: edges and comparisons.
const FLAGS: &str = "-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1 --cfg fuzzing";
/// Longer inputs are slow and have found nothing more.
const INPUT_MAX: &str = "-max_len=4096";
/// An input that takes longer counts as a failure.
const TIMEOUT: &str = "-timeout=10";

pub(crate) fn run(options: &Options) -> Result<()> {
    let corpora = sh::root().join("tests/fuzz/corpus");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&corpora).context("cannot read tests/fuzz/corpus")? {
        targets.push(entry?.file_name().to_string_lossy().into_owned());
    }
    targets.sort();
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("no target {wanted:?}; there are {}", targets.join(", "));
        }
        targets = vec![wanted.clone()];
    }
    let seconds = options.time.parse::<Span>().map_err(|why| anyhow::anyhow!("--for: {why}"))?.0.as_secs();
    if options.guided { guided(&targets, seconds, &corpora, options.merge) } else { plain(options, seconds) }
}

/// The run of `cargo xtask test`.
pub(crate) fn bounded() -> Result<()> {
    let time = BOUNDED.to_owned();
    run(&Options { target: None, time, seed: None, input: None, guided: false, merge: false })
}

fn plain(options: &Options, seconds: u64) -> Result<()> {
    let mut cargo = sh::cargo_nice(&["test", "-q", "--workspace", "--test", "in_process"]);
    cargo.args(["fuzz::", "--", "--nocapture"]);
    cargo.env("DOGWATCH_FUZZ_SECONDS", seconds.to_string());
    if let Some(target) = &options.target {
        cargo.env("DOGWATCH_FUZZ_TARGET", target);
    }
    if let Some(seed) = options.seed {
        cargo.env("DOGWATCH_FUZZ_SEED", seed.to_string());
    }
    if let Some(input) = &options.input {
        let input = input.canonicalize().with_context(|| format!("{}", input.display()))?;
        cargo.env("DOGWATCH_FUZZ_INPUT", input);
    }
    sh::run(&mut cargo)
}

fn guided(targets: &[String], seconds: u64, corpora: &Path, merge: bool) -> Result<()> {
    build()?;
    let mut failed = Vec::new();
    let mut table =
        vec![format!("{:<14} {:>12} {:>9} {:>7} {:>7}", "target", "executions", "per s", "edges", "inputs")];
    for target in targets {
        match fuzz(target, seconds, &corpora.join(target), merge)? {
            Ok(row) => table.push(row),
            Err(why) => {
                table.push(format!("{target:<14} FAILED"));
                failed.push(why);
            }
        }
    }
    println!("\n{}", table.join("\n"));
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

fn triple() -> Result<String> {
    let said = sh::output(&mut sh::command(&["rustc", "-vV"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Builds with a target triple, so that build scripts and macros are not instrumented.
fn build() -> Result<()> {
    let mut cargo = sh::cargo(&["build", "--quiet", "--release", "--target", &triple()?]);
    cargo.current_dir(sh::root().join("tests/fuzz")).env("RUSTFLAGS", FLAGS);
    sh::run(cargo.env("CARGO_TARGET_DIR", sh::target().join("fuzz")))
}

/// Runs one target. Returns its row of the table, or how to reproduce its failure.
fn fuzz(target: &str, seconds: u64, corpus: &Path, merge: bool) -> Result<Result<String, String>> {
    let work = sh::target().join("fuzz");
    let (found, artifacts) = (work.join("found").join(target), work.join("artifacts").join(target));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let binary = work.join(triple()?).join("release/fuzz");
    println!("{target}: {seconds} s …");
    let output = sh::command(&[&binary])
        .args([INPUT_MAX, TIMEOUT, "-print_final_stats=1", "-rss_limit_mb=2048"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args([&found, corpus])
        .env("DOGWATCH_FUZZ_TARGET", target)
        .stdin(Stdio::null())
        .output()
        .context("the fuzzer does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let from = said.find("panicked at").or_else(|| said.find("ERROR:")).unwrap_or(0);
        let end = said.len().min(from + 2_000);
        let input =
            said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
        return Ok(Err(format!(
            "{target}: {}\nreproduce it: cargo xtask fuzz {target} --input {}",
            &said[said.floor_char_boundary(from)..said.floor_char_boundary(end)],
            input.unwrap_or("INPUT")
        )));
    }
    if merge {
        let output = sh::command(&[&binary])
            .args([INPUT_MAX, "-merge=1"])
            .args([corpus, &found])
            .env("DOGWATCH_FUZZ_TARGET", target)
            .output()?;
        if !output.status.success() {
            bail!("{target}: merging failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(Ok(row(target, &said, fs::read_dir(corpus)?.count())))
}

/// The row of the table, from the last lines of libFuzzer: `#123 DONE cov: 456 ft: 789 …` and
/// `stat::average_exec_per_sec: 12`.
fn row(target: &str, said: &str, inputs: usize) -> String {
    let stat = |name: &str| {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    let edges = said.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next());
    format!(
        "{target:<14} {:>12} {:>9} {:>7} {inputs:>7}",
        stat("stat::number_of_executed_units:"),
        stat("stat::average_exec_per_sec:"),
        edges.unwrap_or("?")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_has_the_final_figures_of_libfuzzer() {
        let said = "#2\tINITED cov: 3 ft: 4 corp: 1/1b\n#99\tDONE   cov: 456 ft: 789 corp: 7/9b lim: 4\n\
                    stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     12\n";
        assert_eq!(row("client", said, 5), "client                   99        12     456       5");
    }
}
