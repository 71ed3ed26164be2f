//! The benchmarks beside other servers; `cargo xtask bench` builds and runs it.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dogwatch_tests::bench::{
    alertd, echo,
    outage::{self, Illness},
    peers::Peer,
    race, snapshot, table,
};
use serde::Serialize;

/// Benchmarks beside other servers, in one run, over loopback.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Answers: CPU, queries per second, latency, memory
    Dns {
        #[command(flatten)]
        output: Output,
        /// Only these servers, for example `echo,dogwatch,unbound`
        #[arg(long, value_delimiter = ',', value_parser = Peer::from_name)]
        only: Vec<Peer>,
        /// Names in the caches
        #[arg(long, default_value_t = 10_000)]
        names: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Length of one round of one server
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// Also fill each cache with a million names (minutes)
        #[arg(long)]
        million: bool,
    },
    /// Outages: correct answers, latency, upstream load, recovery
    Outage {
        #[command(flatten)]
        output: Output,
        /// Only these servers, for example `dogwatch,unbound,no-cache`
        #[arg(long, value_delimiter = ',', value_parser = Peer::from_name)]
        only: Vec<Peer>,
        /// Only these failures
        #[arg(long, value_delimiter = ',')]
        modes: Vec<Illness>,
        /// A short run: failures of 20 s instead of 120 s
        #[arg(long)]
        quick: bool,
        /// Failures at the same time, each with its own servers; more than one affects latencies
        #[arg(long, default_value_t = 2)]
        at_once: usize,
    },
    /// Restart with a full cache; memory and disk space per name
    Snapshot {
        #[command(flatten)]
        output: Output,
        /// Names in the cache
        #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
        names: Vec<u32>,
        /// Restarts of each kind
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Alerts beside Alertmanager: ingest, lists, memory, restart, delivery
    Alertd {
        #[command(flatten)]
        output: Output,
        #[arg(long, default_value_t = 100_000)]
        alerts: u32,
        #[arg(long, default_value_t = 5_000)]
        groups: u32,
        /// Alerts whose delivery is timed
        #[arg(long, default_value_t = 300)]
        timed: u32,
        /// Groups of one alert each, all notified at once
        #[arg(long, default_value_t = 20_000)]
        told: u32,
    },
    /// (internal) be the echo server
    #[command(hide = true)]
    Echo { address: SocketAddr },
}

#[derive(Args)]
struct Output {
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Also write the JSON document to this file
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Output {
    fn give(&self, document: &impl Serialize, tables: &str) -> Result<()> {
        let json = serde_json::to_string_pretty(document)?;
        if let Some(path) = &self.report {
            fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}", if self.json { &json } else { tables });
        Ok(())
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let progress = |what: &str| eprintln!("  {what} …");
    match Arguments::parse().part {
        Part::Dns { output, only, names, rounds, seconds, million } => {
            let all = || Peer::ALL.into_iter().filter(|peer| *peer != Peer::Direct).collect();
            let servers = if only.is_empty() { all() } else { only };
            let plan = race::Plan { servers, names, rounds, round: Duration::from_secs(seconds), million };
            let race = race::run(&plan, folder.path(), &progress)?;
            let tables = race::print(&race, table::colours())
                + "\n"
                + &table::budgets(&race.budgets, table::colours());
            output.give(&race, &tables)
        }
        Part::Outage { output, only, modes, quick, at_once } => {
            let all = || Peer::ALL.into_iter().filter(|peer| *peer != Peer::Echo).collect();
            let plan = outage::Plan {
                servers: if only.is_empty() { all() } else { only },
                illnesses: if modes.is_empty() { Illness::value_variants().to_vec() } else { modes },
                at_once,
                ill: Duration::from_secs(if quick { 20 } else { 120 }),
                after: Duration::from_secs(if quick { 15 } else { 30 }),
            };
            let outage = outage::run(&plan, folder.path(), &progress)?;
            let tables = outage::print(&outage, table::colours())
                + "\n"
                + &table::budgets(&outage.budgets, table::colours());
            output.give(&outage, &tables)
        }
        Part::Snapshot { output, names, rounds } => {
            let snapshot = snapshot::run(&names, rounds, folder.path(), &progress)?;
            let tables = snapshot::print(&snapshot, table::colours())
                + "\n"
                + &table::budgets(&snapshot.budgets, table::colours());
            output.give(&snapshot, &tables)
        }
        Part::Alertd { output, alerts, groups, timed, told } => {
            let plan = alertd::Plan { alerts, groups, timed, told, ..alertd::Plan::default() };
            let bench = alertd::run(&plan, folder.path(), &progress)?;
            let tables = alertd::print(&bench, &plan, table::colours())
                + "\n"
                + &table::budgets(&bench.budgets, table::colours());
            output.give(&bench, &tables)
        }
        Part::Echo { address } => Ok(echo::serve(address)?),
    }
}
