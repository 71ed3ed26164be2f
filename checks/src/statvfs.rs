//! Reads the usage of filesystems, any of which may hang.
//!
//! `statvfs` on a dead NFS or FUSE mount hangs in the kernel, and a thread in it cannot be killed.
//! So a helper thread reads one mount after the other, and stays for a while for the next check. If
//! one takes too long, it is recorded as hung, the helper is left behind, and a new helper
//! continues with the rest. A hung mount is not read again until its helper returns. So it costs
//! one thread in total, however often it is checked. (`node_exporter` leaked a thread per scrape:
//! issues 578 and 3058.)

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock,
    root::{FsUsage, Root},
};

/// The result of reading one mount.
#[derive(Debug)]
pub(crate) enum Answer {
    Usage(FsUsage),
    Failed(io::Error),
    /// No answer for this long.
    Hung(Duration),
}

/// Mounts to read, and where the answers go.
struct Question {
    paths: Vec<PathBuf>,
    answers: Sender<Answer>,
}

/// What came from a helper.
enum Heard {
    All,
    /// It hangs and is left behind.
    Hung,
    /// It has ended before it had answered all.
    Nothing,
}

type Read = dyn Fn(&Path) -> io::Result<FsUsage> + Send + Sync;

/// Reads mounts and remembers which of them hang. Shared by all checks of a process.
pub(crate) struct Asker {
    read: Box<Read>,
    /// The mounts that a helper hangs in, and since when.
    hung: Mutex<BTreeMap<PathBuf, Instant>>,
    /// The helper that waits for its next question. Held while reading, so that two checks do not
    /// hang in the same mount.
    turn: Mutex<Option<Sender<Question>>>,
}

/// For all mounts together, so the first one that hangs may take 4 s. Local mounts take
/// microseconds, remote ones milliseconds. Must be below the default timeout of a check, 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// How long a helper waits for its next question. Longer than the pauses between the usual checks
/// would keep a thread for nothing.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// The helper needs very little stack.
const HELPER_STACK: usize = 128 * 1_024;

impl Asker {
    pub(crate) fn new(root: Root) -> Self {
        Self::with(move |path| root.statvfs(path))
    }

