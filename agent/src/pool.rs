//! Threads for checks that may hang in the kernel.
//!
//! Reading `/proc` takes microseconds, and starting a thread takes longer than that. So a thread
//! stays for the next check. Work that is due at the same time is done by one thread, one check
//! after the other: waking eight of them for eight reads of a microsecond costs more than the
//! reads. Only if work has waited for [`PATIENCE`], because a check is slow or hangs, does another
//! thread help, up to [`THREADS_MAX`], or more while many checks hang.
//!
//! A thread that hangs cannot be killed. The loop gives it up ([`Pool::give_up`]); from then on it
//! no longer counts, and it ends when its check does. Of the threads without work one stays, for
//! [`IDLE_FOR`], so that an agent at rest has none.
//!
//! No lock is held while a check runs. The loop takes what is done when [`Pool::finished`] returns,
//! and kicks again when [`Pool::next_wakeup`] says so.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use dogwatch_checks::{Blocking, CheckResult, Judgement};
use tokio::sync::Notify;

use crate::{clock, moment::Moment};

/// The threads and their work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// There is work, for a thread that waits.
    work: Condvar,
    /// There are results, for the loop.
    results: Notify,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    /// What runs, and since when.
    running: BTreeMap<u64, Moment>,
    /// Of those, the ones whose thread was given up.
    given_up: Vec<u64>,
    done: Vec<Done>,
    /// Threads that were not given up.
    threads: usize,
    /// Of those, the ones that wait for work.
    idle: usize,
    next_id: u64,
}

struct Job {
    id: u64,
    check: Arc<dyn Blocking>,
    since: Moment,
}

/// A check that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: u64,
    pub(crate) outcome: Judgement,
    /// How long it waited for a thread.
    pub(crate) waited: Duration,
    pub(crate) took: Duration,
}

impl Pool {
    /// Adds work and returns its number. [`Self::kick`] begins it.
    pub(crate) fn push(&self, check: Arc<dyn Blocking>, now: Moment) -> u64 {
        let mut inner = self.shared.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.queue.push_back(Job { id, check, since: now });
        id
    }

    /// Sees to it that someone works. Call it after the last of several [`Self::push`].
    pub(crate) fn kick(&self, now: Moment) {
        let inner = self.shared.lock();
        let Some(first) = inner.queue.front() else { return };
        let working = inner.threads - inner.idle;
        if working > 0 && now < first.since + PATIENCE {
            return;
        }
        if inner.idle > 0 {
            self.shared.work.notify_one();
        } else if inner.room_at().is_some_and(|at| at <= now) {
            self.start(inner);
        }
    }

    fn start(&self, mut inner: MutexGuard<'_, Inner>) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("check".into()).stack_size(STACK_BYTES);
        match thread.spawn(move || shared.work()) {
            Ok(_) => inner.threads += 1,
            // Others work: they will get to it.
            Err(_) if inner.threads > 0 => {}
            Err(error) => inner.fail_all(&error),
        }
        if !inner.done.is_empty() {
            self.shared.results.notify_one();
        }
    }

    /// What has ended since the last look.
    pub(crate) fn take_done(&self) -> Vec<Done> {
        mem::take(&mut self.shared.lock().done)
    }

    /// What runs, and since when, without what was given up.
    pub(crate) fn running(&self) -> Vec<(u64, Moment)> {
        let inner = self.shared.lock();
        let running = inner.running.iter().filter(|(id, _)| !inner.given_up.contains(id));
        running.map(|(id, since)| (*id, *since)).collect()
    }

    /// This check hangs: its thread is left alone, and another may take its place. `false` if it
    /// has ended in the meantime.
    pub(crate) fn give_up(&self, id: u64) -> bool {
        let mut inner = self.shared.lock();
        let runs = inner.running.contains_key(&id);
        if runs {
            inner.given_up.push(id);
            inner.threads = inner.threads.saturating_sub(1);
        }
        runs
    }

    /// Nothing could run for so long.
    pub(crate) fn forgive(&self, pause: Duration) {
        let mut inner = self.shared.lock();
        for since in inner.running.values_mut() {
            *since = *since + pause;
        }
    }

    /// When work has waited so long that another thread must help, and may.
    pub(crate) fn next_wakeup(&self) -> Option<Moment> {
        let inner = self.shared.lock();
        let helps_at = inner.queue.front()?.since + PATIENCE;
        if inner.idle > 0 { Some(helps_at) } else { Some(inner.room_at()?.max(helps_at)) }
    }

