//! The outage drills in virtual time: `drill openai [--seeds N] [--json]`. Exit code 1 if a promise is broken.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dogwatch_tests::{
    dns_world::Plan,
    drill::{Illness, Table, Times, openai},
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
}

fn main() -> Result<ExitCode> {
    let Drill::Openai { seeds, first_seed, json } = Arguments::parse().drill;
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
