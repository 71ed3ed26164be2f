//! The binary `alertd`: parses the arguments, runs the daemon from the library, sets the exit code.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::Parser;
use dogwatch_alertd::{arguments::Arguments, config::Config, daemon, engine::Ended};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => return dogwatch_daemon::usage::answer("alertd", &answer),
    };
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
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::ClockSetBack) => start_again(),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The same program with the same arguments in the same process, as after a kill.
fn start_again() -> ExitCode {
    let mut command = Command::new("/proc/self/exe");
    command.args(env::args_os().skip(1));
    if let Some(name) = env::args_os().next() {
        command.arg0(name);
    }
    let error = command.exec();
    tracing::error!("cannot start again: {error}");
    ExitCode::FAILURE
}
