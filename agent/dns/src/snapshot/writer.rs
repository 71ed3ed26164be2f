//! Writes the cache to disk on its own thread, so that a hanging disk does not delay answers.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dogwatch_daemon::replace::{NewFile, replace_file};
use dogwatch_dns_core::zones::origin::Origin;
use hashbrown::{HashTable, hash_table::Entry};

use super::{
    LEFTOVER, LOG, ORIGIN, SNAPSHOT,
    age::{Ages, Anchor},
    inbox::Inbox,
    length,
    load::{Book, Dated, Loaded, Pieces, TOO_OLD, drop_forgotten, explained},
    record::{
        Answer, FILE_HEAD, FLAG_CD, FLAG_DO, Forgotten, file_head, push_anchor, push_answer, push_forgotten,
        record_len, salt_of,
    },
};
use crate::{clock, random};

/// The cache's data is for its owner and group.
const NEW_FILE: NewFile = NewFile::with_mode(0o640);
/// How long new answers may be in memory only, where `kill -9` loses them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// How long they may be in the page cache only, where power loss loses them.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How often a failed write is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The log is merged when it is longer than both this and the snapshot.
const LOG_MIN: u64 = 4 << 20;
/// Limit of the records kept in memory while writes fail. Further records are not saved to disk;
/// the cache itself keeps them.
const PENDING_MAX: usize = 8 << 20;

/// The writer's counters, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    records: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
    syncs: AtomicU64,
}

impl Counts {
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// Size limits of the files.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the snapshot. The cache's own byte limit is enough for all its answers.
    pub bytes_max: usize,
}

/// An answer to be written to disk.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    /// On the boot clock.
    pub at: Duration,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    /// How often it was used recently.
    pub uses: u16,
    /// How long the question has had positive answers without interruption.
    pub good_for: Duration,
    pub message: &'a [u8],
}

/// The handle of the writer thread.
pub struct Writer {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    salt: u32,
    boot: u32,
}

impl Writer {
    /// Starts the thread. Call it after [`super::load`]; `lock` is from before that.
    pub fn start(dir: &Path, loaded: &Loaded, limits: Limits, lock: Option<Lock>) -> Self {
        if lock.is_some() {
            // A merge that was killed, perhaps on a full disk.
            let _ = fs::remove_file(dir.join(LEFTOVER));
        }
        let (inbox, counts) = (Arc::new(Inbox::default()), Arc::new(Counts::default()));
        let (salt, boot) = (loaded.salt.unwrap_or_else(random::number_u32), Anchor::now().tag());
        let files = Files {
            dir: dir.to_owned(),
            salt,
            lock,
            locked_late: false,
            log: None,
            log_len: loaded.log_len as u64,
            pending: Vec::new(),
            origin: None,
            unsynced_since: None,
            failing: false,
            put_aside: loaded.unread.clone(),
            damaged: loaded.damaged.clone(),
            limits,
            inbox: Arc::clone(&inbox),
            counts: Arc::clone(&counts),
        };
        let spawned = thread::Builder::new().name("snapshot".into()).spawn(move || files.run());
        Self { inbox, thread: spawned.ok(), counts, salt, boot }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Queues an answer. Never blocks.
    pub fn remember(&self, learned: &Learned<'_>) {
        let flags =
            if learned.dnssec_ok { FLAG_DO } else { 0 } | if learned.checking_disabled { FLAG_CD } else { 0 };
        let answer = Answer {
            boot: self.boot,
            at: learned.at,
            uses: learned.uses,
            good_for_s: u32::try_from(learned.good_for.as_secs()).unwrap_or(u32::MAX),
            flags,
            message: learned.message,
        };
        self.leave(|records| push_answer(records, self.salt, &answer));
    }

    /// Records that a question (a cache key) was flushed at `at` on the boot clock: its answers up
    /// to then must not be loaded again.
    pub fn forget(&self, at: Duration, key: &[u8]) {
        let Some((&flags, question)) = key.split_last() else { return };
        let forgotten = Forgotten { boot: self.boot, at, flags, question };
        self.leave(|records| push_forgotten(records, self.salt, &forgotten));
    }

    fn leave(&self, push: impl FnOnce(&mut Vec<u8>)) {
        let left = self.inbox.leave(self.reader(), |left| {
            if left.has_room() {
                push(&mut left.records);
                left.count += 1;
                return true;
            }
            false
        });
        if !left {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records which upstreams the answers come from. Never blocks.
    pub fn note_origin(&self, origin: &Origin) {
        let bytes = origin.to_bytes().into();
        self.inbox.leave(self.reader(), |left| left.origin.replace(bytes).is_none());
    }

    fn reader(&self) -> Option<&thread::Thread> {
        self.thread.as_ref().map(JoinHandle::thread)
    }

    /// Writes the remaining records and waits until that is done.
    pub fn finish(mut self) {
        if let Some(thread) = self.thread.take() {
            self.inbox.end(thread.thread());
            // A panic of the thread is already in the log.
            let _ = thread.join();
        }
    }
}

/// Ends the thread without waiting for it.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(reader) = self.reader() {
            self.inbox.end(reader);
        }
    }
}

