//! `alertctl`: sends requests to alertd over its socket or TLS, and shows the responses.
//!
//! | module | content |
//! | --- | --- |
//! | [`args`] | commands, options, help |
//! | `audit` | `audit` |
//! | `backup`, `whole_file` | `backup`: writes the file completely or not at all |
//! | `config` | `config check`: reads the config as alertd does |
//! | `downtime` | `downtime` |
//! | `health` | `health` |
//! | `oncall` | `oncall` and `override` |
//! | `send` | `send`: raises or resolves an alert |
//! | `way` | which alertd to ask: a socket, or a URL and a token |
//! | `when` | times as people type them (pure) |
//! | `replay` | `replay` |
//! | `token` | `token` |
//! | `route` | `route test` and `config diff` |
//! | `show` | responses as text (pure) |
//! | `paint` | tables and colours (pure) |
//!
//! alertctl decides nothing and stores nothing. alertd identifies the caller by the socket or the
//! token, and answers or refuses.

use std::{
    env,
    io::{self, IsTerminal, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser};
use dogwatch_daemon::{
    unix_http::{CallError, Client},
    usage,
};
use dogwatch_wire::{
    State,
    ctl::{self, HistoryEntry, Incident, Status, TestResult, Why},
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use nix::unistd::{Gid, Group};
use serde::{Serialize, de::DeserializeOwned};

mod address;
pub mod args;
mod audit;
mod backup;
mod config;
mod downtime;
mod health;
mod oncall;
mod paint;
mod replay;
mod route;
mod send;
mod show;
mod token;
mod when;
mod whole_file;

use address::{Address, Said};
use args::{Cli, Command, ConfigCommand, RouteCommand, Silence, SilenceCommand};
use paint::{Paint, View};

/// Slightly longer than alertd's own time limit, so that its error message arrives.
const DEADLINE: Duration = Duration::from_secs(20);
/// A test notification waits for the result of the receiver.
const TEST_DEADLINE: Duration = Duration::from_mins(2);

/// The command line's definition, for the man page and the completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The outcome; the help lists the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Refused,
    Unreachable,
    /// The exit codes of a plugin: 0, 1, 2.
    Health(State),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done | Self::Health(State::Ok) => 0,
            Self::Refused | Self::Health(State::Warning) => 1,
            Self::Health(State::Critical) => 2,
            Self::Unreachable | Self::Health(State::Unknown) => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Parses the command line and runs the command.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return usage::answer("alertctl", &answer),
    };
    let json = cli.json;
    let (exit, text) = match run(cli).await {
        Ok(answer) => (answer.exit, answer.text),
        Err(failure) => {
            say_failure(&failure, json);
            return failure.exit.into();
        }
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A closed pipe is not a failure: `alertctl history | head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("alertctl: cannot write to standard output: {error}"));
            // To whoever runs `health` as a plugin, 1 would mean WARNING.
            let lost =
                if matches!(exit, Exit::Health(_)) { Exit::Health(State::Unknown) } else { Exit::Refused };
            lost.into()
        }
        _ => exit.into(),
    }
}

/// Writes to standard error. Unlike `eprintln!`, this does not panic if nobody reads it.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn say_failure(failure: &Failure, json: bool) {
    if let (Exit::Health(_), false) = (failure.exit, json) {
        // The output of a plugin is what it prints on stdout. A closed pipe is not a failure.
        let _ = writeln!(io::stdout(), "{}", failure.words);
    } else if json {
        complain(serde_json::json!({ "error": failure.words, "exit": failure.exit.code() }));
    } else {
        complain(format_args!("alertctl: {}", failure.words));
    }
}

/// The text to print and the outcome.
struct Answer {
    text: String,
    exit: Exit,
}

/// The error to print, with advice, and the outcome.
struct Failure {
    words: String,
    exit: Exit,
}

async fn run(cli: Cli) -> Result<Answer, Failure> {
    let said = Said { socket: cli.socket, url: cli.url, token_file: cli.token_file, ca_file: cli.ca_file };
    let wrong = |words| Failure { words, exit: Exit::Refused };
    let way = Address::find(said).map_err(wrong)?;
    let alertd = Alertd { client: way.client(DEADLINE).map_err(wrong)?, way: &way, json: cli.json };
    let view = View { now: now(), zone: TimeZone::system(), paint: paint() };
    match cli.command {
        Command::Status => alertd.get("/v1/status", |status: &Status| show::status(status, &view)).await,
        Command::Health => health::ask(&alertd, &view).await,
        Command::Ack(ack) => {
            let body = ctl::Ack {
                comment: ack.comment.join(" "),
                sticky: ack.sticky,
                expire_s: ack.expire.map(|span| span.0.as_secs()),
            };
            let target = format!("/v1/incidents/{}/ack", ack.number);
            alertd.post(&target, &body, |incident: &Incident| show::acked(incident, &view)).await
        }
        Command::Unack(unack) => {
            let body = ctl::Unack { comment: unack.comment.join(" ") };
            let target = format!("/v1/incidents/{}/unack", unack.number);
            alertd.post(&target, &body, |incident: &Incident| show::acked(incident, &view)).await
        }
        Command::Why { number } => {
            alertd.get(&format!("/v1/incidents/{number}/why"), |why: &Why| show::why(why, &view)).await
        }
        Command::Send(ask) => send::send(&alertd, ask, &view).await,
        Command::Silence(silence) => self::silence(&alertd, silence, &view).await,
        Command::History(history) => {
            let back = SignedDuration::try_from(history.since.0).unwrap_or(SignedDuration::MAX);
            let since = view.now.saturating_sub(back).unwrap_or(Timestamp::MIN);
            let target = format!("/v1/history?since={since}&limit={}", history.limit);
            alertd.get(&target, |entries: &Vec<HistoryEntry>| show::history(entries, &view)).await
        }
        Command::Backup(ask) => backup::back_up(&alertd, &ask, &view).await,
        Command::Audit(ask) => audit::audit(&alertd, ask, &view).await,
        Command::Oncall(ask) => oncall::ask(&alertd, &ask, &view).await,
        Command::Downtime(ask) => downtime::downtime(&alertd, ask, &view).await,
        Command::Override(ask) => oncall::override_(&alertd, ask, &view).await,
        Command::Token { command } => token::token(&alertd, command, &view).await,
        Command::TestNotify { receiver } => test_notify(alertd, receiver, &view).await,
        Command::Route { command: RouteCommand::Test(ask) } => {
            let labels = ask.labels.into_iter().collect();
            let critical = ask.state == args::AskedState::Critical;
            route::test(&alertd, labels, critical, ask.config.as_deref(), &view).await
        }
        Command::Replay(ask) => replay::ask(&alertd, &ask.config, ask.since.0, ask.list, &view).await,
        Command::Config { command: ConfigCommand::Diff { config } } => {
            route::diff(&alertd, &config, &view).await
        }
        Command::Config { command: ConfigCommand::Check { config } } => {
            Ok(config::check(config.as_deref(), cli.json))
        }
    }
}

async fn silence(alertd: &Alertd<'_>, silence: Silence, view: &View) -> Result<Answer, Failure> {
    match silence.command {
        Some(SilenceCommand::List) => {
            alertd.get("/v1/silences", |list: &Vec<ctl::Silence>| show::silences(list, view)).await
        }
        Some(SilenceCommand::End { number }) => {
            let target = format!("/v1/silences/{number}");
            alertd.call(Method::DELETE, &target, None::<&()>, show::silence_ended).await
        }
        Some(SilenceCommand::Extend { number, duration, until }) => {
            let body = ctl::ExtendSilence {
                duration_s: duration.map_or(0, |span| span.0.as_secs()),
                ends_at: until.map(|until| until.moment(view.now, &view.zone)),
            };
            let target = format!("/v1/silences/{number}/extend");
            alertd.post(&target, &body, |extended| show::silenced(extended, false, view)).await
        }
        None => {
            let body = ctl::NewSilence {
                matchers: silence.matchers,
                duration_s: silence.duration.map_or(0, |span| span.0.as_secs()),
                comment: silence.comment.unwrap_or_default(),
                dry_run: silence.preview,
                starts_at: silence.from.map(|from| from.moment(view.now, &view.zone)),
                ends_at: silence.until.map(|until| until.moment(view.now, &view.zone)),
                period: silence.during,
                broad: silence.broad,
            };
            let dry_run = body.dry_run;
            alertd.post("/v1/silences", &body, |made| show::silenced(made, dry_run, view)).await
        }
    }
}

async fn test_notify(mut alertd: Alertd<'_>, receiver: String, view: &View) -> Result<Answer, Failure> {
    alertd.client = alertd.client.patient(TEST_DEADLINE);
    let mut accepted = false;
    let shown = |result: &TestResult| {
        accepted = matches!(&*result.notification.state, "accepted" | "delivered");
        show::tested(&result.notification, view)
    };
    let mut answer = alertd.post("/v1/test-notify", &ctl::TestNotify { receiver }, shown).await?;
    if !accepted {
        answer.exit = Exit::Refused;
    }
    Ok(answer)
}

/// The alertd to ask.
struct Alertd<'a> {
    client: Client,
    way: &'a Address,
    json: bool,
}

impl Alertd<'_> {
    async fn get<T: Serialize + DeserializeOwned>(
        &self,
        target: &str,
        show: impl FnOnce(&T) -> String,
    ) -> Result<Answer, Failure> {
        self.call(Method::GET, target, None::<&()>, show).await
    }

    async fn post<T: Serialize + DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        show: impl FnOnce(&T) -> String,
    ) -> Result<Answer, Failure> {
        self.call(Method::POST, target, Some(body), show).await
    }

    /// For requests whose response is not shown itself.
    async fn read<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        self.fetch(Method::GET, target, None::<&()>).await
    }

    async fn ask<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.fetch(Method::POST, target, Some(body)).await
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        self.client.call(method, target, body).await.map_err(|error| failure(&error, self.way))
    }

    async fn call<T: Serialize + DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<Answer, Failure> {
        let answer: T = self.fetch(method, target, body).await?;
        let shown = show(&answer);
        let text = if self.json { pretty(&answer) } else { shown };
        Ok(Answer { text, exit: Exit::Done })
    }
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value)
        .map_or_else(|error| format!("{{\"error\": \"{error}\"}}\n"), |text| text + "\n")
}

/// Adds advice to a failed request.
fn failure(error: &CallError, way: &Address) -> Failure {
    let (exit, words) = match (error, way) {
        (CallError::Refused { message, .. }, _) => (Exit::Refused, message.clone()),
        (CallError::NoAnswer { .. } | CallError::Unreachable { .. }, Address::Url { .. }) => {
            (Exit::Unreachable, error.to_string())
        }
        (CallError::NoAnswer { .. }, Address::Socket(_)) => {
            (Exit::Unreachable, format!("{error}; see `journalctl -u alertd`"))
        }
        (CallError::Unreachable { source, .. }, Address::Socket(socket)) => (
            Exit::Unreachable,
            match (source.kind(), socket.display()) {
                (io::ErrorKind::PermissionDenied, path) => format!(
                    "permission denied: {path}; join the group {0:?} (`sudo adduser $USER {0}`) and log in again, or use sudo",
                    group_of(socket)
                ),
                (io::ErrorKind::NotFound, path) => format!(
                    "no socket at {path}: alertd is not running (see `systemctl status alertd`), or uses another socket (set --socket or ALERTD_SOCKET)"
                ),
                (io::ErrorKind::ConnectionRefused, path) => {
                    format!(
                        "connection refused: {path}; alertd is not running (see `systemctl status alertd`)"
                    )
                }
                (_, path) => format!("cannot reach {path}: {source}"),
            },
        ),
    };
    Failure { words, exit }
}

/// The group that may use the socket; the package's group if that cannot be read.
fn group_of(socket: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata(socket).map(|found| found.gid()).ok().filter(|&gid| gid != 0);
    gid.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten())
        .map_or_else(|| "dogwatch".into(), |group| group.name)
}

fn paint() -> Paint {
    let wanted = io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb");
    if wanted { Paint::Colours } else { Paint::Plain }
}

#[expect(clippy::disallowed_methods, reason = "the only place in alertctl that reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let words = |kind: io::ErrorKind| {
            let error = CallError::Unreachable { path: "/x".into(), source: io::Error::from(kind) };
            failure(&error, &Address::Socket("/nonexistent/alertd.sock".into()))
        };
        let missing = words(io::ErrorKind::NotFound);
        assert!(missing.words.contains("systemctl status alertd") && missing.words.contains("--socket"));
        assert_eq!(missing.exit, Exit::Unreachable);
        let forbidden = words(io::ErrorKind::PermissionDenied).words;
        assert!(forbidden.contains("join the group \"dogwatch\""), "{forbidden}");
        let refused = CallError::Refused { status: 404, retry_after: None, message: "no incident 5".into() };
        let refused = failure(&refused, &Address::Socket("/x".into()));
        assert_eq!((refused.words.as_str(), refused.exit), ("no incident 5", Exit::Refused));
    }
}
