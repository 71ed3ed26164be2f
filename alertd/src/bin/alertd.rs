//! The alert router's process. What it does stands in the library; here are its arguments and its exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use dogwatch_alertd::{config::Config, daemon};

/// Routes alerts to people: groups, escalates until somebody acks, tells each once.
#[derive(Parser)]
#[command(name = "alertd", version)]
struct Arguments {
    /// Config file; `alertd.d/*.toml` beside it are read too.
    #[arg(long, default_value = "/etc/dogwatch/alertd.toml")]
    config: PathBuf,
    /// Check the config, say everything that is wrong with it, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return match Config::read(&arguments.config) {
            Ok(_) => ExitCode::SUCCESS,
            Err(problems) => {
                eprintln!("{problems}");
                ExitCode::from(2)
            }
        };
    }
    dogwatch_daemon::logging::init(tracing::Level::INFO);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ran = match runtime {
        Ok(runtime) => runtime.block_on(daemon::run(arguments.config)),
        Err(error) => Err(error.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
