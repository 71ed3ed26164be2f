//! Writes the spool and the state file, on a separate thread so that a failing disk never stops the
//! loop.
//!
//! Orders are carried out one at a time. The events of an order are durable before the state that
//! includes them is written, and nothing leaves the spool before that. While the disk fails, the
//! caller keeps everything in memory and repeats the order with what has been added since.
//!
//! A directory that cannot be used, or does not answer, does not stop the agent from starting: a
//! broken disk is what it must report. It then works from memory, and every order tries to open the
//! directory again. If the files can be read, as on a read-only disk, the states of the services
//! are taken from them, but not the numbers of the events: a run that cannot write them would use
//! them twice.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use dogwatch_wire::Event;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::sync::mpsc;

use crate::{
    report::spool::{self, Damage, Recovered, Spool},
    state::Saved,
};

/// What to make durable.
#[derive(Debug)]
pub struct Order {
    /// The epoch of the events. If the spool has another epoch, it starts again with `events`.
    pub epoch: u64,
    /// Not on disk yet, in order.
    pub events: Vec<Event>,
    pub next_seq: u64,
    /// Events up to this number are no longer needed.
    pub settled: u64,
    /// The state after the last event.
    pub state: Saved,
}

/// The outcome of an order.
#[derive(Debug)]
pub struct Done {
    /// The events are on disk up to `through`, or why not.
    pub spooled: io::Result<()>,
    pub epoch: u64,
    pub through: u64,
    /// Whether the state file is up to date. It is not written if `spooled` failed.
    pub saved: io::Result<()>,
    pub spool_bytes: u64,
}

/// Sends orders to the thread that writes.
#[derive(Debug)]
pub struct Store {
    orders: std::sync::mpsc::Sender<Order>,
}

/// What was found on disk at the start.
#[derive(Debug)]
pub struct Found {
    pub spool: Recovered,
    pub state: Saved,
    pub state_damaged: bool,
    /// Events that were spooled and are not in the file, although alertd has not acknowledged them.
    pub events_lost: u64,
    /// Why the directory cannot be used. The agent works from memory until an order succeeds.
    pub problem: Option<String>,
}

/// Opens the files in `dir`, on the thread that will write them. The outcome of each order is sent
/// to `done`.
///
/// # Errors
///
/// [`io::ErrorKind::ResourceBusy`] if another agent uses the directory, or if no thread can be
/// started.
pub fn open(dir: &Path, fresh_epoch: u64, done: mpsc::Sender<Done>) -> io::Result<(Store, Found)> {
    open_within(OPEN_LIMIT, dir, fresh_epoch, done)
}

fn open_within(
    limit: Duration,
    dir: &Path,
    fresh_epoch: u64,
    done: mpsc::Sender<Done>,
) -> io::Result<(Store, Found)> {
    let (orders, inbox) = std::sync::mpsc::channel();
    // Without a buffer: what the caller no longer waits for was not used.
    let (opened_to, opened) = sync_channel(0);
    let mut disk = Disk { dir: dir.to_owned(), files: None, written: None };
    thread::Builder::new().name("store".into()).stack_size(STACK_BYTES).spawn(move || {
        let (files, found) = match Files::open(&disk.dir, fresh_epoch) {
            Ok((files, found)) => (Some(files), Ok(found)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => (None, Err(error)),
            Err(error) => (None, Ok(read_only(&disk.dir, fresh_epoch, &error))),
        };
        if opened_to.send(found).is_ok() {
            disk.files = files;
        } else if let Some(files) = files {
            disk.adopt(files);
        }
        while let Ok(order) = inbox.recv() {
            if done.blocking_send(disk.obey(order)).is_err() {
                return;
            }
        }
    })?;
    let found = match opened.recv_timeout(limit) {
        Ok(found) => found?,
        Err(RecvTimeoutError::Timeout) => nothing(fresh_epoch, "the disk does not answer".into()),
        Err(RecvTimeoutError::Disconnected) => {
            nothing(fresh_epoch, "the thread that reads it has ended".into())
        }
    };
    Ok((Store { orders }, found))
}

/// The states that can still be read from a directory that cannot be used.
fn read_only(dir: &Path, fresh_epoch: u64, error: &io::Error) -> Found {
    let mut found = nothing(fresh_epoch, error.to_string());
    if let Ok((state, damaged)) = Saved::load(dir) {
        found.state = state;
        found.state_damaged = damaged;
        if let Some(spool) = spool::read(dir) {
            found.state.replay(spool.epoch, &spool.events);
        }
        (found.state.epoch, found.state.through) = (fresh_epoch, 0);
    }
    found
}

fn nothing(epoch: u64, problem: String) -> Found {
    let spool = Recovered { epoch, next_seq: 1, acked: 0, events: Vec::new(), damage: Damage::default() };
    Found { spool, state: Saved::default(), state_damaged: false, events_lost: 0, problem: Some(problem) }
}

/// A healthy disk answers within milliseconds.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Takes the directory for this process. The kernel gives it back when the process ends.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::create(dir.join(LOCK_NAME))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another agent is running with this directory; give each agent a state_dir of its own",
        )),
        Err(error) => Err(error.into()),
    }
}