    /// Returns when there is something new to see. Cancel-safe.
    pub(crate) async fn finished(&self) {
        self.shared.results.notified().await;
    }
}

impl Shared {
    /// A panic of a check is caught, so a lock is never left in the middle of a change.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread.
    fn work(&self) {
        let mut said = Duration::ZERO;
        let mut works = false;
        let mut inner = self.lock();
        loop {
            let Some(Job { id, check, since }) = inner.queue.pop_front() else {
                if inner.idle > 0 {
                    inner.threads = inner.threads.saturating_sub(1);
                    return;
                }
                inner.idle += 1;
                let (back, timed_out) = self
                    .work
                    .wait_timeout_while(inner, IDLE_FOR, |inner| inner.queue.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
                inner = back;
                inner.idle -= 1;
                works = false;
                if timed_out.timed_out() && inner.queue.is_empty() {
                    inner.threads = inner.threads.saturating_sub(1);
                    return;
                }
                continue;
            };
            let began = clock::since_boot();
            if !works {
                (said, works) = (began, true);
            }
            inner.running.insert(id, Moment(began));
            drop(inner);
            let outcome = catch_unwind(AssertUnwindSafe(|| check.run()));
            let outcome = outcome.unwrap_or_else(|panic| panicked(&*panic).into());
            drop(check);
            let ended = clock::since_boot();
            let waited = Moment(began).since(since);
            inner = self.lock();
            inner.running.remove(&id);
            inner.done.push(Done { id, outcome, waited, took: ended.saturating_sub(began) });
            let given_up = inner.given_up.iter().position(|other| *other == id);
            let last = inner.queue.is_empty() || given_up.is_some();
            if last || ended.saturating_sub(said) >= SAID_EVERY {
                said = ended;
                self.results.notify_one();
            }
            if let Some(at) = given_up {
                inner.given_up.swap_remove(at);
                return;
            }
        }
    }
}

impl Inner {
    /// From when on another thread may be started: at once while there are fewer than
    /// [`THREADS_MAX`], not counting those that have been at one check for [`SLOW_AFTER`].
    fn room_at(&self) -> Option<Moment> {
        if self.threads < THREADS_MAX {
            return Some(Moment(Duration::ZERO));
        }
        if self.threads >= THREADS_WITH_SLOW_MAX {
            return None;
        }
        let running = self.running.iter().filter(|(id, _)| !self.given_up.contains(id));
        let mut since: Vec<Moment> = running.map(|(_, since)| *since).collect();
        since.sort_unstable();
        since.get(self.threads - THREADS_MAX).map(|since| *since + SLOW_AFTER)
    }

