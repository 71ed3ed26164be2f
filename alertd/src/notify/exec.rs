//! `[receiver.NAME.exec]`: runs a program.
//!
//! ```toml
//! [receiver.sms.exec]
//! command = ["/usr/local/bin/send-sms", "+4915100000000"]
//! ```
//!
//! No shell is used. The program gets the webhook's JSON on stdin ([`super::webhook`]) and an
//! environment of `PATH`, `LANG`, `DOGWATCH_ID`, `DOGWATCH_INCIDENT`, `DOGWATCH_KIND`,
//! `DOGWATCH_STATE` and `DOGWATCH_TITLE`. It runs in `/` and in its own process group.
//!
//! | exit | meaning |
//! | --- | --- |
//! | 0 | delivered |
//! | 75 (`EX_TEMPFAIL`, sysexits.h) | try again |
//! | killed by a signal, deadline passed | try again |
//! | any other | rejected; the beginning of its output is the reason |
//!
//! At the deadline the whole group gets TERM, and two seconds later KILL. The id is the same on
//! every retry, so that the program can skip ids that it has already sent.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Notification},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{sender::Sender, webhook, words};

/// `[receiver.NAME.exec]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Program (absolute path) and its arguments.
    pub command: Spanned<Vec<String>>,
}

#[derive(Debug, Clone)]
pub struct Exec {
    program: PathBuf,
    arguments: Vec<String>,
}

const EX_TEMPFAIL: i32 = 75;
/// From TERM to KILL.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for the end of the output after the program exits: a grandchild may keep it
/// open.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);
/// Bytes of output kept for the error message.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Exec> {
        let at = self.command.span();
        let mut words = self.command.into_inner().into_iter();
        let program = words.next().map(PathBuf::from).filter(|program| program.is_absolute());
        let Some(program) = program else {
            problems.add(
                source,
                at,
                "the command must start with an absolute path, for example [\"/usr/local/bin/send-sms\"]",
            );
            return None;
        };
        Some(Exec { program, arguments: words.collect() })
    }
}

impl Exec {
    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let body = webhook::body(told, sender)?;
        let mut child = self.command(told, sender).spawn().map_err(|error| self.not_started(&error))?;
        let group = Group::of(&child);
        let output = Output::default();
        let reading = [output.read(child.stdout.take()), output.read(child.stderr.take())];
        let stdin = child.stdin.take();
        let writing = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // Fails if the program does not read its input, which is allowed.
                let _ = stdin.write_all(&body).await;
            }
        });
        let patience = deadline.saturating_sub(TERM_PATIENCE).max(deadline / 2);
        let ended = group.wait(&mut child, patience).await;
        writing.abort();
        for task in reading {
            let abort = task.abort_handle();
            if timeout(DRAIN_PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
        self.verdict(ended, &output.text())
    }

    fn command(&self, told: &Notification, sender: &Sender) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("DOGWATCH_ID", text::line(&told.id, 200))
            .env("DOGWATCH_INCIDENT", told.incident.to_string())
            .env("DOGWATCH_KIND", format!("{:?}", told.kind).to_lowercase())
            .env("DOGWATCH_STATE", words::worst(told).name())
            .env("DOGWATCH_TITLE", words::title(told, &sender.zone))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn not_started(&self, error: &io::Error) -> DeliveryError {
        let reason = format!("cannot run {}: {error}", self.program.display());
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => DeliveryError::Rejected { reason },
            _ => DeliveryError::Retry { after: None, reason },
        }
    }

    fn verdict(&self, ended: io::Result<Ended>, said: &str) -> Result<Accepted, DeliveryError> {
        let program = self.program.display();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let retry = |reason: String| Err(DeliveryError::Retry { after: None, reason });
        match ended {
            Ok(Ended::Itself(status)) if status.success() => Ok(Accepted::delivered()),
            Ok(Ended::Itself(status)) => match (status.code(), status.signal()) {
                (Some(EX_TEMPFAIL), _) => retry(format!("{program} exited with 75 (try again){said}")),
                (Some(code), _) => {
                    Err(DeliveryError::Rejected { reason: format!("{program} exited with {code}{said}") })
                }
                (None, signal) => {
                    retry(format!("{program} was killed by signal {}{said}", signal.unwrap_or(0)))
                }
            },
            Ok(Ended::Killed(patience)) => {
                retry(format!("{program} was still running after {patience:?} and was killed{said}"))
            }
            Err(error) => retry(format!("cannot wait for {program}: {error}")),
        }
    }
}