    fn with(read: impl Fn(&Path) -> io::Result<FsUsage> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), hung: Mutex::default(), turn: Mutex::default() }
    }

    /// Returns an answer for each path, in order, after about `patience` at most.
    ///
    /// Each mount that hangs may use half of the remaining time, so that one dead server does not
    /// hide the mounts after it. But it always gets at least an eighth of `patience`, so that a
    /// healthy mount of a busy host is not reported.
    pub(crate) fn ask(self: &Arc<Self>, paths: &[PathBuf], patience: Duration) -> Vec<Answer> {
        let mut helper = lock(&self.turn);
        let end = clock::now() + patience;
        let mut answers = Vec::with_capacity(paths.len());
        while answers.len() < paths.len() {
            let rest = &paths[answers.len()..];
            let (to, from) = mpsc::channel();
            let is_new = match self.put(&mut helper, Question { paths: rest.to_vec(), answers: to }) {
                Ok(is_new) => is_new,
                Err(error) => {
                    answers.push(Answer::Failed(error));
                    continue;
                }
            };
            let share = || (end.saturating_duration_since(clock::now()) / 2).max(patience / 8);
            match self.listen(&from, rest, share, &mut answers) {
                Heard::All => {}
                Heard::Hung => *helper = None,
                Heard::Nothing => {
                    *helper = None;
                    if is_new {
                        answers.push(Answer::Failed(io::Error::other("the helper thread has ended")));
                    }
                    // Else it had waited long enough, and ended as it was asked.
                }
            }
        }
        answers
    }

    /// For a mount that cannot hang.
    pub(crate) fn ask_at_once(&self, path: &Path) -> Answer {
        (self.read)(path).map_or_else(Answer::Failed, Answer::Usage)
    }

    /// Receives answers until all have arrived or one mount hangs.
    fn listen(
        &self,
        helper: &Receiver<Answer>,
        paths: &[PathBuf],
        share: impl Fn() -> Duration,
        answers: &mut Vec<Answer>,
    ) -> Heard {
        for path in paths {
            let waited = share();
            match helper.recv_timeout(waited) {
                Ok(answer) => answers.push(answer),
                Err(RecvTimeoutError::Disconnected) => return Heard::Nothing,
                Err(RecvTimeoutError::Timeout) => {
                    // The helper sends while it holds this lock: either it has answered, or from
                    // now on it knows that it was left behind.
                    let mut hung = lock(&self.hung);
                    if let Ok(answer) = helper.try_recv() {
                        answers.push(answer);
                    } else {
                        let now = clock::now();
                        hung.insert(path.clone(), now.checked_sub(waited).unwrap_or(now));
                        answers.push(Answer::Hung(waited));
                        return Heard::Hung;
                    }
                }
            }
        }
        Heard::All
    }

    /// Hands a question to the helper that waits, or to a new one. Returns whether it is new.
    fn put(self: &Arc<Self>, helper: &mut Option<Sender<Question>>, question: Question) -> io::Result<bool> {
        let mut question = question;
        if let Some(waiting) = helper {
            match waiting.send(question) {
                Ok(()) => return Ok(false),
                Err(mpsc::SendError(back)) => question = back,
            }
        }
        let (sender, questions) = mpsc::channel();
        let _ = sender.send(question);
        let asker = Arc::clone(self);
        let thread = thread::Builder::new().name("statvfs".into()).stack_size(HELPER_STACK);
        thread.spawn(move || asker.help(&questions))?;
        *helper = Some(sender);
        Ok(true)
    }

    /// The helper thread.
    fn help(&self, questions: &Receiver<Question>) {
        while let Ok(question) = questions.recv_timeout(IDLE_FOR) {
            if !self.answer(&question) {
                return;
            }
        }
    }

    /// Returns whether the helper is still needed.
    fn answer(&self, question: &Question) -> bool {
        for path in &question.paths {
            let hung_since = lock(&self.hung).get(path).copied();
            let answer = match hung_since {
                Some(since) => Answer::Hung(clock::now().saturating_duration_since(since)),
                None => (self.read)(path).map_or_else(Answer::Failed, Answer::Usage),
            };
            let mut hung = lock(&self.hung);
            if hung_since.is_none() && hung.remove(path).is_some() {
                return false; // It hung and was left behind. Another helper has continued.
            }
            if question.answers.send(answer).is_err() {
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("hung", &*lock(&self.hung)).finish_non_exhaustive()
    }
}

/// A panic leaves nothing half done here, so a poisoned lock can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Long enough for a thread on a busy machine to get its turn within an eighth of it.
    const SOON: Duration = Duration::from_secs(2);
    const USAGE: FsUsage = FsUsage { used: 1, free: 2, reserved: 0, inodes: 3, inodes_free: 4, mount: None };

    /// Mounts that hang on request.
    #[derive(Default)]
    struct World {
        dead: Mutex<Vec<PathBuf>>,
        changed: Condvar,
        asked: AtomicUsize,
        inside: AtomicUsize,
    }

    impl World {
        fn set_dead(&self, paths: &[&str]) {
            *lock(&self.dead) = paths.iter().map(PathBuf::from).collect();
            self.changed.notify_all();
        }

        fn statvfs(&self, path: &Path) -> FsUsage {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.inside.fetch_add(1, Ordering::SeqCst);
            let mut dead = lock(&self.dead);
            while dead.iter().any(|dead| dead == path) {
                dead = self.changed.wait(dead).unwrap();
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            USAGE
        }
    }

    fn world() -> (Arc<World>, Arc<Asker>) {
        let world = Arc::new(World::default());
        let mounts = world.clone();
        (world, Arc::new(Asker::with(move |path| Ok(mounts.statvfs(path)))))
    }

    /// `+` answered, `H` hung.
    fn seen(answers: &[Answer]) -> String {
        answers
            .iter()
            .map(|answer| match answer {
                Answer::Usage(_) => '+',
                Answer::Failed(_) => '!',
                Answer::Hung(_) => 'H',
            })
            .collect()
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_hung_mount_costs_one_thread_once_and_the_others_still_answer() {
        let (world, asker) = world();
        let mounts = paths(&["/", "/nfs", "/srv"]);
        world.set_dead(&["/nfs"]);
        for _ in 0..10 {
            assert_eq!(seen(&asker.ask(&mounts, SOON)), "+H+");
        }
        assert_eq!(world.inside.load(Ordering::SeqCst), 1);
        assert_eq!(
            world.asked.load(Ordering::SeqCst),
            21,
            "ten times two healthy mounts and once the dead one"
        );
    }

    #[test]
    fn a_mount_that_recovers_is_read_again() {
        let (world, asker) = world();
        let mounts = paths(&["/nfs", "/"]);
        world.set_dead(&["/nfs"]);
        assert_eq!(seen(&asker.ask(&mounts, SOON)), "H+");
        world.set_dead(&[]);
        let give_up = clock::now() + Duration::from_secs(10);
        while seen(&asker.ask(&mounts, SOON)) != "++" {
            assert!(clock::now() < give_up, "{asker:?}");
        }
        assert!(lock(&asker.hung).is_empty());
    }

    #[test]
    fn several_dead_mounts_are_all_found_in_one_round() {
        let (world, asker) = world();
        world.set_dead(&["/a", "/b", "/c"]);
        assert_eq!(seen(&asker.ask(&paths(&["/a", "/", "/b", "/c", "/srv"]), SOON)), "H+HH+");
        assert_eq!(world.inside.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn concurrent_checks_of_a_dead_mount_cost_one_thread() {
        let (world, asker) = world();
        world.set_dead(&["/nfs"]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(seen(&asker.ask(&paths(&["/nfs"]), SOON)), "H"));
            }
        });
        assert_eq!(world.inside.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_root_of_this_host_can_be_read() {
        let asker = Arc::new(Asker::new(Root::live()));
        let answers = asker.ask(&paths(&["/", "/no/such/path"]), PATIENCE);
        assert_eq!(seen(&answers), "+!");
    }
}
