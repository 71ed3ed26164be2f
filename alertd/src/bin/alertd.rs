//! The binary `alertd`: parses the arguments, runs the daemon from the library, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use dogwatch_alertd::{arguments::Arguments, config::Config, daemon};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return match Config::read(&arguments.config) {
            Ok(config) => {
                config.warnings.iter().for_each(|words| eprintln!("warning: {words}"));
                ExitCode::SUCCESS
            }
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