/// The right to write in a state directory, as long as it is kept: two caches in one directory
/// would truncate each other's log.
pub struct Lock {
    _folder: File,
}

impl Lock {
    /// Fails with [`ErrorKind::WouldBlock`] if another process has it.
    pub fn take(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let folder = File::open(dir)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { _folder: folder }),
            Err(TryLockError::WouldBlock) => {
                let why = format!(
                    "another dogwatch dns uses {}; stop it, or give each its own state_dir",
                    dir.display()
                );
                Err(io::Error::new(ErrorKind::WouldBlock, why))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct Files {
    dir: PathBuf,
    salt: u32,
    lock: Option<Lock>,
    /// The lock was taken after loading: another cache may have written since.
    locked_late: bool,
    log: Option<File>,
    /// Bytes of complete records in the log.
    log_len: u64,
    /// Records not written yet.
    pending: Vec<u8>,
    /// The content of the file `cache.origin`, not written yet.
    origin: Option<Box<[u8]>>,
    unsynced_since: Option<Duration>,
    failing: bool,
    /// Unreadable files, to be renamed before anything is written.
    put_aside: Vec<&'static str>,
    /// Damaged files, to be kept beside the merged file.
    damaged: Vec<&'static str>,
    limits: Limits,
    inbox: Arc<Inbox>,
    counts: Arc<Counts>,
}

impl Files {
    fn run(mut self) {
        loop {
            let ended = self.collect();
            self.work(ended);
            if ended {
                return;
            }
        }
    }

    /// Waits for records, then collects more for one interval. Sleeps while there is nothing to do.
    /// Returns true when the queue has ended.
    fn collect(&mut self) -> bool {
        if self.pending.is_empty()
            && self.origin.is_none()
            && self.put_aside.is_empty()
            && self.damaged.is_empty()
            && !self.inbox.wait_for_any(self.unsynced_since.map(|since| since + SYNC_INTERVAL))
        {
            return false;
        }
        let interval = if self.failing { RETRY_INTERVAL } else { FLUSH_INTERVAL };
        self.inbox.wait_until(clock::since_boot() + interval);
        let empty = if self.pending.is_empty() { std::mem::take(&mut self.pending) } else { Vec::new() };
        let (left, ended) = self.inbox.take(empty);
        if left.origin.is_some() {
            self.origin = left.origin;
        }
        if self.pending.is_empty() {
            self.pending = left.records;
        } else if self.pending.len() + left.records.len() <= PENDING_MAX {
            self.pending.extend_from_slice(&left.records);
        } else {
            self.counts.lost.fetch_add(left.count, Ordering::Relaxed);
            return ended;
        }
        self.counts.records.fetch_add(left.count, Ordering::Relaxed);
        ended
    }

    fn work(&mut self, ended: bool) {
        match self.write(ended) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(dir = %self.dir.display(), "the snapshot can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    let error = explained(&self.dir.join(LOG), &error);
                    tracing::error!(dir = %self.dir.display(), "cannot write the snapshot: {error}; names are \
                        still served, but a restart would lose the names cached from now on; retrying every {} s",
                        RETRY_INTERVAL.as_secs());
                }
                self.failing = true;
                self.log = None;
            }
        }
    }

