//! The agent's disk: spool and state file, on a thread of their own, so that a dying disk never stops the loop.
//!
//! Promised: one [`Order`] at a time, in the order given; within one the events are durable before the state that knows
//! them is written, and nothing leaves the spool before that. While the disk refuses, everything stays in the caller's
//! memory and the same order is tried again with more in it.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use dogwatch_wire::Event;
use tokio::sync::mpsc;

use crate::{
    report::spool::{Recovered, Spool},
    state::Saved,
};

/// What to make durable.
#[derive(Debug)]
pub struct Order {
    /// Which numbering the events belong to; if the spool has another, it is begun anew with `events`.
    pub epoch: u64,
    /// Not on disk yet, in order.
    pub events: Vec<Event>,
    pub next_seq: u64,
    /// Up to this number nobody needs the events any more.
    pub settled: u64,
    /// What is believed after the last event; says so itself ([`Saved::through`]).
    pub state: Saved,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// The events are on disk up to `through`, or why not.
    pub spooled: io::Result<()>,
    pub epoch: u64,
    pub through: u64,
    /// The state file was written, or need not be; it is not tried if `spooled` failed.
    pub saved: io::Result<()>,
    pub spool_bytes: u64,
}

/// The way to the disk's thread.
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

/// Opens everything in `dir`; `done` hears what comes of each order.
pub fn open(dir: &Path, fresh_epoch: u64, done: mpsc::Sender<Done>) -> io::Result<(Store, Found)> {
    std::fs::create_dir_all(dir)?;
    let (mut state, state_damaged) = Saved::load(dir)?;
    let (spool, mut recovered) = Spool::open(dir, fresh_epoch)?;
    if state.epoch == recovered.epoch {
        // A disk that lost synced records: numbers up to here were used.
        recovered.next_seq = recovered.next_seq.max(state.through + 1);
    }
    state.replay(recovered.epoch, &recovered.events);
    let (orders, inbox) = std::sync::mpsc::channel();
    let mut disk = Disk { dir: dir.to_owned(), spool, written: None };
    thread::Builder::new().name("store".into()).stack_size(STACK_BYTES).spawn(move || {
        while let Ok(order) = inbox.recv() {
            if done.blocking_send(disk.obey(order)).is_err() {
                return;
            }
        }
    })?;
    Ok((Store { orders }, Found { spool: recovered, state, state_damaged }))
}

impl Store {
    /// Hands over an order. The caller waits for its [`Done`] before the next one.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the thread that writes to disk has died"))
    }
}

struct Disk {
    dir: PathBuf,
    spool: Spool,
    /// The state file's content as last written, to not write the same again.
    written: Option<Saved>,
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
        // Only now, for what is settled and in the state file nobody needs again.
        if self.spool.is_worth_compacting() { self.spool.compact(order.next_seq) } else { Ok(()) }
    }
}

/// JSON and file writing need little; the default is 2 MiB.
const STACK_BYTES: usize = 256 * 1_024;
