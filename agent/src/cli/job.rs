//! `dogwatch job NAME --every 1d -- COMMAND`: runs a job of cron or of a timer, and makes its exit,
//! its duration, its last lines and its absence a service, `job NAME`.
//!
//! The job behaves as without the wrapper: it gets the same standard input, its output goes where
//! it would have gone, and the exit code is its own. If the agent does not answer, the job runs
//! anyway.

use std::{
    collections::VecDeque,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    process::{ExitCode, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dogwatch_checks::{Perf, State, output, perfdata};
use dogwatch_daemon::duration::Span;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    signal::unix::{self, SignalKind},
    task::JoinHandle,
    time::timeout,
};

use super::{SocketArgument, complain, fail, time};
use crate::{
    api::{Forget, Start, Submit},
    clock,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the job; its service is "job NAME"
    #[arg(value_parser = name)]
    name: String,
    /// How often the job runs. If it has not run for this time and --grace, it is late
    #[arg(long, value_name = "DURATION", value_parser = time)]
    every: Option<Span>,
    /// How late it may be [default: a tenth of --every, at least 10m]
    #[arg(long, value_name = "DURATION", requires = "every")]
    grace: Option<Span>,
    /// End the job after this time; it has failed then
    #[arg(long, value_name = "DURATION", value_parser = time)]
    timeout: Option<Span>,
    /// WARNING if the job takes longer
    #[arg(long, value_name = "DURATION", value_parser = time)]
    warn: Option<Span>,
    /// Print nothing if the job succeeds, so that cron sends no mail
    #[arg(long)]
    quiet: bool,
    /// The job no longer exists: end its service
    #[arg(long, conflicts_with_all = ["every", "timeout", "warn", "quiet", "command"])]
    forget: bool,
    /// Command and arguments, after --
    #[arg(last = true, required_unless_present = "forget", value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    socket: SocketArgument,
}

/// As the agent accepts it.
fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.trim() == text;
    if is_name && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must have 1 to {NAME_BYTES_MAX} bytes, no control characters, and no spaces at its ends; for example backup"
    ))
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    if arguments.forget {
        let forget = Forget { service: format!("job {}", arguments.name) };
        return match arguments.socket.post("/v1/forget", &forget).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    let ttl_s = ttl(arguments.every, arguments.grace).map(|ttl| ttl.as_secs().max(1));
    let start = clock::since_boot();
    let started = tell_start(&arguments, ttl_s);
    let lines = Arc::new(Lines::new(arguments.quiet));
    let (end, copies) = execute(&arguments, &lines).await;
    let took = clock::since_boot().saturating_sub(start);
    let report = report(&end, took, arguments.warn.map(|span| span.0), &lines.last());
    let failed = !matches!(&end, End::Exit(status) if status.success());
    if failed {
        lines.print_held_back();
    }
    let text = report.text;
    let submit = Submit {
        service: format!("job {}", arguments.name),
        state: report.state.name().to_owned(),
        text: text.chars().take(TEXT_CHARS_MAX).collect(),
        ttl_s,
    };
    // Or the agent might hear of the start after the end.
    let _ = started.await;
    if let Err(error) = arguments.socket.post("/v1/submit", &submit).await {
        complain(format_args!(
            "dogwatch: job {}: could not report the result to the agent: {error}\n",
            arguments.name
        ));
    }
    // What the job has left running still writes to it, and would die of a closed pipe.
    for copy in copies {
        let _ = copy.await;
    }
    match end {
        End::Exit(status) => exit_code(status),
        End::TimedOut => ExitCode::from(124), // as timeout(1)
        End::NotStarted(error) => {
            fail(&format!("cannot run {}: {error}", arguments.command[0]));
            ExitCode::from(127)
        }
    }
}

/// Tells the agent that the job begins, so that the agent notices if this process is killed and
/// cannot report. The job does not wait for that.
fn tell_start(arguments: &Arguments, ttl_s: Option<u64>) -> JoinHandle<()> {
    let start = Start { service: format!("job {}", arguments.name), ttl_s };
    let client = arguments.socket.client();
    tokio::spawn(async move {
        if let Ok(client) = client {
            // If the agent does not answer, the report of the end says so.
            let _ = client.post::<()>("/v1/start", &start).await;
        }
    })
}

/// How the job ended.
enum End {
    Exit(ExitStatus),
    TimedOut,
    NotStarted(std::io::Error),
}