    fn write(&mut self, ended: bool) -> io::Result<()> {
        self.write_origin()?;
        if self.pending.is_empty() && self.unsynced_since.is_none() && self.damaged.is_empty() && !ended {
            return Ok(());
        }
        let now = Anchor::now();
        if !self.pending.is_empty() {
            self.append(&now)?;
        }
        if self.unsynced_since.is_some_and(|since| ended || now.at.saturating_sub(since) >= SYNC_INTERVAL) {
            self.sync()?;
        }
        let snapshot_len = fs::metadata(self.dir.join(SNAPSHOT)).map_or(0, |file| file.len());
        if self.log_len >= LOG_MIN.max(snapshot_len) || !self.damaged.is_empty() {
            self.merge(&now)?;
        }
        Ok(())
    }

    fn write_origin(&mut self) -> io::Result<()> {
        if self.origin.is_none() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        self.lock()?;
        let Some(origin) = &self.origin else { return Ok(()) };
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        replace_file(&self.dir.join(ORIGIN), &NEW_FILE, |file| file.write_all(origin))?;
        self.origin = None;
        Ok(())
    }

    fn append(&mut self, now: &Anchor) -> io::Result<()> {
        self.open_log()?;
        let Some(log) = &mut self.log else { return Ok(()) };
        // The anchor gives the records that follow it their date.
        let mut out = Vec::with_capacity(self.pending.len() + 64);
        push_anchor(&mut out, self.salt, now);
        out.extend_from_slice(&self.pending);
        if let Err(error) = log.write_all(&out) {
            // An incomplete record must not precede complete ones. If this fails too, the next open
            // truncates the file.
            let _ = log.set_len(self.log_len);
            return Err(error);
        }
        self.log_len += out.len() as u64;
        self.pending.clear();
        // Free the memory after a burst.
        self.pending.shrink_to(1 << 16);
        self.unsynced_since.get_or_insert(now.at);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(log) = &self.log {
            self.counts.syncs.fetch_add(1, Ordering::Relaxed);
            log.sync_data()?;
            length::write(&self.dir, self.salt, self.log_len)?;
        }
        self.unsynced_since = None;
        Ok(())
    }

