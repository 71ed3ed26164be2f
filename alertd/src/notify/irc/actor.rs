//! The task that owns the connection: it connects, reads, writes, and reconnects. [`Bot`] makes all
//! decisions.

use std::{sync::Arc, time::Duration};

use dogwatch_alertd_core::rules::text;
use dogwatch_wire::ctl;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Config,
    bot::{Bot, Event, Identity},
    commands::{self, Command},
    line,
};
use crate::{clock, engine::Input, notify::tls};

/// A notification to send, and the channel for its outcome.
pub(super) struct Job {
    pub(super) texts: Vec<String>,
    pub(super) done: oneshot::Sender<Result<(), String>>,
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const QUIT_PATIENCE: Duration = Duration::from_secs(1);
const ENGINE_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between attempts. It doubles, with jitter, so that bots that lost a server together do not
/// all reconnect at once.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_mins(2);
/// Bytes in a line from the server: 512, plus 8,191 for tags (IRCv3 message-tags), rounded up.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Concurrent commands; more are ignored.
const ASKING_MAX: usize = 4;

/// Runs until the job channel is closed.
pub(super) async fn run(
    name: String,
    config: Arc<Config>,
    mut jobs: mpsc::Receiver<Job>,
    engine: mpsc::Sender<Input>,
) {
    let mut failures = 0;
    loop {
        let reason = match connect(&config).await {
            Err(reason) => reason,
            Ok((stream, identity)) => {
                let mut session =
                    Session { config: &config, engine: &engine, jobs: &mut jobs, was_ready: false };
                let ended = session.run(stream, identity).await;
                if session.was_ready {
                    failures = 0;
                }
                match ended {
                    Some(reason) => reason,
                    None => return,
                }
            }
        };
        let most = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        failures += 1;
        let pause = most / 2 + most.mul_f64(fastrand::f64() / 2.0);
        tracing::warn!(receiver = name, "irc: {reason}; reconnecting in {}s", pause.as_secs());
        let until_then = tokio::time::sleep(pause);
        tokio::pin!(until_then);
        loop {
            tokio::select! {
                () = &mut until_then => break,
                job = jobs.recv() => match job {
                    Some(job) => drop(job.done.send(Err(reason.clone()))),
                    None => return,
                },
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(config: &Config) -> Result<(Box<dyn Stream>, Identity), String> {
    let identity = config.identity()?;
    let to = format!("{}:{}", config.server, config.port);
    let connecting = async {
        let stream = TcpStream::connect((config.server.as_str(), config.port))
            .await
            .map_err(|error| format!("{to}: {error}"))?;
        if !config.tls {
            return Ok(Box::new(stream) as Box<dyn Stream>);
        }
        let tls = tls::config(config.ca_file.as_deref()).await?;
        let name =
            config.server.clone().try_into().map_err(|_| format!("{} is not a host name", config.server))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| format!("{to}: {error}"))?) as Box<dyn Stream>)
    };
    let stream = timeout(CONNECT_PATIENCE, connecting).await;
    let stream =
        stream.unwrap_or_else(|_| Err(format!("{to} did not answer within {CONNECT_PATIENCE:?}")))?;
    Ok((stream, identity))
}

struct Session<'a> {
    config: &'a Config,
    engine: &'a mpsc::Sender<Input>,
    jobs: &'a mut mpsc::Receiver<Job>,
    was_ready: bool,
}

impl Session<'_> {
    /// Runs one connection until it ends; returns the reason, or `None` if the bot is no longer
    /// needed.
    async fn run(&mut self, stream: Box<dyn Stream>, identity: Identity) -> Option<String> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut bot = Bot::on_connected(identity, clock::instant());
        let (answers, mut answered) = mpsc::channel::<Vec<String>>(ASKING_MAX);
        let asking = Arc::new(tokio::sync::Semaphore::new(ASKING_MAX));
        let mut pending: Vec<(u64, oneshot::Sender<Result<(), String>>)> = Vec::new();
        let (mut next_id, mut buffer) = (0, Vec::new());
        let mut chunk = [0; 4096];
        loop {
            while let Some(line) = bot.poll_line(clock::instant()) {
                let written = timeout(WRITE_PATIENCE, async {
                    writer.write_all(&line).await?;
                    writer.flush().await
                });
                match written.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => bot.on_lost(format!("cannot write: {error}")),
                    Err(_) => bot.on_lost("the server does not accept data"),
                }
            }
            while let Some(event) = bot.poll_event() {
                match event {
                    Event::Ready => self.was_ready = true,
                    Event::Taken(id) => settle(&mut pending, id, Ok(())),
                    Event::Refused(id, reason) => settle(&mut pending, id, Err(reason)),
                    Event::Lost(reason) => return Some(reason),
                    Event::Command { nick, account, text } => {
                        let Some(command) = Command::parse(&text) else { continue };
                        let who = self.config.user(&nick, account.as_deref(), bot.knows_accounts());
                        let Ok(permit) = Arc::clone(&asking).try_acquire_owned() else { continue };
                        let (engine, answers) = (self.engine.clone(), answers.clone());
                        let from = origin(&nick, account.as_deref(), &self.config.server);
                        tokio::spawn(async move {
                            let said = obey(command, who, from, &engine).await;
                            let said = said.into_iter().map(|line| format!("{nick}: {line}")).collect();
                            let _ = answers.send(said).await;
                            drop(permit);
                        });
                    }
                }
            }
            tokio::select! {
                read = reader.read(&mut chunk) => match read {
                    Ok(0) => bot.on_lost("the server closed the connection"),
                    Err(error) => bot.on_lost(format!("cannot read: {error}")),
                    Ok(n) => {
                        buffer.extend_from_slice(&chunk[..n]);
                        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                            let line: Vec<u8> = buffer.drain(..=end).collect();
                            bot.on_line(&line, clock::instant());
                        }
                        if buffer.len() > LINE_BYTES_MAX {
                            bot.on_lost("the server sent a line that is too long");
                        }
                    }
                },
                job = self.jobs.recv(), if bot.has_room() => {
                    let Some(job) = job else {
                        let quit = line::line(&["QUIT"], Some("no longer needed"));
                        let _ = timeout(QUIT_PATIENCE, writer.write_all(&quit)).await;
                        return None;
                    };
                    next_id += 1;
                    pending.push((next_id, job.done));
                    bot.on_notification(next_id, &job.texts);
                }
                Some(texts) = answered.recv() => bot.on_answer(&texts),
                () = tokio::time::sleep(bot.next_wakeup(clock::instant())) => {}
            }
        }
    }
}

