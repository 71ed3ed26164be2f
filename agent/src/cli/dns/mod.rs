//! `dogwatch dns`: runs the cache, or asks the running one.

mod drill;
mod host;
mod options;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use dogwatch_daemon::logging;
use dogwatch_dns::{config::Config, control::Flush, explain, resolver::Flushed};

use super::fail;
use options::{DEFAULT_PATH, How};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// The config file; `*.toml` in the directory of the same name with `.d` are read after it.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Check the config, say everything that is wrong with it, and exit: 1 if anything is.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    ask: Option<Ask>,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Explain one name: its answer, its age, why it is stale, what happens next.
    Why {
        /// The name, with or without its last dot.
        name: String,
        /// The record type: A, AAAA, TYPE65, …
        #[arg(default_value = "A")]
        kind: String,
        #[command(flatten)]
        how: How,
    },
    /// Take upstream's word, now, for a name or zone whose last known good answer is held back.
    ///
    /// Upstream is asked at once, and for an hour the name and all below it are not guarded.
    Accept {
        /// The name or zone; `.` for every name.
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// List the names that matter most: the most used, the stalest, or those that stop resolving first.
    Top {
        /// uses: asked for most; stale: furthest past their TTL; risk: too old to serve soonest if upstreams stay away.
        #[arg(long, default_value = "uses", value_parser = ["uses", "stale", "risk"])]
        by: String,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=2_000))]
        lines: u16,
        #[command(flatten)]
        how: How,
    },
    /// Print what is cached, as lines of a zone file.
    Dump {
        /// Only this name and what is below it.
        #[arg(default_value = ".")]
        zone: String,
        #[command(flatten)]
        how: How,
    },
    /// Take answers out of the cache, so that upstream is asked anew. Refused while upstreams are ill.
    Flush {
        /// One name.
        name: Option<String>,
        /// Only this record type of it.
        #[arg(requires = "name")]
        kind: Option<String>,
        /// A name and everything below it; `.` for all.
        #[arg(long, conflicts_with = "name")]
        zone: Option<String>,
        /// Even while upstreams are ill: what is taken out stops resolving until they are back.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Rehearse an outage on this live host: upstreams seem dead for a while, and you see whether names still resolve and
    /// whether somebody is told. Ends by itself.
    Drill(drill::Arguments),
    /// Show the upstreams, how much stale data is served, and whether this host asks the cache.
    ///
    /// With --json, `letter_case` says of an upstream over UDP whether it repeats the random upper and lower case in which it
    /// is asked: `kept` (then an answer in other letters is not believed, and counted in `other_case`), `learning`, or
    /// `not_kept` (then it is asked in lower case).
    Status {
        #[command(flatten)]
        how: How,
    },
    /// Make this host ask the cache first and its old servers if the cache does not answer; undone if it does not work.
    Enable(host::Enable),
    /// Restore the resolver configuration as it was before `enable`.
    Disable(host::Disable),
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    match arguments.ask {
        None if arguments.check => check(&arguments.config),
        None => serve(arguments.config).await,
        Some(Ask::Why { name, kind, how }) => {
            let Some(control) = how.control() else { return ExitCode::FAILURE };
            match control.why(&name, &kind).await {
                Ok(answer) => how.print(&answer, explain::why),
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(Ask::Accept { name, how }) => {
            let Some(control) = how.control() else { return ExitCode::FAILURE };
            match control.accept(&name).await {
                Ok(done) => how.print(&done, explain::accept),
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(Ask::Status { how }) => host::status(how).await,
        Some(Ask::Enable(arguments)) => host::enable(arguments).await,
        Some(Ask::Disable(arguments)) => host::disable(arguments).await,
        Some(Ask::Top { by, lines, how }) => {
            let Some(control) = how.control() else { return ExitCode::FAILURE };
            match control.top(&by, usize::from(lines)).await {
                Ok(answer) => how.print(&answer, |listed| explain::top(listed)),
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(Ask::Dump { zone, how }) => dump(&zone, &how).await,
        Some(Ask::Flush { name, kind, zone, force, how }) => {
            let Some(control) = how.control() else { return ExitCode::FAILURE };
            match control.flush(&Flush { name, kind, zone, force }).await {
                Ok(Flushed { refused: Some(refused), .. }) => fail(&refused),
                Ok(answer) => {
                    how.print(&answer, |flushed| format!("{} answers taken out\n", flushed.answers))
                }
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(Ask::Drill(arguments)) => drill::run(arguments).await,
    }
}

/// Page by page, so that neither end holds a million names as text.
async fn dump(zone: &str, how: &How) -> ExitCode {
    let Some(control) = how.control() else { return ExitCode::FAILURE };
    let mut from = Some(0);
    while let Some(place) = from {
        let page = match control.dump(zone, place).await {
            Ok(page) => page,
            Err(error) => return fail(&error.to_string()),
        };
        let text = if how.json {
            // One document a line: a million names are no array to parse at once.
            page.answers.iter().filter_map(|answer| serde_json::to_string(answer).ok()).fold(
                String::new(),
                |mut text, line| {
                    text.extend([line.as_str(), "\n"]);
                    text
                },
            )
        } else {
            explain::dump(&page.answers)
        };
        // `| head` has seen enough.
        if io::stdout().write_all(text.as_bytes()).is_err() {
            break;
        }
        from = page.next;
    }
    ExitCode::SUCCESS
}

fn check(config: &Path) -> ExitCode {
    match Config::load(config) {
        Ok(_) => {
            println!("{}: fine", config.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: PathBuf) -> ExitCode {
    logging::init(tracing::Level::INFO);
    match dogwatch_dns::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
