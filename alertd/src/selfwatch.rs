//! Self-monitoring: asks the main loop for its health and pings the dead man's switch while it is
//! good.
//!
//! The request goes through the loop's queue like any other, so a loop that hangs, is late or
//! cannot keep up sends no ping. This task also checks the free disk space, because the loop must
//! not wait for a disk that hangs.

use std::{path::PathBuf, time::Duration};

use dogwatch_alertd_core::rules::health::{Disk, Outside, PingState, stops_ping};
use dogwatch_wire::ctl::Health;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{clock, engine::Input, notify::DeadMan};

/// A loop that takes longer to answer is unhealthy.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const PING_DEADLINE: Duration = Duration::from_secs(10);
const DISK_INTERVAL: Duration = Duration::from_secs(30);
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// Starts the tasks; they end when the receiver is dropped.
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
    // The space that ordinary users may use, as `df` shows it.
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

/// Up to 10 % less than `every`, never more: several alertds do not ping at once, and no ping is
/// late.
fn pause(every: Duration, random: f64) -> Duration {
    every.mul_f64(0.1f64.mul_add(-random, 1.0))
}

/// Returns `None` if alertd has ended.
async fn ask(inputs: &mpsc::Sender<Input>) -> Option<Result<Health, String>> {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        inputs.send(Input::Health(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(ANSWER_PATIENCE, exchange).await {
        Ok(Some(health)) => Some(Ok(health)),
        Ok(None) => None,
        Err(_) => Some(Err(format!("the main loop has not answered for {ANSWER_PATIENCE:?}"))),
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
            tracing::error!(why, "stopped pinging the dead man's switch at {place}");
        }
        (Some(_), None) => tracing::warn!("pinging the dead man's switch at {place} again"),
        _ => {}
    }
    match (&before.error, &after.error) {
        (None, Some(error)) => tracing::error!(error, "cannot ping the dead man's switch"),
        (Some(_), None) if after.stopped.is_none() => {
            tracing::warn!("the dead man's switch accepts pings again");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_never_late_and_at_most_ten_percent_early() {
        let minute = Duration::from_mins(1);
        assert_eq!((pause(minute, 0.0), pause(minute, 1.0)), (minute, Duration::from_secs(54)));
    }

    #[test]
    fn a_folder_has_a_size_and_a_missing_one_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(look(folder.path()).is_some_and(|disk| disk.size >= disk.free && disk.size > 0));
        assert_eq!(look(&folder.path().join("none")), None);
    }
}