fn settle(
    pending: &mut Vec<(u64, oneshot::Sender<Result<(), String>>)>,
    id: u64,
    outcome: Result<(), String>,
) {
    if let Some(at) = pending.iter().position(|(known, _)| *known == id) {
        // The sender may have stopped waiting.
        let _ = pending.swap_remove(at).1.send(outcome);
    }
}

/// Carries out a command; returns the answer.
async fn obey(
    command: Result<Command, String>,
    who: Result<String, String>,
    from: String,
    engine: &mpsc::Sender<Input>,
) -> Vec<String> {
    let command = match command {
        Ok(command) => command,
        Err(words) => return vec![words],
    };
    let author = match who {
        Ok(user) => format!("{user} (irc)"),
        Err(words) if command.changes() => return vec![words],
        Err(_) => String::new(),
    };
    match command {
        Command::Help => commands::help(),
        Command::Status => match ask(engine, Input::Status).await {
            Ok(status) => commands::status(&status),
            Err(words) => vec![words],
        },
        Command::OnCall => match ask(engine, |answer| Input::OnCall(None, None, answer)).await {
            Ok(now) => commands::on_call(&now),
            Err(words) => vec![words],
        },
        Command::Ack { number, comment } => {
            let ack = ctl::Ack { comment, ..ctl::Ack::default() };
            let outcome =
                ask(engine, |answer| Input::From(from, Box::new(Input::Ack(number, ack, author, answer))))
                    .await;
            vec![said(
                outcome,
                &format!("#{number} acknowledged, escalation stopped; to undo: !unack {number}"),
            )]
        }
        Command::Unack { number, comment } => {
            let unack = ctl::Unack { comment };
            let outcome = ask(engine, |answer| {
                Input::From(from, Box::new(Input::Unack(number, unack, author, answer)))
            })
            .await;
            vec![said(
                outcome,
                &format!("#{number} is no longer acknowledged; escalation starts again from the first step"),
            )]
        }
    }
}

/// For the audit log: the sender as reported by the server.
fn origin(nick: &str, account: Option<&str>, server: &str) -> String {
    let account = account.map(|account| format!(", account {account}")).unwrap_or_default();
    text::line(&format!("nick {nick}{account} at {server}"), ORIGIN_CHARS_MAX)
}

const ORIGIN_CHARS_MAX: usize = 120;

fn said<T>(outcome: Result<Result<T, dogwatch_alertd_core::Refused>, String>, good: &str) -> String {
    match outcome {
        Ok(Ok(_)) => good.to_owned(),
        Ok(Err(refused)) => refused.to_string().replace("`alertctl status`", "!status"),
        Err(words) => words,
    }
}

async fn ask<T>(
    engine: &mpsc::Sender<Input>,
    input: impl FnOnce(oneshot::Sender<T>) -> Input,
) -> Result<T, String> {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        engine.send(input(answer)).await.ok()?;
        answered.await.ok()
    };
    let answered = timeout(ENGINE_PATIENCE, exchange).await.ok().flatten();
    answered.ok_or_else(|| "alertd is not responding; try again or use alertctl".to_owned())
}
