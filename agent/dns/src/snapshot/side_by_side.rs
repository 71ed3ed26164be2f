//! Work in pieces, done by a few threads for a moment.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// Threads that are of use to a burst of work: no more than there are cores, and few.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// A start is not worth more: the others on this machine start too.
const THREADS_MAX: usize = 4;

/// Has each of the pieces worked on, by this thread and `threads - 1` others. Without threads this one does it all.
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
            // What a thread that cannot be had would have done is left for the others.
            let _ = thread::Builder::new().name("restore".into()).spawn_scoped(scope, run);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_worked_on_once_by_however_many_threads() {
        for threads in [0, 1, 2, 5, 100] {
            let mut pieces: Vec<u32> = (0..37).collect();
            each(threads, &mut pieces, |piece| *piece += 100);
            assert_eq!(pieces, (100..137).collect::<Vec<_>>(), "{threads} threads");
        }
        each(3, &mut [] as &mut [u32], |_| unreachable!());
    }
}
