//! Work in pieces, done side by side by whatever the shell provides: the core starts no threads.

/// Runs pieces of work.
pub trait Workers {
    /// How many pieces are worked on at once, at most.
    fn count(&self) -> usize;

    /// Calls `work` once for each piece, on at most `count` threads at once. Returns when all are done.
    fn each<T: Send>(&self, count: usize, pieces: &mut [T], work: impl Fn(&mut T) + Sync);
}