const LOCK_NAME: &str = "lock";
/// The epoch of a spool that is replaced at once; no agent uses it.
const FRESH: u64 = 0;

impl Store {
    /// Sends an order. The caller must wait for [`Done`] before it sends the next one.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the thread that writes to the disk has ended"))
    }
}

struct Disk {
    dir: PathBuf,
    /// `None` while the directory cannot be used.
    files: Option<Files>,
    /// The state as last written, so that it is not written again without a change.
    written: Option<Saved>,
}

struct Files {
    spool: Spool,
    /// Held as long as the thread runs.
    _lock: File,
}

impl Files {
    fn open(dir: &Path, fresh_epoch: u64) -> io::Result<(Self, Found)> {
        std::fs::create_dir_all(dir)?;
        let lock = lock(dir)?;
        let (mut state, state_damaged) = Saved::load(dir)?;
        let (spool, mut recovered) = Spool::open(dir, fresh_epoch)?;
        let mut events_lost = 0;
        if state.epoch == recovered.epoch {
            let last = recovered.events.last().map_or(0, |event| event.seq).max(recovered.acked);
            events_lost = state.through.saturating_sub(last.max(recovered.next_seq - 1));
            // If the disk has lost synced records: numbers up to here have been used.
            recovered.next_seq = recovered.next_seq.max(state.through + 1);
        }
        state.replay(recovered.epoch, &recovered.events);
        let found = Found { spool: recovered, state, state_damaged, events_lost, problem: None };
        Ok((Self { spool, _lock: lock }, found))
    }
}

impl Disk {
    fn obey(&mut self, order: Order) -> Done {
        let (epoch, through) = (order.epoch, order.next_seq - 1);
        let spooled = self.open().and_then(|()| self.spool(&order));
        let saved = if spooled.is_ok() { self.save(order) } else { Ok(()) };
        let spool_bytes = self.files.as_ref().map_or(0, |files| files.spool.length());
        Done { spooled, epoch, through, saved, spool_bytes }
    }

    /// Opens the directory if that has failed so far.
    fn open(&mut self) -> io::Result<()> {
        if self.files.is_none() {
            let (files, _) = Files::open(&self.dir, FRESH)?;
            self.adopt(files);
        }
        Ok(())
    }

    /// Takes files that this run did not start from. The order that follows begins a new spool, so
    /// the old one is kept for people to look at. Nothing in it is owed: alertd gets all states of
    /// a new epoch.
    fn adopt(&mut self, files: Files) {
        spool::keep_old(&self.dir);
        self.files = Some(files);
    }

    fn files(&mut self) -> io::Result<&mut Files> {
        self.files.as_mut().ok_or_else(|| io::Error::other("the state directory is not open"))
    }

    fn spool(&mut self, order: &Order) -> io::Result<()> {
        let spool = &mut self.files()?.spool;
        if order.epoch != spool.epoch() {
            return spool.begin(order.epoch, order.next_seq, order.settled, &order.events);
        }
        spool.append(&order.events, order.settled)
    }

    fn save(&mut self, order: Order) -> io::Result<()> {
        if self.written.as_ref() != Some(&order.state) {
            order.state.store(&self.dir)?;
            self.written = Some(order.state);
        }
        // Only now: events that are settled and in the state file are no longer needed.
        let spool = &mut self.files()?.spool;
        if spool.is_worth_compacting() { spool.compact(order.next_seq) } else { Ok(()) }
    }
}

/// Writing JSON needs little stack; the default is 2 MiB.
const STACK_BYTES: usize = 256 * 1_024;

#[cfg(test)]
mod tests {
    use std::fs;

    use dogwatch_wire::EventKind;
    use jiff::Timestamp;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn event(seq: u64) -> Event {
        Event { seq, at: Timestamp::UNIX_EPOCH, kind: EventKind::Removed { service: format!("s{seq}") } }
    }

    fn order(epoch: u64, events: Vec<Event>) -> Order {
        let next_seq = events.last().map_or(1, |event| event.seq + 1);
        Order { epoch, events, next_seq, settled: 0, state: Saved { epoch, ..Saved::default() } }
    }