    fn open_log(&mut self) -> io::Result<()> {
        if self.log.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir)?;
        self.lock()?;
        self.put_aside()?;
        if self.locked_late {
            // Keeps what the other cache wrote; the log is empty afterwards.
            self.merge(&Anchor::now())?;
            self.locked_late = false;
        }
        let path = self.dir.join(LOG);
        let mut log = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut head = [0; FILE_HEAD];
        let named = io::Read::read_exact(&mut log, &mut head).is_ok() && salt_of(&head) == Some(self.salt);
        if !named || self.log_len < FILE_HEAD as u64 {
            length::forget(&self.dir)?;
            log.set_len(0)?;
            log.seek(SeekFrom::Start(0))?;
            self.log_len = 0;
            log.write_all(&file_head(self.salt))?;
            self.log_len = FILE_HEAD as u64;
            // The new file name must survive a power loss too.
            File::open(&self.dir)?.sync_all()?;
        }
        // Removes a torn tail.
        log.set_len(self.log_len)?;
        log.seek(SeekFrom::Start(self.log_len))?;
        self.log = Some(log);
        Ok(())
    }

    fn lock(&mut self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        self.lock = Some(Lock::take(&self.dir)?);
        self.locked_late = true;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        for file in std::mem::take(&mut self.put_aside) {
            let (path, aside) = (self.dir.join(file), self.dir.join(format!("{file}.unread")));
            if let Err(error) = fs::rename(&path, aside)
                && error.kind() != ErrorKind::NotFound
            {
                self.put_aside.push(file);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Merges both files into a new snapshot: the youngest record of each question, within the
    /// limits.
    fn merge(&mut self, now: &Anchor) -> io::Result<()> {
        self.lock()?;
        self.put_aside()?;
        let (snapshot, log) = (read_file(&self.dir.join(SNAPSHOT))?, read_file(&self.dir.join(LOG))?);
        let mut book = Book::default();
        // Damage was reported when the files were loaded.
        let mut told = Loaded::default();
        book.read(SNAPSHOT, &snapshot, &mut told, 1);
        book.read(LOG, &log, &mut told, 1);
        let anchors = book.stretches.all().to_vec();
        let ages = book.stretches.until(now);
        let chosen = choose(&book.answers, &book.forgotten, ages, self.limits.bytes_max);

        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        replace_file(&self.dir.join(SNAPSHOT), &NEW_FILE, |file| {
            let mut out = file_head(self.salt).to_vec();
            for anchor in &anchors {
                push_anchor(&mut out, self.salt, anchor);
            }
            for answer in chosen {
                push_answer(&mut out, self.salt, answer);
                if out.len() >= 1 << 16 {
                    file.write_all(&out)?;
                    out.clear();
                }
            }
            file.write_all(&out)?;
            for file in &self.damaged {
                let kept = self.dir.join(format!("{file}.damaged"));
                let _ = fs::remove_file(&kept);
                // Best effort, for later analysis.
                let _ = fs::hard_link(self.dir.join(file), kept);
            }
            Ok(())
        })?;
        self.damaged.clear();
        self.log = None;
        self.log_len = 0;
        self.unsynced_since = None;
        length::forget(&self.dir)?;
        match fs::remove_file(self.dir.join(LOG)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The youngest answer to each question, without answers that are too old, oldest first. Over the
/// limit, unused answers are dropped first, the oldest before younger ones, so that a flood of
/// random names does not displace names in use.
///
/// Works with references, because the cache may already use all its memory, and an answer is about
/// seven times as large as a reference.
fn choose<'b, 'a>(
    answers: &'b Pieces<'a>,
    forgotten: &[(usize, Forgotten<'a>)],
    mut ages: Ages,
    bytes_max: usize,
) -> Vec<&'b Answer<'a>> {
    let mut dated: Vec<_> = answers
        .iter()
        .enumerate()
        .filter_map(|(order, answer)| Some(Dated { lapse: ages.of(answer.boot, answer.at)?, order, answer }))
        .collect();
    // Of two answers of the same age, the later in the file is the younger.
    dated.reverse();
    drop_forgotten(&mut dated, forgotten, &mut ages);
    let mut dated: Vec<_> = dated.into_iter().map(|dated| (dated.lapse.passed, dated.answer)).collect();
    dated.retain(|(age, _)| *age <= TOO_OLD);
    dated.sort_by_key(|(age, _)| *age);
    let mut seen = HashTable::with_capacity(dated.len());
    let hasher = std::hash::RandomState::new();
    let hash = |answer: &Answer<'_>| {
        let question = answer.question().to_ascii_lowercase();
        std::hash::BuildHasher::hash_one(&hasher, (question, answer.flags))
    };
    let same = |a: &Answer<'_>, b: &Answer<'_>| {
        a.flags == b.flags && a.question().eq_ignore_ascii_case(b.question())
    };
    dated.retain(|(_, answer)| {
        match seen.entry(hash(answer), |other: &&Answer<'_>| same(other, answer), |other| hash(other)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(answer);
                true
            }
        }
    });
    let bytes: usize = dated.iter().map(|(_, answer)| record_len(answer)).sum();
    if bytes > bytes_max {
        dated.sort_by_key(|(age, answer)| (answer.uses == 0, *age));
        let mut left = bytes_max;
        let fits = dated.iter().take_while(|(_, answer)| {
            let rest = left.checked_sub(record_len(answer));
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        let fitting = fits.count();
        dated.truncate(fitting);
        dated.sort_by_key(|(age, _)| *age);
    }
    dated.into_iter().rev().map(|(_, answer)| answer).collect()
}
