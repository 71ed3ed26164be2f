//! The outage drills in virtual time: `drill all|openai|d1|…|d6 [--seeds N] [--long] [--json]
//! [--svg DIR]`, `drill herd`, `drill storm`; and with real processes in real time: `drill crash`,
//! an alertd that is killed; `drill hostile`, one that is attacked; and `drill neighbours`, the
//! three daemons while all their listeners are attacked.
//! Exit code 1 if a promise is broken.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use dogwatch_tests::{
    crash::campaign,
    drill::{self, Table},
    herd, hostile, neighbours, storm,
};

/// Outage drills in virtual time, with the real cores
#[derive(Parser)]
#[command(after_help = "`cargo xtask drill faults` injects real faults on a lab host (needs root).")]
struct Arguments {
    #[command(subcommand)]
    drill: Which,
}

#[derive(Subcommand)]
enum Which {
    /// All drills of the DNS cache
    All(Options),
    /// OpenAI, 11 December 2024: 5,000 names, no upstream answers for four and a half hours
    Openai(Options),
    /// The same with the short TTLs of a cluster and an upstream that fails gradually
    D1(Options),
    /// AWS, 20 October 2025: the answer for a popular name is empty for two and a half hours
    D2(Options),
    /// Like D1, with a restart of the host after an hour
    D3(Options),
    /// One of three upstreams is lame, the others flap
    D4(Options),
    /// Every name is 0.0.0.0 for ten minutes
    D5(Options),
    /// Every name is NXDOMAIN for half a minute; some are really deleted
    D6(Options),
    /// Hosts with 5,000 names each return to one weak upstream after half an hour, with our cache
    /// and with caches that refresh on demand. `--hosts 1000` takes minutes and 2 GB of memory
    Herd {
        #[arg(long, default_value_t = 200)]
        hosts: u32,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Write the curves to this SVG file
        #[arg(long)]
        svg: Option<PathBuf>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Kill a real alertd at random while alerts flow to HTTP and SMTP receivers; a thousand kills
    /// take about fifteen minutes
    Crash {
        #[arg(long, default_value_t = 1_000)]
        kills: u32,
        #[arg(long, default_value_t = 400)]
        hosts: u32,
        /// Changes of state a second, over all hosts
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// The longest time between two kills, ms
        #[arg(long, default_value_t = 1_500)]
        life_ms: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Notify only by webhook, without a mail server
        #[arg(long)]
        no_mail: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// A leaked ingest token and local users attack a real alertd, while others report (root)
    Hostile {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// 20 s against small quotas, as in `cargo xtask test`
        #[arg(long, conflicts_with = "minutes")]
        short: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Another user and another address attack all listeners of the three daemons, while others ask
    /// and report (root)
    Neighbours {
        /// Ten minutes without the attacks and ten with them, not 15 s each
        #[arg(long)]
        long: bool,
        /// Attack only listeners whose name contains this: `agent-metrics`, `alertd-socket`, `tcp`,
        /// `udp`, `forger`, …
        #[arg(long)]
        only: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Hosts lose a rack and a DNS upstream within ten seconds: what one person on call gets, and
    /// what became of each alert
    Storm {
        #[arg(long, default_value_t = 10_000)]
        hosts: u32,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
struct Options {
    /// Runs of each drill, each with its own seed
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Run a hundred seeds
    #[arg(long)]
    long: bool,
    /// The first seed, to reproduce a run
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Leave out the plain cache, which runs with the first seed for comparison
    #[arg(long)]
    alone: bool,
    /// Print the check results of the first run of each drill, with times
    #[arg(long)]
    texts: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Write a plot of the first run of each drill to this directory
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let (name, options) = match Arguments::parse().drill {
        Which::All(options) => (None, options),
        Which::Openai(options) => (Some("openai"), options),
        Which::D1(options) => (Some("d1"), options),
        Which::D2(options) => (Some("d2"), options),
        Which::D3(options) => (Some("d3"), options),
        Which::D4(options) => (Some("d4"), options),
        Which::D5(options) => (Some("d5"), options),
        Which::D6(options) => (Some("d6"), options),
        Which::Herd { hosts, seed, svg, json } => return run_herd(hosts, seed, svg, json),
        Which::Crash { kills, hosts, rate, life_ms, seed, no_mail, json } => {
            let plan = campaign::Plan { kills, hosts, rate, life_ms, seed, mail: !no_mail };
            return run_crash(&plan, json);
        }
        Which::Hostile { minutes, short, json } => {
            let attack = if short { hostile::SHORT } else { Duration::from_mins(minutes) };
            return run_hostile(&hostile::Plan { attack, short }, json);
        }
        Which::Neighbours { long, only, json } => {
            let each = if long { neighbours::LONG } else { neighbours::SHORT };
            return run_neighbours(each, only.as_deref(), json);
        }
        Which::Storm { hosts, seed, json } => return run_storm(hosts, seed, json),
    };
    let drills: Vec<_> =
        drill::all().into_iter().filter(|drill| name.is_none_or(|name| drill.name == name)).collect();
    if let Some(folder) = &options.svg {
        fs::create_dir_all(folder)?;
    }
    let first = options.first_seed;
    let seeds = first..first + if options.long { 100 } else { options.seeds };
    let scores = drill::run_all(&drills, seeds, !options.alone, |drill, run| {
        let seed = run.score.seed;
        if !run.score.kept() {
            eprintln!(
                "{} {} breaks its promise with seed {seed}: {:?}",
                drill.name, drill.variant, run.score
            );
        }
        if options.texts && seed == first {
            print!("{}\n{}", drill.texts(run), drill.course(run));
        }
        if let Some(folder) = options.svg.as_ref().filter(|_| seed == first) {
            let variant = drill.variant.replace(", ", "-");
            let file = format!("{}{}{variant}.svg", drill.name, if variant.is_empty() { "" } else { "-" });
            if let Err(why) = fs::write(folder.join(&file), drill.plot(run)) {
                eprintln!("cannot write {file}: {why}");
            }
        }
    });
    if options.json {
        println!("{}", serde_json::to_string_pretty(&scores)?);
    } else {
        print!("{}", Table(&scores));
    }
    let kept = scores.iter().all(drill::Score::kept);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_herd(hosts: u32, seed: u64, svg: Option<PathBuf>, json: bool) -> Result<ExitCode> {
    let plan = herd::Plan { hosts, seed, ..herd::Plan::default() };
    let (naive, governed) = herd::run(plan);
    if let Some(path) = svg {
        fs::write(path, herd::svg(plan, [&naive, &governed]))?;
    }
    if json {
        println!("{}", serde_json::to_string(&[&naive, &governed])?);
    } else {
        print!("{}", herd::Report(plan, &[&naive, &governed]));
    }
    Ok(if governed.kept_upright() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_crash(plan: &campaign::Plan, json: bool) -> Result<ExitCode> {
    let report = campaign::run(plan, &|line| eprintln!("  {line} …"))?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_storm(hosts: u32, seed: u64, json: bool) -> Result<ExitCode> {
    let run = storm::run(storm::Plan { hosts, seed, ..storm::Plan::default() })?;
    if json {
        println!("{}", serde_json::to_string(&run)?);
    } else {
        print!("{}", storm::Report(&run));
    }
    Ok(if run.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_hostile(plan: &hostile::Plan, json: bool) -> Result<ExitCode> {
    let Some(report) = hostile::run(plan, &|line| eprintln!("  {line} …"))? else {
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_neighbours(each: Duration, only: Option<&str>, json: bool) -> Result<ExitCode> {
    let Some(report) = neighbours::run(each, only, &|line| eprintln!("  {line} …"))? else {
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
