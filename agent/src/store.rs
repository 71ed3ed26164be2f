//! Writes the spool and the state file, on a separate thread so that a failing disk never stops the
//! loop.
//!
//! Orders are carried out one at a time. The events of an order are durable before the state that
//! includes them is written, and nothing leaves the spool before that. While the disk fails, the
//! caller keeps everything in memory and repeats the order with what has been added since.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
};

use dogwatch_wire::Event;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::sync::mpsc;

use crate::{
    report::spool::{Recovered, Spool},
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
}

/// Opens the files in `dir`. The outcome of each order is sent to `done`.
pub fn open(dir: &Path, fresh_epoch: u64, done: mpsc::Sender<Done>) -> io::Result<(Store, Found)> {
    std::fs::create_dir_all(dir)?;
    let lock = lock(dir)?;
    let (mut state, state_damaged) = Saved::load(dir)?;
    let (spool, mut recovered) = Spool::open(dir, fresh_epoch)?;
    if state.epoch == recovered.epoch {
        // If the disk has lost synced records: numbers up to here have been used.
        recovered.next_seq = recovered.next_seq.max(state.through + 1);
    }
    state.replay(recovered.epoch, &recovered.events);
    let (orders, inbox) = std::sync::mpsc::channel();
    let mut disk = Disk { dir: dir.to_owned(), spool, written: None, _lock: lock };
    thread::Builder::new().name("store".into()).stack_size(STACK_BYTES).spawn(move || {
        while let Ok(order) = inbox.recv() {
            if done.blocking_send(disk.obey(order)).is_err() {
                return;
            }
        }
    })?;
    Ok((Store { orders }, Found { spool: recovered, state, state_damaged }))
}

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

impl Store {
    /// Sends an order. The caller must wait for [`Done`] before it sends the next one.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the thread that writes to the disk has ended"))
    }
}

struct Disk {
    dir: PathBuf,
    spool: Spool,
    /// The state as last written, so that it is not written again without a change.
    written: Option<Saved>,
    /// Held as long as the thread runs.
    _lock: File,
}

impl Disk {
    fn obey(&mut self, order: Order) -> Done {
        let (epoch, through) = (order.epoch, order.next_seq - 1);
        let spooled = self.spool(&order);
        let saved = if spooled.is_ok() { self.save(order) } else { Ok(()) };
        Done { spooled, epoch, through, saved, spool_bytes: self.spool.length() }
    }

    fn spool(&mut self, order: &Order) -> io::Result<()> {
        if order.epoch != self.spool.epoch() {
            return self.spool.begin(order.epoch, order.next_seq, order.settled, &order.events);
        }
        self.spool.append(&order.events, order.settled)
    }

    fn save(&mut self, order: Order) -> io::Result<()> {
        if self.written.as_ref() != Some(&order.state) {
            order.state.store(&self.dir)?;
            self.written = Some(order.state);
        }
        // Only now: events that are settled and in the state file are no longer needed.
        if self.spool.is_worth_compacting() { self.spool.compact(order.next_seq) } else { Ok(()) }
    }
}

/// Writing JSON needs little stack; the default is 2 MiB.
const STACK_BYTES: usize = 256 * 1_024;
