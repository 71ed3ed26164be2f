//! Short bursts of parallel work on a few threads.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// The number of threads for a burst of work: at most one per core, and at most [`THREADS_MAX`].
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// At boot, other services on this machine need the cores too.
const THREADS_MAX: usize = 4;

/// Runs `work` on each piece, on this thread and `threads - 1` others. If no thread can be started,
/// this thread does everything.
pub(crate) fn each<T: Send>(threads: usize, pieces: &mut [T], work: impl Fn(&mut T) + Sync) {
    let threads = threads.min(pieces.len());
    let left = Mutex::new(pieces.iter_mut());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(piece) = next() {
            work(piece);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread cannot start, the others do its share.
            let _ = thread::Builder::new().name("restore".into()).spawn_scoped(scope, run);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_processed_once_with_any_number_of_threads() {
        for threads in [0, 1, 2, 5, 100] {
            let mut pieces: Vec<u32> = (0..37).collect();
            each(threads, &mut pieces, |piece| *piece += 100);
            assert_eq!(pieces, (100..137).collect::<Vec<_>>(), "{threads} threads");
        }
        each(3, &mut [] as &mut [u32], |_| unreachable!());
    }
}