/// Runs the job. Also returns what still copies the output of processes that the job has left
/// running.
async fn execute(arguments: &Arguments, lines: &Arc<Lines>) -> (End, Vec<JoinHandle<()>>) {
    // Before the command runs: a signal that comes then ends the command, and is reported.
    let asked = Stop::listen();
    let spawned = Command::new(&arguments.command[0])
        .args(&arguments.command[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return (End::NotStarted(error), Vec::new()),
    };
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let copies = [
        child.stdout.take().map(|from| tokio::spawn(copy(from, Arc::clone(lines), false))),
        child.stderr.take().map(|from| tokio::spawn(copy(from, Arc::clone(lines), true))),
    ];
    let limit = arguments.timeout.map_or(Duration::MAX, |span| span.0);
    let end = tokio::select! {
        ended = timeout(limit, child.wait()) => match ended {
            Ok(Ok(status)) => End::Exit(status),
            Ok(Err(error)) => End::NotStarted(error),
            Err(_) => End::TimedOut,
        },
        // Whoever ends the wrapper means the job.
        signal = asked.signal() => {
            kill(group, signal);
            match timeout(TERM_GRACE, child.wait()).await {
                Ok(Ok(status)) => End::Exit(status),
                _ => End::TimedOut,
            }
        }
    };
    if matches!(end, End::TimedOut) {
        kill(group, Signal::TERM);
        if timeout(TERM_GRACE, child.wait()).await.is_err() {
            kill(group, Signal::KILL);
            let _ = timeout(TERM_GRACE, child.wait()).await;
        }
    }
    // A grandchild may keep the pipes open; the report does not wait for it.
    let mut open = Vec::new();
    for mut copy in copies.into_iter().flatten() {
        if timeout(OUTPUT_GRACE, &mut copy).await.is_err() {
            open.push(copy);
        }
    }
    (end, open)
}

/// The signals that end the wrapper. They wait here from the moment in which it is made.
struct Stop(Option<(unix::Signal, unix::Signal)>);

impl Stop {
    fn listen() -> Self {
        let term = unix::signal(SignalKind::terminate()).ok();
        Self(term.zip(unix::signal(SignalKind::interrupt()).ok()))
    }

    async fn signal(self) -> Signal {
        let Some((mut term, mut int)) = self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => Signal::TERM,
            _ = int.recv() => Signal::INT,
        }
    }
}

