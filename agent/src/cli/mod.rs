//! The command line: `dogwatch run|dns|check|submit|status|list|config`.

mod check;
mod config;
mod dns;
mod status;
mod submit;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use dogwatch_daemon::{logging, unix_http::Client};

use crate::config::DEFAULT_PATH;

/// Watches this host: runs checks, tells alertd what changed, once.
#[derive(Debug, Parser)]
#[command(name = "dogwatch", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground.
    Run(ConfigArgument),
    /// Run the DNS cache in the foreground, or ask the running one.
    Dns(dns::Arguments),
    /// Run one native check now, print a Nagios plugin line, exit 0 to 3.
    Check(check::Arguments),
    /// Hand a result of a passive check to the running agent.
    Submit(submit::Arguments),
    /// Show what the running agent believes of every service.
    Status(status::Arguments),
    /// List what would be watched, and why.
    List(config::ListArguments),
    /// Work on the config.
    #[command(subcommand)]
    Config(config::Command),
}

/// Where the config is.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The config file; `*.toml` in the directory of the same name with `.d` are read after it.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Where the running agent listens.
#[derive(Debug, clap::Args)]
struct SocketArgument {
    /// The agent's socket [default: as the config says].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

impl SocketArgument {
    fn client(&self) -> Client {
        let path = self.socket.clone().unwrap_or_else(|| crate::config::socket(&self.config.config));
        Client::new(path, ANSWER_WITHIN)
    }
}

/// The whole command line, for man pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the arguments ask.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(ConfigArgument { config }) => {
            logging::init(tracing::Level::INFO);
            block_on(async move {
                match crate::run(&config).await {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        tracing::error!("{error}");
                        ExitCode::FAILURE
                    }
                }
            })
        }
        Command::Dns(arguments) => block_on(dns::run(arguments)),
        Command::Check(arguments) => block_on(check::run(arguments)),
        Command::Submit(arguments) => block_on(submit::run(arguments)),
        Command::Status(arguments) => block_on(status::run(arguments)),
        Command::List(arguments) => config::list(&arguments),
        Command::Config(command) => config::run(&command),
    }
}

/// One thread: the agent waits most of the time, and a second one costs memory.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A check that hangs in the kernel must not hold up the exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(&format!("cannot start: {error}")),
    }
}

/// The agent answers in milliseconds or not at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

fn fail(message: &str) -> ExitCode {
    eprintln!("dogwatch: {message}");
    ExitCode::FAILURE
}
