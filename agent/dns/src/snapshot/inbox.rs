//! The queue of records to the writer thread: one buffer, filled by one side and taken as a whole
//! by the other. An allocation or a wake-up per record would cost more than the record itself.

use std::{thread, time::Duration};

use parking_lot::Mutex;

use crate::clock;

/// Limit of the queue while the disk is slow. Further records are not saved to disk; the cache
/// itself keeps them.
const BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Default)]
struct State {
    left: Left,
    /// No more records will come.
    ended: bool,
    /// The thread sleeps until it is woken.
    asleep: bool,
}

/// The data for the thread.
#[derive(Default)]
pub(super) struct Left {
    /// In file format.
    pub(super) records: Vec<u8>,
    pub(super) count: u64,
    /// [`dogwatch_dns_core::zones::origin`], in file format.
    pub(super) origin: Option<Box<[u8]>>,
}

impl Left {
    /// Whether another record fits.
    pub(super) fn has_room(&self) -> bool {
        self.records.len() < BYTES_MAX
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.origin.is_none()
    }
}

impl Inbox {
    /// Lets `add` add data, and wakes `reader` if it sleeps. Returns the result of `add`.
    pub(super) fn leave(&self, reader: Option<&thread::Thread>, add: impl FnOnce(&mut Left) -> bool) -> bool {
        let mut state = self.0.lock();
        let added = add(&mut state.left);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if let Some(reader) = reader.filter(|_| asleep) {
            reader.unpark();
        }
        added
    }

    /// Tells the thread that no more records will come.
    pub(super) fn end(&self, reader: &thread::Thread) {
        self.0.lock().ended = true;
        reader.unpark();
    }

    /// Waits on the writer thread until there is data, or until this time on the boot clock.
    /// Returns true if there is data or the queue has ended.
    pub(super) fn wait_for_any(&self, until: Option<Duration>) -> bool {
        loop {
            let mut state = self.0.lock();
            if !state.left.is_empty() || state.ended {
                state.asleep = false;
                return true;
            }
            state.asleep = true;
            drop(state);
            match until.map(|until| until.saturating_sub(clock::since_boot())) {
                None => thread::park(),
                Some(Duration::ZERO) => return false,
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// Waits until this time on the boot clock, or until the queue has ended.
    pub(super) fn wait_until(&self, until: Duration) {
        loop {
            let left = until.saturating_sub(clock::since_boot());
            if left.is_zero() || self.0.lock().ended {
                return;
            }
            thread::park_timeout(left);
        }
    }

    /// Takes all data, leaving `empty` as the buffer. The flag is true if the queue has ended.
    pub(super) fn take(&self, empty: Vec<u8>) -> (Left, bool) {
        let mut state = self.0.lock();
        let left = std::mem::replace(&mut state.left, Left { records: empty, ..Left::default() });
        (left, state.ended)
    }
}