fn kill(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// What the agent hears.
struct Report {
    state: State,
    /// As a plugin prints it.
    text: String,
}

fn report(end: &End, took: Duration, warn: Option<Duration>, last: &[String]) -> Report {
    let after = Span::secs(took.as_secs());
    let (mut state, mut summary) = match end {
        End::Exit(status) if status.success() => (State::Ok, format!("succeeded after {after}")),
        End::Exit(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (State::Critical, format!("failed with exit code {code} after {after}")),
            (None, Some(signal)) => (State::Critical, format!("was ended by signal {signal} after {after}")),
            (None, None) => (State::Critical, format!("failed after {after}")),
        },
        End::TimedOut => (State::Critical, format!("ran into its --timeout; killed after {after}")),
        End::NotStarted(error) => (State::Critical, format!("could not be started: {error}")),
    };
    if let Some(limit) = warn
        && state == State::Ok
        && took > limit
    {
        state = State::Warning;
        summary = format!("{summary}, more than {}", Span::secs(limit.as_secs()));
    }
    if state == State::Critical
        && let Some(line) = last.last()
    {
        summary = format!("{summary}: {line}");
    }
    let perf = Perf::new("duration", took.as_secs_f64(), "s").bounds(0.0, None);
    let detail = last.join("\n").replace('|', "¦");
    let text = format!("{} | {}\n{detail}", summary.replace('|', "¦"), perfdata::print(&[perf]));
    Report { state, text: text.trim_end().to_owned() }
}

fn ttl(every: Option<Span>, grace: Option<Span>) -> Option<Duration> {
    let every = every?.0;
    let grace = grace.map_or_else(|| (every / 10).max(Duration::from_mins(10)), |span| span.0);
    Some(every.saturating_add(grace))
}

fn exit_code(status: ExitStatus) -> ExitCode {
    // As a shell says it: 128 and the number of the signal.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The output on its way, of which the last lines are kept.
struct Lines {
    quiet: bool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    last: VecDeque<String>,
    line: Vec<u8>,
    held_back: Vec<u8>,
}

impl Lines {
    fn new(quiet: bool) -> Self {
        Self { quiet, kept: Mutex::default() }
    }

    fn add(&self, bytes: &[u8], is_error: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.quiet {
            let room = HELD_BACK_MAX.saturating_sub(kept.held_back.len());
            kept.held_back.extend(&bytes[..bytes.len().min(room)]);
        } else if is_error {
            let _ = std::io::stderr().write_all(bytes);
        } else {
            let mut stdout = std::io::stdout();
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        for &byte in bytes {
            if byte == b'\n' {
                kept.end_line();
            } else if kept.line.len() < LINE_MAX {
                kept.line.push(byte);
            }
        }
    }

    fn last(&self) -> Vec<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.end_line();
        kept.last.iter().cloned().collect()
    }

    fn print_held_back(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = std::io::stderr().write_all(&kept.held_back);
    }
}

impl Kept {
    fn end_line(&mut self) {
        let line = output::clean(&String::from_utf8_lossy(&std::mem::take(&mut self.line)));
        if line.trim().is_empty() {
            return;
        }
        if self.last.len() >= LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, lines: Arc<Lines>, is_error: bool) {
    let mut buffer = [0_u8; 8_192];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        lines.add(&buffer[..count], is_error);
    }
}

/// The agent's limit for names of checks.
const NAME_BYTES_MAX: usize = 100;
const LINES_KEPT: usize = 20;
const LINE_MAX: usize = 400;
/// What --quiet keeps to print it if the job fails.
const HELD_BACK_MAX: usize = 1_024 * 1_024;
/// The agent accepts 64 KiB.
const TEXT_CHARS_MAX: usize = 8_000;
const TERM_GRACE: Duration = Duration::from_secs(10);
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn said(end: &End, seconds: u64, last: &[&str]) -> (State, String) {
        let last: Vec<_> = last.iter().map(|&line| line.to_owned()).collect();
        let warn = Some(Duration::from_mins(10));
        let report = report(end, Duration::from_secs(seconds), warn, &last);
        (report.state, report.text)
    }

    #[test]
    fn the_report_says_how_the_job_ended_and_what_it_said_last() {
        let exit = |code: i32| End::Exit(ExitStatus::from_raw(code << 8));
        assert_eq!(
            said(&exit(0), 252, &["done"]),
            (State::Ok, "succeeded after 4m12s | duration=252s;;;0\ndone".to_owned())
        );
        assert_eq!(
            said(&exit(0), 700, &[]),
            (State::Warning, "succeeded after 11m40s, more than 10m | duration=700s;;;0".to_owned())
        );
        let (state, text) = said(&exit(2), 3, &["rsync: a | b", "connection refused"]);
        assert_eq!(state, State::Critical);
        assert_eq!(
            text,
            "failed with exit code 2 after 3s: connection refused | duration=3s;;;0\n\
             rsync: a ¦ b\nconnection refused"
        );
        assert_eq!(
            said(&End::Exit(ExitStatus::from_raw(9)), 3, &[]).1,
            "was ended by signal 9 after 3s | duration=3s;;;0"
        );
    }

    #[test]
    fn a_job_may_be_late_by_a_tenth_and_at_least_ten_minutes() {
        assert_eq!(ttl(None, None), None);
        assert_eq!(ttl(Some(Span::secs(3_600)), None), Some(Duration::from_mins(70)));
        assert_eq!(ttl(Some(Span::secs(86_400)), None), Some(Duration::from_mins(26 * 60 + 24)));
        assert_eq!(ttl(Some(Span::secs(60)), Some(Span::secs(5))), Some(Duration::from_secs(65)));
    }

    #[test]
    fn a_name_is_one_printable_line() {
        for right in ["backup", "backup of /srv", "größe"] {
            assert_eq!(name(right).as_deref(), Ok(right));
        }
        for wrong in ["", " ", "a ", "a\nb", "a\tb", &"x".repeat(101)] {
            assert!(name(wrong).unwrap_err().starts_with("must have 1 to 100 bytes"), "{wrong:?}");
        }
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let lines = Lines::new(true);
        for n in 0..1_000 {
            lines.add(format!("line {n}\n").as_bytes(), false);
        }
        lines.add(&[b'x'; 10_000], true);
        let last = lines.last();
        assert_eq!((last.len(), last[0].as_str()), (LINES_KEPT, "line 981"));
        assert_eq!(last[19].len(), LINE_MAX);
    }
}
