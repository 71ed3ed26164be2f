//! The command line: `dogwatch run|dns|check|submit|job|status|list|discover|graph|replay|config`.

mod check;
mod config;
mod discover;
mod dns;
mod graph;
mod job;
mod print;
mod replay;
mod status;
mod submit;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use dogwatch_daemon::{duration::Span, logging, unix_http::Client, usage};

use crate::config::DEFAULT_PATH;
use print::{complain, print};

/// Monitor this host and report changes to alertd, or run the DNS cache.
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
    /// Run the DNS cache in the foreground, or query and control the running one.
    Dns(dns::Arguments),
    /// Run a check once, like a Nagios plugin: print the result and exit with 0 to 3.
    Check(check::Arguments),
    /// Submit the result of a passive check to the running agent.
    Submit(submit::Arguments),
    /// Run a job of cron or of a timer and make it a service.
    Job(job::Arguments),
    /// Show the status of all services.
    Status(status::Arguments),
    /// List the configured and built-in checks and where each comes from.
    List(config::ListArguments),
    /// Look at this host: show what is checked and why, and what is not.
    Discover(discover::Arguments),
    /// Draw the values of a service over time.
    Graph(graph::Arguments),
    /// Show which problems other limits would have announced.
    Replay(replay::Arguments),
    /// Check the config.
    #[command(subcommand)]
    Config(config::Command),
}

/// The path of the config.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Config file. Drop-ins (agent.d/*.toml beside agent.toml) are read after it.
    #[arg(long, value_name = "FILE", env = "DOGWATCH_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// The socket of the running agent.
#[derive(Debug, clap::Args)]
struct SocketArgument {
    /// Socket of the agent [default: the socket in the config].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

impl SocketArgument {
    fn client(&self) -> Result<Client, String> {
        let config = &self.config.config;
        match (&self.socket, crate::config::missing(config)) {
            (Some(socket), _) => Ok(Client::new(socket.clone(), ANSWER_WITHIN)),
            (None, None) => Ok(Client::new(crate::config::socket(config), ANSWER_WITHIN)),
            (None, Some(missing)) => Err(missing),
        }
    }

    async fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<(), String> {
        self.client()?.post::<()>(path, body).await.map_err(|error| error.to_string())
    }
}

/// The whole command line, for man pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command.
pub fn main() -> ExitCode {
    let command = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(answer) => return usage::answer("dogwatch", &answer),
    };
    // For a plugin, 1 would mean WARNING.
    let lost = if matches!(command, Command::Check(_)) { 3 } else { 1 };
    let code = run(command);
    if print::failed() { ExitCode::from(lost) } else { code }
}

fn run(command: Command) -> ExitCode {
    match command {
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
        Command::Job(arguments) => block_on(job::run(arguments)),
        Command::Status(arguments) => block_on(status::run(arguments)),
        Command::List(arguments) => block_on(config::list(arguments)),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Discover(arguments) => block_on(discover::run(arguments)),
        Command::Config(command) => config::run(&command),
    }
}

/// One thread is enough: the agent waits most of the time.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A check that hangs in the kernel must not delay the exit.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(&format!("cannot start: {error}")),
    }
}

/// A time that is not nothing, for arguments.
fn time(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if (Span::secs(1)..=TIME_MAX).contains(&span) {
        Ok(span)
    } else {
        Err(format!("must be 1s to {TIME_MAX}"))
    }
}

/// The longest time for which a result can be valid, and the longest that a job can wait.
const TIME_MAX: Span = Span::secs(366 * 86_400);

/// The agent usually answers in milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

fn fail(message: &str) -> ExitCode {
    complain(format_args!("dogwatch: {message}\n"));
    ExitCode::FAILURE
}
