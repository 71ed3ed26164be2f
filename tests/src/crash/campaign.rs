//! The campaign: hosts fail and recover at a fixed rate, notifications go out by webhook and email,
//! and alertd is killed at random times.
//!
//! Each host waits until its change was told before it makes the next one; so a change that nobody
//! is told of stops its host. While alertd is being killed it may be late; a change that is not
//! told although alertd was left in peace is lost. What comes twice has to come under the same id
//! with the same words.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use dogwatch_wire::{State, ctl::Status};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    heard::Heard,
    victim::{Agent, Alertd, LOST_AFTER, kind_of},
};
use crate::{bench::now, mail_server::MailServer};

#[derive(Debug, Clone)]
pub struct Plan {
    pub kills: u32,
    pub hosts: u32,
    /// Changes of all hosts together in a second.
    pub rate: u32,
    /// The longest life between two kills, ms; the shortest is 10.
    pub life_ms: u64,
    pub seed: u64,
    /// Notify about half of the hosts by email.
    pub mail: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { kills: 1_000, hosts: 400, rate: 200, life_ms: 1_500, seed: 1, mail: true }
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub kills: u32,
    pub seconds: f64,
    /// Changes that were notified.
    pub changes: usize,
    pub changes_per_second: f64,
    /// Arrived, repeats included.
    pub by_webhook: usize,
    pub by_mail: usize,
    /// Came again under their ids with the same words.
    pub repeated: usize,
    /// The longest time from a change to its notification, s.
    pub longest_s: f64,
    /// Changes without a notification although alertd was not killed for [`LOST_AFTER`].
    pub lost: Vec<String>,
    /// One change under two ids, or one id with two texts.
    pub told_twice: Vec<String>,
}

impl Report {
    pub fn kept(&self) -> bool {
        self.lost.is_empty() && self.told_twice.is_empty()
    }
}

/// # Errors
/// If it cannot run, or alertd does not come to rest.
pub fn run(plan: &Plan, progress: &dyn Fn(&str)) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run_here(plan, progress))
}