    /// S10: the agent starts without a state directory, and uses it as soon as it can.
    #[test]
    fn a_directory_that_cannot_be_made_is_used_once_it_can() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("var/dogwatch");
        fs::write(home.path().join("var"), "in the way").unwrap();
        let (done_to, mut done) = mpsc::channel(1);
        let (store, found) = open(&dir, 7, done_to).unwrap();
        assert!(found.problem.is_some());
        assert_eq!((found.spool.epoch, found.spool.next_seq), (7, 1));
        store.send(order(7, vec![event(1)])).unwrap();
        assert!(done.blocking_recv().unwrap().spooled.is_err());
        fs::remove_file(home.path().join("var")).unwrap();
        store.send(order(7, vec![event(1), event(2)])).unwrap();
        let outcome = done.blocking_recv().unwrap();
        assert!(outcome.spooled.is_ok() && outcome.saved.is_ok(), "{outcome:?}");
        assert_eq!(outcome.through, 2);
        drop(store);
        while done.blocking_recv().is_some() {}
        let (again, _) = mpsc::channel(1);
        let (_, found) = open(&dir, 8, again).unwrap();
        assert_eq!(found.problem, None);
        assert_eq!((found.spool.epoch, found.spool.events.len()), (7, 2));
    }

    /// S10, a sibling: a disk that hangs.
    #[test]
    fn a_disk_that_does_not_answer_is_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state.json");
        mknodat(CWD, &state, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (done_to, mut done) = mpsc::channel(1);
        let (store, found) = open_within(Duration::from_millis(50), home.path(), 7, done_to).unwrap();
        assert_eq!(found.problem.as_deref(), Some("the disk does not answer"));
        store.send(order(7, vec![event(1)])).unwrap();
        assert!(done.try_recv().is_err(), "nobody reads the pipe");
        // Now it answers: the pipe has a writer, and then an end.
        drop(fs::OpenOptions::new().write(true).open(&state).unwrap());
        let outcome = done.blocking_recv().unwrap();
        assert!(outcome.spooled.is_ok(), "{outcome:?}");
    }

    /// S10, a sibling: the states of a read-only disk count, its numbers do not.
    #[test]
    fn states_are_read_from_a_directory_that_cannot_be_written() {
        let home = tempfile::tempdir().unwrap();
        let mut saved = Saved { epoch: 5, through: 9, ..Saved::default() };
        saved.services.insert("disk /".into(), crate::state::SavedService::default());
        saved.store(home.path()).unwrap();
        // A directory in its place stands for a lock that cannot be made.
        fs::create_dir(home.path().join(LOCK_NAME)).unwrap();
        let (done_to, mut done) = mpsc::channel(1);
        let (store, found) = open(home.path(), 7, done_to).unwrap();
        assert!(found.problem.is_some());
        assert!(found.state.services.contains_key("disk /"));
        assert_eq!((found.state.epoch, found.state.through, found.spool.epoch), (7, 0, 7));
        fs::remove_dir(home.path().join(LOCK_NAME)).unwrap();
        store.send(order(7, vec![event(1)])).unwrap();
        assert!(done.blocking_recv().unwrap().spooled.is_ok());
    }

    /// A disk that is mounted after the start has an older spool.
    #[test]
    fn a_spool_that_turns_up_late_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let (dir, hidden) = (home.path().join("state"), home.path().join("hidden"));
        let (done_to, mut done) = mpsc::channel(1);
        let (store, _) = open(&dir, 5, done_to).unwrap();
        store.send(order(5, vec![event(1), event(2)])).unwrap();
        assert!(done.blocking_recv().unwrap().spooled.is_ok());
        drop(store);
        while done.blocking_recv().is_some() {}
        fs::rename(&dir, &hidden).unwrap();
        fs::write(&dir, "not mounted").unwrap();
        let (done_to, mut done) = mpsc::channel(1);
        let (store, found) = open(&dir, 7, done_to).unwrap();
        assert!(found.problem.is_some());
        fs::remove_file(&dir).unwrap();
        fs::rename(&hidden, &dir).unwrap();
        store.send(order(7, vec![event(1)])).unwrap();
        assert!(done.blocking_recv().unwrap().spooled.is_ok());
        assert!(dir.join("spool.old").exists());
    }

    #[test]
    fn a_directory_that_another_agent_uses_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let _lock = lock(home.path()).unwrap();
        let (done_to, _done) = mpsc::channel(1);
        let error = open(home.path(), 7, done_to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
}
