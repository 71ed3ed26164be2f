//! `dogwatch config check` and `dogwatch list`.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;
use dogwatch_checks::Host;
use dogwatch_daemon::duration::Span;

use super::{ConfigArgument, complain, discover, fail, print};
use crate::config::{self, Work};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the config and list all errors. Exits with 1 if there are any.
    Check(ConfigArgument),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// List what is not watched, and why, instead
    #[arg(long)]
    blind: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> ExitCode {
    let Command::Check(ConfigArgument { config }) = command;
    if config == Path::new(config::DEFAULT_PATH) && !config.exists() {
        let path = config.display();
        complain(format_args!("warning: {path} does not exist; the agent runs with its defaults\n"));
    }
    match config::load(config, &Host::live()) {
        Ok(loaded) => {
            let forbidden = config::Sandbox::installed().map(|sandbox| loaded.forbidden(&sandbox));
            for warning in loaded.warnings().into_iter().chain(forbidden.into_iter().flatten()) {
                complain(format_args!("warning: {}: {warning}\n", config.display()));
            }
            print(format_args!("{}: valid, {}\n", config.display(), loaded.summary()));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            complain(format_args!("{problems}\n"));
            ExitCode::FAILURE
        }
    }
}

pub(super) async fn list(arguments: ListArguments) -> ExitCode {
    let loaded = match config::load(&arguments.config.config, &Host::live()) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&format!("invalid config:\n{problems}")),
    };
    if arguments.blind {
        return discover::blind(&loaded, arguments.json).await;
    }
    if arguments.json {
        let rows: Vec<_> = loaded.checks.iter().map(|(name, check)| json(name, check)).collect();
        print(format_args!("{}\n", serde_json::Value::from(rows)));
        return ExitCode::SUCCESS;
    }
    let widest =
        loaded.checks.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("SERVICE".len());
    print(format_args!(
        "{:<widest$}  {:<8}  {:<8}  {:<8}  {:<3}  ORIGIN\n",
        "SERVICE", "KIND", "INTERVAL", "RETRY", "MAX"
    ));
    for (name, check) in &loaded.checks {
        let (interval, retry) = match check.work {
            Work::Passive(_) | Work::Jobs(_) | Work::Own => ("-".to_owned(), "-".to_owned()),
            Work::Native(_) | Work::Plugin(_) => {
                (Span(check.timing.interval).to_string(), Span(check.timing.retry_interval).to_string())
            }
        };
        let (kind, max) = (&check.kind, check.settings.max_attempts);
        let origin = &check.origin;
        print(format_args!("{name:<widest$}  {kind:<8}  {interval:<8}  {retry:<8}  {max:<3}  {origin}\n"));
    }
    ExitCode::SUCCESS
}

fn json(name: &str, check: &config::Check) -> serde_json::Value {
    serde_json::json!({
        "service": name,
        "kind": check.kind,
        "interval_s": check.timing.interval.as_secs_f64(),
        "retry_interval_s": check.timing.retry_interval.as_secs_f64(),
        "max_attempts": check.settings.max_attempts,
        "timeout_s": check.timeout.as_secs_f64(),
        "labels": check.settings.labels,
        "annotations": check.settings.annotations,
        "origin": check.origin.to_string(),
    })
}