async fn run_here(plan: &Plan, progress: &dyn Fn(&str)) -> Result<Report> {
    let (hooks, mails) = (Heard::default(), Heard::default());
    let folder = tempfile::tempdir()?;
    let server = if plan.mail { MailServer::aiosmtpd(folder.path()) } else { None };
    if let Some((server, _)) = &server {
        mails.watch(server.maildir());
    }
    let mail_port = server.as_ref().map(|(server, _)| server.port);
    let mut alertd = Alertd::new(hooks.listen()?, mail_port, None)?;
    alertd.start(None);

    let (stop, stopped) = watch::channel(false);
    let changes = Arc::new(Semaphore::new(0));
    let mut hosts = JoinSet::new();
    for number in 0..plan.hosts {
        let by_mail = mail_port.is_some() && number % 2 == 1;
        let (name, heard) = if by_mail { ("post", mails.clone()) } else { ("web", hooks.clone()) };
        let agent = Agent::new(&format!("{name}{number}"), alertd.client());
        hosts.spawn(live(agent, heard, Arc::clone(&changes), stopped.clone()));
    }
    let pace = tokio::spawn(hand_out(Arc::clone(&changes), plan.rate, stopped));

    let start = now();
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let (mut told, mut longest, mut lost) = (0, Duration::ZERO, Vec::new());
    for kill in 1..=plan.kills {
        // From before it listens to well under way.
        sleep(Duration::from_millis(random.u64(10..plan.life_ms.max(11)))).await;
        tokio::task::block_in_place(|| {
            alertd.kill();
            alertd.start(None);
        });
        if kill % 50 == 0 {
            let heard = hooks.arrived() + mails.arrived();
            progress(&format!("{kill} kills in {} s, {heard} notifications", start.elapsed().as_secs()));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    stop.send(true)?;
    // Hosts that wait for permission may change now.
    changes.add_permits(2 * plan.hosts as usize);
    pace.await?;
    while let Some(host) = hosts.join_next().await {
        match host? {
            Ok(life) => {
                told += life.changes;
                longest = longest.max(life.longest);
            }
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    if lost.is_empty() {
        nothing_is_left(&alertd).await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of changes")]
    let changes_per_second = told as f64 / seconds;
    Ok(Report {
        kills: plan.kills,
        seconds,
        changes: told,
        changes_per_second,
        by_webhook: hooks.arrived(),
        by_mail: mails.arrived(),
        repeated: hooks.repeated() + mails.repeated(),
        longest_s: longest.as_secs_f64(),
        lost,
        told_twice: [hooks.faults(), mails.faults()].concat(),
    })
}

/// One host's story.
#[derive(Default)]
struct Life {
    changes: usize,
    longest: Duration,
}

/// Fails and recovers whenever it may, until stopped; ends in OK.
///
/// # Errors
/// If a change was not notified within [`LOST_AFTER`] of the stop.
async fn live(
    mut agent: Agent,
    heard: Heard,
    changes: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) -> Result<Life> {
    let mut life = Life::default();
    for episode in 1.. {
        for state in [State::Critical, State::Ok] {
            changes.acquire().await?.forget();
            if state == State::Critical && *stopped.borrow() {
                return Ok(life);
            }
            let start = now();
            let lost = format!("{} {episode} of {}", kind_of(state), agent.host);
            tokio::select! {
                () = agent.change(state, &heard, episode) => {}
                () = peace(stopped.clone()) => bail!("{lost}"),
            }
            life.changes += 1;
            life.longest = life.longest.max(start.elapsed());
        }
    }
    Ok(life)
}

/// Ends [`LOST_AFTER`] after the last kill.
async fn peace(mut stopped: watch::Receiver<bool>) {
    // The sender exists as long as the hosts.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    sleep(LOST_AFTER).await;
}

const FAULTS_SHOWN: usize = 20;

/// `rate` changes a second; what is not used within a second is lost.
async fn hand_out(changes: Arc<Semaphore>, rate: u32, stopped: watch::Receiver<bool>) {
    const TICKS: u32 = 50;
    let mut tick = interval(Duration::from_secs(1) / TICKS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed = 0;
    while !*stopped.borrow() {
        tick.tick().await;
        owed += rate;
        let now = owed / TICKS;
        owed %= TICKS;
        if changes.available_permits() < rate as usize {
            changes.add_permits(now as usize);
        }
    }
}

/// All are well and everybody knows.
async fn nothing_is_left(alertd: &Alertd) -> Result<()> {
    let start = now();
    loop {
        let status = alertd.client().get::<Status>("/v1/status").await;
        let left = match &status {
            Ok(status) => {
                let Status { incidents, outbox, warnings, .. } = status;
                format!("{} incidents, {} queued, warnings {warnings:?}", incidents.len(), outbox.queued)
            }
            Err(error) => error.to_string(),
        };
        if left == "0 incidents, 0 queued, warnings []" {
            return Ok(());
        }
        if start.elapsed() > LOST_AFTER {
            bail!("at the end there are {left}\n{}", alertd.log());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills,
            seconds,
            changes,
            changes_per_second,
            by_webhook,
            by_mail,
            repeated,
            longest_s,
            lost,
            told_twice,
        } = self;
        writeln!(f, "alertd killed (SIGKILL) {kills} times at random in {seconds:.0} s")?;
        writeln!(f, "changes of state, each told    {changes:>8}  ({changes_per_second:.0} a second)")?;
        writeln!(f, "arrived by webhook             {by_webhook:>8}")?;
        writeln!(f, "arrived by mail (SMTP)         {by_mail:>8}")?;
        writeln!(f, "longest until told             {longest_s:>8.1}  s, kills included")?;
        writeln!(f, "repeated, same id, same words  {repeated:>8}")?;
        writeln!(f, "lost                           {:>8}", lost.len())?;
        writeln!(f, "told twice                     {:>8}", told_twice.len())?;
        lost.iter().chain(told_twice).take(FAULTS_SHOWN).try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}
