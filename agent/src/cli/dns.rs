//! `dogwatch dns`: runs the cache, or asks the running one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use dogwatch_daemon::logging;
use dogwatch_dns::{Control, config::Config, explain};
use serde::Serialize;

use super::{dns_host, fail};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// The config file; `*.toml` in the directory of the same name with `.d` are read after it.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
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
    /// Show the upstreams, how much stale data is served, and whether this host asks the cache.
    Status {
        #[command(flatten)]
        how: How,
    },
    /// Make this host ask the cache first and its old servers if the cache does not answer; undone if it does not work.
    Enable(dns_host::Enable),
    /// Restore the resolver configuration as it was before `enable`.
    Disable(dns_host::Disable),
}

#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// The cache's control socket; without it the one that the config names.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The cache's config file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
}

pub(super) const DEFAULT_PATH: &str = "/etc/dogwatch/dns.toml";

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    match arguments.ask {
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
        Some(Ask::Status { how }) => dns_host::status(how).await,
        Some(Ask::Enable(arguments)) => dns_host::enable(arguments).await,
        Some(Ask::Disable(arguments)) => dns_host::disable(arguments).await,
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

impl How {
    pub(super) fn control(&self) -> Option<Control> {
        match &self.socket {
            Some(socket) => Some(Control::at(socket)),
            None => Self::configured(&self.config),
        }
    }

    fn configured(file: &Path) -> Option<Control> {
        match Config::load(file) {
            Ok(config) => Some(Control::at(&config.control_socket)),
            Err(problems) => {
                fail(&problems.to_string());
                None
            }
        }
    }

    fn print<T: Serialize>(&self, answer: &T, text: impl Fn(&T) -> String) -> ExitCode {
        if !self.json {
            print!("{}", text(answer));
            return ExitCode::SUCCESS;
        }
        match serde_json::to_string_pretty(answer) {
            Ok(json) => println!("{json}"),
            Err(error) => return fail(&error.to_string()),
        }
        ExitCode::SUCCESS
    }
}