    fn fail_all(&mut self, error: &io::Error) {
        let result = CheckResult::unknown(format!("cannot start a thread for the check: {error}"));
        let failed = self.queue.drain(..).map(|job| Done {
            id: job.id,
            outcome: result.clone().into(),
            waited: Duration::ZERO,
            took: Duration::ZERO,
        });
        self.done.extend(failed);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("threads", &self.threads)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> CheckResult {
    let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    CheckResult::unknown(format!("check panicked (a bug in dogwatch; please report it): {said}"))
}

/// Far longer than reading a file of `/proc`.
const PATIENCE: Duration = Duration::from_millis(20);

/// Results are not kept back longer than this while there is more work.
const SAID_EVERY: Duration = Duration::from_millis(5);

/// Threads that work or wait. Those that were given up do not count.
const THREADS_MAX: usize = 8;

/// A check that takes so long probably hangs, with a file system for example. Others must not wait
/// until it is given up at its deadline, so its thread does not count …
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// … up to so many threads.
const THREADS_WITH_SLOW_MAX: usize = 64;

/// Longer than the pauses of an agent with a few dozen checks a minute.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Blocking checks need little stack; network checks do not run on these threads.
const STACK_BYTES: usize = 512 * 1_024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dogwatch_checks::State;

    use super::*;

    #[tokio::test]
    async fn one_thread_does_all_that_is_due_at_the_same_time() {
        let (pool, gate) = (Pool::default(), Arc::new(Gate::default()));
        let now = Moment(clock::since_boot());
        let ids: Vec<_> = (0..50).map(|_| pool.push(Arc::clone(&gate) as _, now)).collect();
        pool.kick(now);
        assert_eq!(pool.shared.lock().threads, 1);
        gate.open();
        assert_eq!(ended(&pool, 50).await, ids, "in their order");
        assert_eq!(pool.next_wakeup(), None);
        // The same thread is there for the next one.
        let id = pool.push(Arc::clone(&gate) as _, now);
        pool.kick(now);
        assert_eq!(ended(&pool, 1).await, [id]);
        assert_eq!(pool.shared.lock().threads, 1);
    }

    #[tokio::test]
    async fn a_check_that_hangs_does_not_hold_up_the_next_one() {
        let (pool, hangs) = (Pool::default(), Arc::new(Gate::default()));
        let free = Arc::new(Gate::default());
        free.open();
        let now = Moment(clock::since_boot());
        let stuck = pool.push(Arc::clone(&hangs) as _, now);
        pool.kick(now);
        hangs.entered();
        let next = pool.push(Arc::clone(&free) as _, now);
        pool.kick(now);
        assert_eq!(pool.shared.lock().threads, 1, "it may still be quick");
        let later = pool.next_wakeup().unwrap();
        assert_eq!(later, now + PATIENCE);
        pool.kick(later);
        assert_eq!(ended(&pool, 1).await, [next]);

        assert!(pool.give_up(stuck));
        assert_eq!(pool.running(), []);
        assert_eq!(pool.shared.lock().threads, 1, "the one that hangs does not count");
        hangs.open();
        assert_eq!(ended(&pool, 1).await, [stuck]);
        assert!(!pool.give_up(stuck), "it has ended");
        assert_eq!(pool.shared.lock().given_up.len(), 0);
    }

    #[tokio::test]
    async fn threads_are_bounded_and_hung_ones_are_replaced() {
        let (pool, hangs) = (Pool::default(), Arc::new(Gate::default()));
        let now = Moment(clock::since_boot());
        let late = now + Duration::from_secs(1);
        let ids: Vec<_> = (0..2 * THREADS_MAX).map(|_| pool.push(Arc::clone(&hangs) as _, now)).collect();
        for _ in 0..ids.len() {
            let before = hangs.inside.load(Ordering::SeqCst);
            pool.kick(late);
            while hangs.inside.load(Ordering::SeqCst) == before && before < THREADS_MAX {
                thread::yield_now();
            }
        }
        assert_eq!(pool.shared.lock().threads, THREADS_MAX);
        assert!(pool.next_wakeup().unwrap() > late, "not before one of them proves to be slow");
        for id in &ids[..THREADS_MAX] {
            assert!(pool.give_up(*id));
        }
        assert!(pool.next_wakeup().unwrap() < late);
        hangs.open();
        pool.kick(late);
        let mut all = ended(&pool, ids.len()).await;
        all.sort_unstable();
        assert_eq!(all, ids);
    }

    #[tokio::test]
    async fn checks_that_hang_do_not_hold_up_others_until_their_deadline() {
        let (pool, hangs) = (Pool::default(), Arc::new(Gate::default()));
        let free = Arc::new(Gate::default());
        free.open();
        let now = Moment(clock::since_boot());
        let later = now + Duration::from_mins(1);
        let stuck: Vec<_> = (0..20).map(|_| pool.push(Arc::clone(&hangs) as _, now)).collect();
        let next = pool.push(Arc::clone(&free) as _, now);
        for inside in 0..stuck.len() {
            pool.kick(later);
            while hangs.inside.load(Ordering::SeqCst) == inside {
                thread::yield_now();
            }
        }
        assert!(pool.next_wakeup().unwrap() < later);
        pool.kick(later);
        assert_eq!(ended(&pool, 1).await, [next]);
        hangs.open();
        assert_eq!(ended(&pool, stuck.len()).await.len(), stuck.len());
    }

    /// Waits for results and returns their numbers.
    async fn ended(pool: &Pool, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            pool.finished().await;
            ids.extend(pool.take_done().into_iter().map(|done| done.id));
        }
        ids
    }

    /// A check that hangs until it is opened.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        changed: Condvar,
        inside: AtomicUsize,
    }

    impl Gate {
        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.changed.notify_all();
        }

        /// Waits until a thread hangs in it.
        fn entered(&self) {
            while self.inside.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        }
    }

    impl Blocking for Gate {
        fn run(&self) -> Judgement {
            self.inside.fetch_add(1, Ordering::SeqCst);
            let mut open = self.open.lock().unwrap();
            while !*open {
                open = self.changed.wait(open).unwrap();
            }
            CheckResult::new(State::Ok, "open").into()
        }
    }
}