enum Ended {
    Itself(ExitStatus),
    Killed(Duration),
}

/// The program's process group. It is killed if this is dropped before the program has exited.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    async fn wait(mut self, child: &mut Child, patience: Duration) -> io::Result<Ended> {
        let ended = if let Ok(status) = timeout(patience, child.wait()).await {
            status.map(Ended::Itself)
        } else {
            self.signal(Signal::TERM);
            // Not reaped before KILL, so the pid still belongs to this group.
            if timeout(TERM_PATIENCE, self.leader_gone()).await.is_err() {
                tracing::debug!("the program of an exec receiver ignores TERM");
            }
            self.signal(Signal::KILL);
            child.wait().await.map(|_| Ended::Killed(patience))
        };
        // From here on, the pid may be reused.
        self.0 = None;
        ended
    }

    /// Waits until the leader is a zombie, without reaping it.
    async fn leader_gone(&self) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(pid) = self.0 else { return };
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if !matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The beginning of a program's output. The rest is read and dropped, so that it never blocks.
#[derive(Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn read(&self, pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> tokio::task::JoinHandle<()> {
        let kept = Arc::clone(&self.0);
        tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0; 1024];
            while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(n);
                kept.extend_from_slice(&chunk[..room]);
            }
        })
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text::line(&String::from_utf8_lossy(&kept), 300)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{super::words::tests::problem, *};

    #[tokio::test]
    async fn the_program_gets_json_on_stdin_and_a_clean_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let script = format!("cat > {}; env > {}", file("stdin").display(), file("env").display());
        run(&script, DEADLINE).await.unwrap();
        let stdin = std::fs::read(file("stdin")).unwrap();
        assert_eq!(stdin, webhook::body(&problem(), &sender()).unwrap());
        let env = std::fs::read_to_string(file("env")).unwrap();
        assert!(env.contains("DOGWATCH_TITLE=[#4711] CRITICAL web1/disk: /var 96% used\n"), "{env}");
        assert!(env.contains("DOGWATCH_KIND=problem\n") && !env.contains("CARGO"), "{env}");
    }

    #[tokio::test]
    async fn the_exit_status_decides_between_delivered_retry_and_rejected() {
        run("exit 0", DEADLINE).await.unwrap();
        let retry =
            async |script| matches!(run(script, DEADLINE).await.unwrap_err(), DeliveryError::Retry { .. });
        assert!(retry("exit 75").await);
        assert!(retry("kill -9 $$").await);
        assert!(!retry("exit 1").await);
        let error = run("echo 'no credit' >&2; exit 3", DEADLINE).await.unwrap_err();
        assert!(error.to_string().ends_with("exited with 3: no credit"), "{error}");
    }

    #[tokio::test]
    async fn a_program_may_flood_its_output_or_ignore_its_input() {
        run("head -c 3000000 /dev/zero", DEADLINE).await.unwrap();
        run("exec <&-; exit 0", DEADLINE).await.unwrap();
    }

    #[tokio::test]
    async fn at_the_deadline_the_whole_group_is_killed_even_if_it_ignores_term() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("trap '' TERM; sleep 600 & echo $$ $! > {}; wait; sleep 600", pids.display());
        let error = run(&script, Duration::from_millis(400)).await.unwrap_err();
        assert!(error.to_string().contains("still running after"), "{error}");
        for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
            // On a busy machine, dying and being reaped by init take a moment. Without the signal
            // it would sleep for ten minutes.
            let dead = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            };
            for _ in 0..1_000 {
                if dead() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(dead(), "{pid} is still running");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_a_rejection_that_names_it() {
        let exec = Exec { program: "/nonexistent/x".into(), arguments: Vec::new() };
        let error = exec.send(&problem(), &sender(), DEADLINE).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Rejected { reason } if reason.contains("/nonexistent/x")));
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn run(script: &str, deadline: Duration) -> Result<Accepted, DeliveryError> {
        let exec = Exec { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] };
        exec.send(&problem(), &sender(), deadline).await
    }

    fn sender() -> Sender {
        Sender {
            host: "mon1".into(),
            zone: TimeZone::UTC,
            links: None,
            own_words: crate::notify::sender::Rendered::default(),
        }
    }
}
