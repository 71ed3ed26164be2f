//! `dogwatch dns`: runs the cache, or sends a command to the running one.

mod drill;
mod host;
mod options;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use dogwatch_daemon::logging;
use dogwatch_dns::{
    config::{Config, DEFAULT_PATH},
    serve::{control::Flush, explain},
};
use dogwatch_dns_core::resolver::Flushed;

use super::{complain, fail, print};
use options::How;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Config file; drop-ins (dns.d/*.toml beside dns.toml) are read after it
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Check the config, print all errors, and exit (1 if there are any)
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    ask: Option<Ask>,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Explain one name: its answer and age, why it is stale or held, and what happens next
    Why {
        /// Name, with or without the trailing dot
        name: String,
        /// Record type, such as A, AAAA or TYPE65
        #[arg(value_name = "TYPE", default_value = "A")]
        kind: String,
        #[command(flatten)]
        how: How,
    },
    /// Accept the upstream's answers for a name or zone that a guard holds
    ///
    /// Ends the hold and asks the upstream again at once. For one hour, the guards ignore this name
    /// and all names below it.
    Accept {
        /// Name or zone; `.` for all names
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// List the names that are used most, are the most stale, or stop resolving first
    Top {
        /// uses: used most; stale: furthest past their TTL; risk: first to become too old to serve
        #[arg(long, default_value = "uses", value_parser = ["uses", "stale", "risk"])]
        by: String,
        /// Number of names
        #[arg(short = 'n', long, default_value_t = 20, value_parser = lines)]
        lines: u16,
        #[command(flatten)]
        how: How,
    },
    /// Print the cached answers in zone-file format
    Dump {
        /// Only this name and the names below it
        #[arg(default_value = ".")]
        zone: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove answers from the cache, so that they are fetched again
    ///
    /// Refuses while the upstreams are failing.
    Flush {
        /// Name to remove
        name: Option<String>,
        /// Only this record type of the name
        #[arg(value_name = "TYPE", requires = "name")]
        kind: Option<String>,
        /// Remove a name and all names below it; `.` for all
        #[arg(long, conflicts_with = "name")]
        zone: Option<String>,
        /// Flush even while the upstreams are failing: these names stop resolving until the
        /// upstreams are back
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Rehearse an outage on this live host
    ///
    /// For a limited time, the cache behaves as if its upstreams were down. The report shows
    /// whether names still resolve and whether somebody is notified. The drill ends by itself.
    Drill(drill::Arguments),
    /// Show the upstreams, the stale answers being served, and whether this host uses the cache
    ///
    /// With --json, `letter_case` shows whether a UDP upstream repeats the random letter case of
    /// our queries in its answers: `kept` (it does; answers in a different case are rejected and
    /// counted in `other_case`), `learning`, or `not_kept` (it does not; queries to it are in lower
    /// case).
    Status {
        #[command(flatten)]
        how: How,
    },
    /// Make this host use the cache first and its old servers as fallback
    ///
    /// Verifies the result and reverts everything if names do not resolve.
    Enable(host::Enable),
    /// Restore the resolver configuration from before `enable`
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
                Ok(answer) => how.print(&answer, |flushed| format!("answers flushed: {}\n", flushed.answers)),
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(Ask::Drill(arguments)) => drill::run(arguments).await,
    }
}

/// Works page by page, so that neither side holds a million names as text.
async fn dump(zone: &str, how: &How) -> ExitCode {
    let Some(control) = how.control() else { return ExitCode::FAILURE };
    let mut from = Some(0);
    while let Some(place) = from {
        let page = match control.dump(zone, place).await {
            Ok(page) => page,
            Err(error) => return fail(&error.to_string()),
        };
        let text = if how.json {
            // One document per line, because an array of a million names is hard to parse.
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
        // The reader, such as `head`, has closed the pipe.
        if !print(text) {
            break;
        }
        from = page.next;
    }
    ExitCode::SUCCESS
}

/// How many names to list.
fn lines(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=2_000).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a whole number from 1 to 2000"))
}

fn check(config: &Path) -> ExitCode {
    match Config::load(config) {
        Ok(_) => {
            print(format_args!("{}: OK\n", config.display()));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            complain(format_args!("{problems}\n"));
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
