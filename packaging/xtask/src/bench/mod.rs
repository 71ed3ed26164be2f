//! `cargo xtask bench`: measures what has a budget, with release builds.
//!
//! | part | what it measures |
//! | --- | --- |
//! | `dns` | cost of an answer, beside an echo server, Unbound, dnsmasq, Knot Resolver, PowerDNS Recursor and dnsdist |
//! | `outage` | what clients see while the upstream fails, beside the same servers |
//! | `snapshot` | time of a restart with a full cache; memory and disk space per name |
//! | `alertd` | cost of an alert, beside Alertmanager |
//! | [`agent`] | memory and CPU time of the daemons and of one check, beside other monitoring agents |
//!
//! All but the last are in the program `bench` of `dogwatch-tests`. Without a part all of them run,
//! followed by one table of budgets. The figures depend on the machine, so a missed budget is
//! printed but does not fail the command.

mod agent;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{apt, clock, sh};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Print one JSON document instead of tables
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone)]
enum Part {
    /// DNS answers beside other servers: CPU, queries per second, latency, memory
    Dns {
        /// For example `--only echo,dogwatch,unbound --rounds 3 --seconds 1 --million`; `--help`
        /// lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Outages beside other servers: correct answers, latency, upstream load, recovery
    Outage {
        /// For example `--quick --modes blackhole,restart --only dogwatch,unbound,no-cache`;
        /// `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Restart with 100,000 and 1,000,000 names; memory and disk space per name
    Snapshot {
        /// For example `--names 100000 --rounds 5`; `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Alerts beside Alertmanager: ingest, lists, memory, restart, delivery
    Alertd {
        /// For example `--alerts 20000 --groups 1000`; `--help` lists all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Memory and CPU time of the daemons and of one check, beside seven monitoring agents
    Agent {
        /// How long each of the three parts is measured
        #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..))]
        seconds: u64,
        /// Only the CPU time of one check
        #[arg(long)]
        cost: bool,
    },
}

/// A figure and its budget. `met` is `None` if it was not measured.
#[derive(Serialize, Deserialize)]
struct Budget {
    what: String,
    limit: String,
    measured: String,
    met: Option<bool>,
}

impl Budget {
    fn at_most(what: &str, measured: f64, most: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            limit: format!("≤ {most} {unit}"),
            measured: format!("{measured:.2} {unit}"),
            met: Some(measured <= most),
        }
    }

    fn at_least(what: &str, measured: f64, least: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            limit: format!("≥ {least} {unit}"),
            measured: format!("{measured:.1} {unit}"),
            met: Some(measured >= least),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let from = clock::now();
    let all = [
        Part::Dns { arguments: vec!["--million".into()] },
        Part::Outage { arguments: Vec::new() },
        Part::Snapshot { arguments: Vec::new() },
        Part::Alertd { arguments: Vec::new() },
        Part::Agent { seconds: 120, cost: false },
    ];
    let parts = options.part.as_ref().map_or(all.to_vec(), |part| vec![part.clone()]);
    build(&parts)?;
    let mut document = serde_json::Map::new();
    let mut budgets = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        eprintln!("{} of {}: {} …", number + 1, parts.len(), part.name());
        let (report, own) = part.run(options.json)?;
        document.insert(part.name().to_owned(), report);
        budgets.extend(own);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else if parts.len() > 1 {
        println!("all budgets, after {}", clock::took(from));
        summarise(&budgets);
    }
    Ok(())
}

/// Installs the peers and builds the release profile.
fn build(parts: &[Part]) -> Result<()> {
    let agents = parts.iter().any(|part| matches!(part, Part::Agent { cost: false, .. }));
    let servers = parts.iter().any(|part| !matches!(part, Part::Agent { .. }));
    let lists = [(agents, apt::AGENTS), (servers, apt::PEERS)];
    for (_, list) in lists.into_iter().filter(|(wanted, _)| *wanted) {
        if let Some(line) = apt::install_peers(list)? {
            eprintln!("some peers are missing; to install them: {line}");
        }
    }
    eprintln!("building the release profile …");
    let mut words = vec!["-p", "dogwatch", "-p", "dogwatch-alertd", "--bin", "dogwatch", "--bin", "alertd"];
    if servers {
        words.extend(["-p", "dogwatch-tests", "--bin", "alertctl", "--bin", "bench"]);
    }
    sh::run(sh::cargo(&["build", "-q", "--release"]).args(words))
}

impl Part {
    fn name(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Outage { .. } => "outage",
            Self::Snapshot { .. } => "snapshot",
            Self::Alertd { .. } => "alertd",
            Self::Agent { .. } => "agent",
        }
    }

    /// Runs it and prints its tables unless `json`. Returns the report and its budgets.
    fn run(&self, json: bool) -> Result<(Value, Vec<Budget>)> {
        match self {
            Self::Agent { seconds, cost: true } => {
                let costs = agent::measure_costs(Duration::from_secs(*seconds))?;
                if !json {
                    agent::print_costs(&costs);
                }
                Ok((serde_json::to_value(&costs)?, agent::budgets_of(&costs)))
            }
            Self::Agent { seconds, cost: false } => {
                let report = agent::measure(Duration::from_secs(*seconds))?;
                if !json {
                    agent::print_table(&report);
                }
                Ok((serde_json::to_value(&report)?, agent::budgets(&report)))
            }
            Self::Dns { arguments }
            | Self::Outage { arguments }
            | Self::Snapshot { arguments }
            | Self::Alertd { arguments } => bench(self.name(), arguments, json),
        }
    }
}

/// Runs a part of the `bench` binary.
fn bench(part: &str, arguments: &[String], json: bool) -> Result<(Value, Vec<Budget>)> {
    let folder = sh::target().join("bench");
    fs::create_dir_all(&folder)?;
    let path: PathBuf = folder.join(format!("{part}.json"));
    let mut command = sh::command(&[sh::target().join("release/bench")]);
    command.arg(part).args(arguments).arg("--report").arg(&path);
    if json {
        sh::output(command.arg("--json"))?;
    } else {
        sh::run(&mut command)?;
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok((Value::Null, Vec::new()));
    }
    let text = fs::read(&path).with_context(|| format!("no report in {}", path.display()))?;
    let report: Value = serde_json::from_slice(&text)?;
    let budgets = Vec::<Budget>::deserialize(&report["budgets"])?;
    Ok((report, budgets))
}

fn summarise(budgets: &[Budget]) {
    let width =
        |of: fn(&Budget) -> &str| budgets.iter().map(|one| of(one).chars().count()).max().unwrap_or(0);
    let (what, measured) = (width(|one| &one.what), width(|one| &one.measured));
    for one in budgets {
        let verdict = match one.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "NOT MEASURED",
        };
        println!("{verdict:<12}  {:<what$}  {:>measured$}  {}", one.what, one.measured, one.limit);
    }
    let count = |met: Option<bool>| budgets.iter().filter(|one| one.met == met).count();
    println!("{} met, {} missed, {} not measured", count(Some(true)), count(Some(false)), count(None));
}
