//! Restores a snapshot's answers into the resolver's cache, with several threads.

use dogwatch_dns_core::{moment::Moment, resolver::Resolver, workers::Workers};

use super::{
    load::{Answers, Take},
    side_by_side,
};

/// Restores answers from a snapshot.
pub struct Restoring<'a> {
    resolver: &'a mut Resolver,
    now: Moment,
}

impl<'a> Restoring<'a> {
    pub fn new(resolver: &'a mut Resolver, now: Moment) -> Self {
        Self { resolver, now }
    }
}

impl Take for Restoring<'_> {
    fn take_all(&mut self, answers: Answers<'_>) {
        self.resolver.restore_all(&answers, &Threads, self.now);
    }
}

/// Threads that end when the work is done.
struct Threads;

impl Workers for Threads {
    fn count(&self) -> usize {
        side_by_side::threads()
    }

    fn each<T: Send>(&self, count: usize, pieces: &mut [T], work: impl Fn(&mut T) + Sync) {
        side_by_side::each(count, pieces, work);
    }
}
