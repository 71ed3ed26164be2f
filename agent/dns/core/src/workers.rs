//! Parallel work. The shell provides the threads, because the core starts none.

/// Runs pieces of work in parallel.
pub trait Workers {
    /// The most pieces that run at once.
    fn count(&self) -> usize;

    /// Calls `work` once for each piece, on at most `count` threads. Returns when all are done.
    fn each<T: Send>(&self, count: usize, pieces: &mut [T], work: impl Fn(&mut T) + Sync);
}
