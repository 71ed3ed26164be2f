//! Asks alertd's own loop how it is, and tells the dead-man: a ping while all is well, none when it is not.
//!
//! The question goes through the loop like everybody's. So a loop that hangs, is late or cannot keep up sends no ping, without
//! anybody having to notice; and this task alone keeps nothing alive. It also looks at the disk, which may hang where the
//! loop must not.

use std::{path::PathBuf, time::Duration};

use dogwatch_alertd_core::rules::health::{Disk, Outside, PingState, stops_ping};
use dogwatch_wire::ctl::Health;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{clock, engine::Input, notify::DeadMan};

/// A loop that has not answered by then is not well.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const PING_DEADLINE: Duration = Duration::from_secs(10);
const DISK_INTERVAL: Duration = Duration::from_secs(30);
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Starts it; ends when nobody wants to know any more.
pub fn start(
    state_dir: PathBuf,
    inputs: mpsc::Sender<Input>,
    dead_man: watch::Receiver<Option<DeadMan>>,
) -> watch::Receiver<Outside> {
    let (say, outside) = watch::channel(Outside::default());
    tokio::spawn(watch_disk(state_dir, say.clone()));
    tokio::spawn(ping(inputs, dead_man, say));
    outside
}

async fn watch_disk(state_dir: PathBuf, say: watch::Sender<Outside>) {
    while !say.is_closed() {
        let path = state_dir.clone();
        let looking = tokio::task::spawn_blocking(move || look(&path));
        let disk = match tokio::time::timeout(DISK_PATIENCE, looking).await {
            Ok(Ok(disk)) => disk,
            Ok(Err(_)) | Err(_) => None,
        };
        say.send_modify(|outside| outside.disk = disk);
        tokio::time::sleep(DISK_INTERVAL).await;
    }
}

fn look(path: &std::path::Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    // What an ordinary user may use, as `df` shows it.
    Some(Disk { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
}

async fn ping(
    inputs: mpsc::Sender<Input>,
    mut config: watch::Receiver<Option<DeadMan>>,
    say: watch::Sender<Outside>,
) {
    let mut state = PingState::default();
    loop {
        let dead_man = config.borrow_and_update().clone();
        let Some(dead_man) = dead_man else {
            say.send_modify(|outside| outside.ping = None);
            if config.changed().await.is_err() {
                return;
            }
            state = PingState::default();
            continue;
        };
        let Some(answer) = ask(&inputs).await else { return };
        let next = beat(&dead_man, answer, &state).await;
        tell_of_change(&dead_man, &state, &next);
        state = next;
        say.send_modify(|outside| outside.ping = Some(state.clone()));
        tokio::select! {
            () = tokio::time::sleep(pause(dead_man.every, fastrand::f64())) => {}
            changed = config.changed() => if changed.is_err() { return },
        }
    }
}

/// A little less than asked for, never more: not all alertds of a site at once, and none later than it promised.
fn pause(every: Duration, random: f64) -> Duration {
    every.mul_f64(0.1f64.mul_add(-random, 1.0))
}

/// `None`: alertd has ended.
async fn ask(inputs: &mpsc::Sender<Input>) -> Option<Result<Health, String>> {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        inputs.send(Input::Health(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(ANSWER_PATIENCE, exchange).await {
        Ok(Some(health)) => Some(Ok(health)),
        Ok(None) => None,
        Err(_) => Some(Err(format!("the loop has not answered for {ANSWER_PATIENCE:?}"))),
    }
}

async fn beat(dead_man: &DeadMan, answer: Result<Health, String>, before: &PingState) -> PingState {
    let why_not = match &answer {
        Ok(health) => stops_ping(health),
        Err(words) => Some(words.clone()),
    };
    let last_good_at = before.last_good_at;
    if why_not.is_some() {
        return PingState { last_good_at, error: None, stopped: why_not };
    }
    match dead_man.ping(PING_DEADLINE.min(dead_man.every)).await {
        Ok(()) => PingState { last_good_at: Some(now()), error: None, stopped: None },
        Err(error) => PingState { last_good_at, error: Some(error), stopped: None },
    }
}

fn now() -> Timestamp {
    clock::wall()
}

fn tell_of_change(dead_man: &DeadMan, before: &PingState, after: &PingState) {
    let place = dead_man.place();
    match (&before.stopped, &after.stopped) {
        (None, Some(why)) => {
            tracing::error!(why, "no ping goes to the dead-man at {place} until this is over");
        }
        (Some(_), None) => tracing::warn!("the dead-man at {place} is pinged again"),
        _ => {}
    }
    match (&before.error, &after.error) {
        (None, Some(error)) => tracing::error!(error, "the dead-man's ping fails"),
        (Some(_), None) if after.stopped.is_none() => tracing::warn!("the dead-man's ping arrives again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_never_comes_later_than_promised_nor_much_sooner() {
        let minute = Duration::from_mins(1);
        assert_eq!((pause(minute, 0.0), pause(minute, 1.0)), (minute, Duration::from_secs(54)));
    }

    #[test]
    fn a_folder_has_a_size_and_what_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(look(folder.path()).is_some_and(|disk| disk.size >= disk.free && disk.size > 0));
        assert_eq!(look(&folder.path().join("none")), None);
    }
}
