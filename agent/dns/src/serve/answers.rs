//! The answers of one TCP connection on their way to the client, bounded in bytes.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// Answers waiting to be written on one connection: 16 MiB for all connections.
pub(super) const BYTES_MAX: u32 = 128 << 10;

/// Where the core puts the answers of one connection.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(super) queue: mpsc::Sender<Answer>,
    pub(super) bytes: Arc<Semaphore>,
    close: Arc<Notify>,
}

/// One answer on its way, and the room it takes until it is written.
pub(super) struct Answer {
    pub(super) message: Vec<u8>,
    pub(super) _room: OwnedSemaphorePermit,
}

impl Answers {
    pub(super) fn new(queue: mpsc::Sender<Answer>, close: Arc<Notify>) -> Self {
        Self { queue, bytes: Arc::new(Semaphore::new(BYTES_MAX as usize)), close }
    }

    /// An empty answer is not sent; it only frees its place. If the client reads too slowly to take
    /// this one, it is disconnected.
    pub(crate) fn send(&self, message: Vec<u8>) {
        match Arc::clone(&self.bytes).try_acquire_many_owned(room_for(&message)) {
            // There is room in the queue: a connection never has more queries in flight.
            Ok(room) => drop(self.queue.try_send(Answer { message, _room: room })),
            Err(_) => self.close.notify_one(),
        }
    }
}

/// Of [`BYTES_MAX`]; no message is larger.
pub(super) fn room_for(message: &[u8]) -> u32 {
    u32::try_from(message.len()).unwrap_or(BYTES_MAX).clamp(1, BYTES_MAX)
}
