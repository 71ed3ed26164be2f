//! Records on their way to the writer's thread: one buffer, filled by one side and taken whole by the other. No allocation
//! for each, and nobody is woken for each: that would cost more than the record.

use std::{thread, time::Duration};

use parking_lot::Mutex;

use crate::clock;

/// On the way, while the thread gathers or a disk hangs in a write; what is over is lost from disk, not from the cache.
const BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Default)]
struct State {
    left: Left,
    /// There will be no more.
    ended: bool,
    /// The thread sleeps until somebody wakes it.
    asleep: bool,
}

/// What was left for the thread.
#[derive(Default)]
pub(super) struct Left {
    /// As they will stand in the file.
    pub(super) records: Vec<u8>,
    pub(super) count: u64,
    /// [`dogwatch_dns_core::zones::origin`], as it will stand in its file.
    pub(super) origin: Option<Box<[u8]>>,
}

impl Left {
    /// For another record.
    pub(super) fn has_room(&self) -> bool {
        self.records.len() < BYTES_MAX
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.origin.is_none()
    }
}

impl Inbox {
    /// Leaves something, if `add` does; wakes `reader` if it sleeps for want of anything to do.
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

    /// There will be no more.
    pub(super) fn end(&self, reader: &thread::Thread) {
        self.0.lock().ended = true;
        reader.unpark();
    }

    /// Waits in `reader`'s thread until there is something, or it is that late on the boot clock. True if there is, or nothing
    /// more will be.
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

    /// Waits until it is that late, or nothing more will come.
    pub(super) fn wait_until(&self, until: Duration) {
        loop {
            let left = until.saturating_sub(clock::since_boot());
            if left.is_zero() || self.0.lock().ended {
                return;
            }
            thread::park_timeout(left);
        }
    }

    /// Takes all; true if there will be no more. `empty` takes the place of the buffer.
    pub(super) fn take(&self, empty: Vec<u8>) -> (Left, bool) {
        let mut state = self.0.lock();
        let left = std::mem::replace(&mut state.left, Left { records: empty, ..Left::default() });
        (left, state.ended)
    }
}
