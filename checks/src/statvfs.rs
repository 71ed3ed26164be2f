//! Asks filesystems how full they are, though any of them may never answer.
//!
//! `statvfs` on a dead NFS or FUSE mount hangs in the kernel, and a thread in it cannot be killed. So a helper thread asks
//! one mount after the other; one that keeps it waiting too long is written down as hung, the helper is left behind, and
//! the next helper goes on with the rest. A hung mount is not asked again until its helper comes back, so each costs one
//! thread, once, however many checks ask however often. (`node_exporter` leaked one a scrape: its issues 578 and 3058.)

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

/// What became of asking one mount.
#[derive(Debug)]
pub(crate) enum Answer {
    Usage(FsUsage),
    Failed(io::Error),
    /// Not answered for this long.
    Hung(Duration),
}

type Read = dyn Fn(&Path) -> io::Result<FsUsage> + Send + Sync;

/// Asks, and remembers who hangs. One in a process.
pub(crate) struct Asker {
    read: Box<Read>,
    /// Mounts that a helper is stuck in, since when.
    hung: Mutex<BTreeMap<PathBuf, Instant>>,
    /// Held while asking: two checks must not both walk into the same dead mount.
    turn: Mutex<()>,
}

/// For all mounts together; so the first that hangs may take 4 s, where local ones take microseconds and remote ones
/// milliseconds. Below the 10 s after which a check overruns.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// The helper needs next to nothing; address space is counted too.
const HELPER_STACK: usize = 128 * 1_024;

impl Asker {
    pub(crate) fn new(root: Root) -> Self {
        Self::with(move |path| root.statvfs(path))
    }

    fn with(read: impl Fn(&Path) -> io::Result<FsUsage> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), hung: Mutex::default(), turn: Mutex::default() }
    }

    /// An answer for each path, in order, after about `patience`.
    ///
    /// Each mount that hangs may use half of what is left of the patience, so that one dead server does not hide what the
    /// mounts after it have to say; never less than an eighth of it all, so that a busy host's healthy mount is not blamed.
    pub(crate) fn ask(self: &Arc<Self>, paths: &[PathBuf], patience: Duration) -> Vec<Answer> {
        let _turn = lock(&self.turn);
        let end = clock::now() + patience;
        let mut answers = Vec::with_capacity(paths.len());
        while answers.len() < paths.len() {
            let rest = &paths[answers.len()..];
            match self.clone().start_helper(rest.to_vec()) {
                Ok(helper) => {
                    let share = || (end.saturating_duration_since(clock::now()) / 2).max(patience / 8);
                    self.listen(&helper, rest, share, &mut answers);
                }
                Err(error) => answers.push(Answer::Failed(error)),
            }
        }
        answers
    }

    /// Takes answers until all are there or one hangs.
    fn listen(
        &self,
        helper: &Receiver<Answer>,
        paths: &[PathBuf],
        share: impl Fn() -> Duration,
        answers: &mut Vec<Answer>,
    ) {
        for path in paths {
            let waited = share();
            match helper.recv_timeout(waited) {
                Ok(answer) => answers.push(answer),
                Err(RecvTimeoutError::Disconnected) => {
                    answers.push(Answer::Failed(io::Error::other("the helper thread died")));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    // The helper sends under this lock: either it has answered, or from here on it knows it is given up.
                    let mut hung = lock(&self.hung);
                    if let Ok(answer) = helper.try_recv() {
                        answers.push(answer);
                    } else {
                        let now = clock::now();
                        hung.insert(path.clone(), now.checked_sub(waited).unwrap_or(now));
                        answers.push(Answer::Hung(waited));
                        return;
                    }
                }
            }
        }
    }

    fn start_helper(self: Arc<Self>, paths: Vec<PathBuf>) -> io::Result<Receiver<Answer>> {
        let (sender, receiver) = mpsc::channel();
        let helper = thread::Builder::new().name("statvfs".into()).stack_size(HELPER_STACK);
        helper.spawn(move || self.help(&paths, &sender))?;
        Ok(receiver)
    }

    /// The helper thread.
    fn help(&self, paths: &[PathBuf], answers: &Sender<Answer>) {
        for path in paths {
            let hung_since = lock(&self.hung).get(path).copied();
            let answer = match hung_since {
                Some(since) => Answer::Hung(clock::now().saturating_duration_since(since)),
                None => (self.read)(path).map_or_else(Answer::Failed, Answer::Usage),
            };
            let mut hung = lock(&self.hung);
            if hung_since.is_none() && hung.remove(path).is_some() {
                return; // It hung, and was given up; another helper has gone on.
            }
            if answers.send(answer).is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("hung", &*lock(&self.hung)).finish_non_exhaustive()
    }
}

/// Nothing here is left half-done by a panic, so a poisoned lock is as good as any.
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

    /// Long enough that a thread of a busy machine gets its turn within an eighth of it.
    const SOON: Duration = Duration::from_secs(2);
    const USAGE: FsUsage = FsUsage { used: 1, free: 2, inodes: 3, inodes_free: 4 };

    /// Mounts that hang as long as they are told to.
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
    fn a_mount_that_comes_back_is_asked_again() {
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
    fn checks_that_ask_at_the_same_time_send_one_thread_into_a_dead_mount() {
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
    fn this_hosts_root_answers() {
        let asker = Arc::new(Asker::new(Root::live()));
        let answers = asker.ask(&paths(&["/", "/no/such/path"]), PATIENCE);
        assert_eq!(seen(&answers), "+!");
    }
}
