//! The thread that writes the history. A disk that hangs must not stop the loop: what does not fit
//! into the queue is dropped and counted.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tracing::warn;

use super::{Earlier, Key, Sample, file::History};

/// Sends samples to the thread.
#[derive(Debug)]
pub struct Writer {
    samples: Option<SyncSender<Vec<Sample>>>,
    dropped: Arc<AtomicU64>,
    /// What the values were a week ago; renewed by the thread each hour.
    week_ago: Arc<Mutex<Earlier>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread, which opens the file in `dir`. `now` is in seconds since 1970.
    pub fn start(dir: &Path, now: i64) -> io::Result<Self> {
        let (samples, inbox) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let week_ago = Arc::new(Mutex::new(Earlier::new()));
        let (dir, counter, earlier) = (dir.to_owned(), Arc::clone(&dropped), Arc::clone(&week_ago));
        let thread = thread::Builder::new()
            .name("history".into())
            .stack_size(STACK_BYTES)
            .spawn(move || write(&dir, now, &inbox, &counter, &earlier))?;
        Ok(Self { samples: Some(samples), dropped, week_ago, thread: Some(thread) })
    }

    /// Records samples, or drops them if the disk cannot keep up.
    pub fn record(&self, samples: Vec<Sample>) {
        let count = u64::try_from(samples.len()).unwrap_or(0);
        let full = self.samples.as_ref().is_none_or(|queue| queue.try_send(samples).is_err());
        if full {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Values that were not recorded: the disk was too slow or failed, or there were too many
    /// series.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The average of a value in the same hour a week ago, if it is known.
    pub fn a_week_ago(&self, key: &Key) -> Option<f32> {
        self.week_ago.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Writes the rows in progress and ends the thread. May hang with the disk.
    pub fn stop(mut self) {
        self.samples = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens the history. While that fails, samples are dropped, and every [`RETRY_S`] it is tried
/// again. `None` when the agent stops.
fn open(dir: &Path, now: i64, inbox: &Receiver<Vec<Sample>>, dropped: &AtomicU64) -> Option<History> {
    let mut tried = now;
    let mut opened = History::open(dir, now);
    if let Err(error) = &opened {
        warn!("cannot keep a history in {}: {error}; trying again", dir.display());
    }
    loop {
        if let Ok(history) = opened {
            let damage = history.damage();
            if !damage.is_none() {
                warn!(
                    rows = damage.rows,
                    series = damage.series,
                    cut = damage.cut,
                    "the history was damaged; its intact rows are used"
                );
            }
            return Some(history);
        }
        let samples = inbox.recv().ok()?;
        dropped.fetch_add(u64::try_from(samples.len()).unwrap_or(0), Ordering::Relaxed);
        let at = samples.last().map_or(tried, |sample| sample.at.as_second());
        if at >= tried + RETRY_S {
            tried = at;
            opened = History::open(dir, at);
        }
    }
}

/// Seconds.
const RETRY_S: i64 = 60;

fn write(
    dir: &Path,
    now: i64,
    inbox: &Receiver<Vec<Sample>>,
    dropped: &AtomicU64,
    week_ago: &Mutex<Earlier>,
) {
    let Some(mut history) = open(dir, now, inbox, dropped) else { return };
    let (mut failing, mut full) = (false, false);
    let mut hour = None;
    while let Ok(samples) = inbox.recv() {
        if let Some(at) = samples.last().map(|sample| sample.at.as_second())
            && hour != Some(at.div_euclid(3_600))
        {
            hour = Some(at.div_euclid(3_600));
            // Read before the lock is taken: the loop must not wait for the disk.
            let earlier = history.a_week_before(at);
            *week_ago.lock().unwrap_or_else(PoisonError::into_inner) = earlier;
        }
        for sample in &samples {
            match history.record(sample) {
                Ok(true) => failing = false,
                Ok(false) => {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    if !full {
                        warn!(
                            service = sample.key.service,
                            "the history is full; further values are not kept"
                        );
                    }
                    full = true;
                }
                Err(error) => {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        warn!("cannot write the history: {error}");
                    }
                    failing = true;
                }
            }
        }
    }
    if let Err(error) = history.finish() {
        warn!("cannot write the end of the history: {error}");
    }
}

/// The loop hands over what came together in some seconds.
const QUEUE_MAX: usize = 64;
const STACK_BYTES: usize = 256 * 1_024;
