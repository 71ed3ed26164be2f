//! The outage drills in virtual time: `drill openai [--seeds N] [--json]`, `drill herd [--hosts N] [--svg FILE]`. Exit code 1 if a promise is broken.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dogwatch_tests::{
    dns_world::Plan,
    drill::{Illness, Table, Times, openai},
    herd,
};

/// Outage drills in virtual time: the real DNS core, an upstream that dies, hours in a second.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Subcommand)]
enum Drill {
    /// 5,000 names with TTLs of 5 to 300 s; the upstream is silent, or answers SERVFAIL, for four and a half hours.
    Openai {
        /// Runs of each kind, each with its own seed.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed, to repeat a run.
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Hosts with 5,000 names each come back to one weak upstream after half an hour, with our cache and with caches that
    /// refresh on demand. `--hosts 1000` takes minutes and 2 GB.
    Herd {
        #[arg(long, default_value_t = 200)]
        hosts: u32,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Write the curves here as SVG.
        #[arg(long)]
        svg: Option<std::path::PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().drill {
        Drill::Openai { seeds, first_seed, json } => run_openai(seeds, first_seed, json),
        Drill::Herd { hosts, seed, svg, json } => run_herd(hosts, seed, svg, json),
    }
}

fn run_herd(hosts: u32, seed: u64, svg: Option<std::path::PathBuf>, json: bool) -> Result<ExitCode> {
    let plan = herd::Plan { hosts, seed, ..herd::Plan::default() };
    let (naive, governed) = herd::run(plan);
    if let Some(path) = svg {
        std::fs::write(path, herd::svg(&[&naive, &governed]))?;
    }
    if json {
        println!("{}", serde_json::to_string(&[&naive, &governed])?);
    } else {
        print!("{}", herd::Report(plan, &[&naive, &governed]));
    }
    Ok(if governed.kept_upright() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_openai(seeds: u64, first_seed: u64, json: bool) -> Result<ExitCode> {
    let mut scores = Vec::new();
    for illness in Illness::ALL {
        for seed in first_seed..first_seed + seeds {
            let score = openai(seed, illness, Times::default(), Plan::default());
            if score.wrong + score.wrong_after > 0 || score.detected_ms.is_none() {
                eprintln!("seed {seed} breaks the promise: {score:?}");
            }
            scores.push(score);
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&scores)?);
    } else {
        print!("{}", Table(&scores));
    }
    let kept = scores.iter().all(|score| score.wrong + score.wrong_after == 0 && score.detected_ms.is_some());
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
