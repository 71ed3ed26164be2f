//! The cache on disk: what was learned is there within a second, and survives `kill -9`, power loss and bad sectors.
//!
//! Two files of one format in the state directory. `cache.log` is appended to; when it has grown past `cache.snapshot`,
//! both are merged into a new `cache.snapshot` (written beside, synced, renamed) and the log starts anew. Loading reads
//! the snapshot, then the log; a later record of the same question wins. A crash between rename and restart of the log
//! leaves records in both: reading them twice does no harm.
//!
//! ```text
//! file    = "DWDNS001" record*
//! record  = "REC!" length:u32 crc:u32 payload          crc = CRC-32 (IEEE) of payload; integers little-endian
//! payload = 1 boot:[16] at:u64 wall:i64                anchor: this boot's clock said `at` ms when the wall clock said `wall` ms
//!         | 2 at:u64 key_len:u16 key message           answer learned `at` ms on the clock of the boot named last before it
//! ```
//!
//! Recovery: a record whose CRC or length is wrong is skipped up to the next "REC!" whose record is whole, and counted;
//! what stands at the end of the log without being a whole record is cut off before the next append.
//!
//! Ages never trust the wall clock within one boot: they are differences of the boot clock. Across a reboot the time that
//! passed is the difference of wall clocks from the last anchor on, and never negative, so a machine that wakes up
//! in 1970 serves its names, and one that wakes up in 2099 drops them as too old.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::clock;

const MAGIC: &[u8; 8] = b"DWDNS001";
const MARK: &[u8; 4] = b"REC!";
const RECORD_HEAD: usize = 12;
const KIND_ANCHOR: u8 = 1;
const KIND_ANSWER: u8 = 2;
/// A key and the longest message, with room.
const PAYLOAD_MAX: usize = 70_000;
/// How long what was learned may stay in memory only.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
const ANCHOR_INTERVAL: Duration = Duration::from_mins(1);
/// The log is merged when it is longer than this and than the snapshot.
const LOG_MIN: u64 = 4 << 20;
/// Kept in memory while the disk takes nothing; what is over is lost from disk, not from the cache.
const PENDING_MAX: usize = 8 << 20;
const QUEUE_MAX: usize = 65_536;

/// Name of this boot (proc(5), random/boot_id); zeros where the kernel has none.
type Boot = [u8; 16];

/// One remembered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub key: Vec<u8>,
    pub message: Vec<u8>,
    /// How long ago it was learned.
    pub age: Duration,
}

/// What loading found.
#[derive(Debug, Default)]
pub struct Loaded {
    pub answers: Vec<Remembered>,
    /// Damaged places that were skipped.
    pub damaged: usize,
    /// Whole bytes of the log; the rest is cut off.
    log_len: u64,
}

/// A clock reading of the boot that wrote a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    boot: Boot,
    at: Duration,
    wall_ms: i64,
}

impl Anchor {
    pub fn now() -> Self {
        Self { boot: boot_id(), at: clock::since_boot(), wall_ms: clock::wall().as_millisecond() }
    }

    fn passed_since(&self, earlier: &Self) -> Duration {
        if self.boot == earlier.boot {
            return self.at.saturating_sub(earlier.at);
        }
        Duration::from_millis(u64::try_from(self.wall_ms.saturating_sub(earlier.wall_ms)).unwrap_or(0))
    }
}

/// Reads both files of `dir`. Missing files are an empty cache; unreadable ones are an error.
pub fn load(dir: &Path, now: &Anchor) -> io::Result<Loaded> {
    let snapshot = read_file(&dir.join("cache.snapshot"))?;
    let log = read_file(&dir.join("cache.log"))?;
    let mut book = Book::default();
    book.read(&snapshot);
    let log_len = book.read(&log);
    Ok(Loaded { damaged: book.damaged, log_len, answers: book.answers(now) })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Records as read: the last of each question, and the last anchor of each boot.
#[derive(Default)]
struct Book<'a> {
    latest: HashMap<&'a [u8], (usize, Duration, &'a [u8])>,
    anchors: Vec<Anchor>,
    damaged: usize,
}

impl<'a> Book<'a> {
    /// Reads one file; returns how many bytes of it are good to append to.
    fn read(&mut self, bytes: &'a [u8]) -> u64 {
        let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
            self.damaged += usize::from(!bytes.is_empty());
            return 0;
        };
        let mut good = MAGIC.len();
        let mut boot = None;
        while !rest.is_empty() {
            if let Some((payload, tail)) = split_record(rest) {
                boot = self.take(payload, boot);
                rest = tail;
                good = bytes.len() - rest.len();
                continue;
            }
            // Torn or damaged: on to the next place that may be a record.
            let next = rest[1..].windows(MARK.len()).position(|window| window == MARK);
            match next {
                Some(skip) => {
                    self.damaged += usize::from(rest.starts_with(MARK));
                    rest = &rest[1 + skip..];
                }
                None => break,
            }
        }
        good as u64
    }

    fn take(&mut self, payload: &'a [u8], boot: Option<usize>) -> Option<usize> {
        match payload.split_first() {
            Some((&KIND_ANCHOR, fields)) => {
                let anchor = read_anchor(fields)?;
                let known = self.anchors.iter().position(|other| other.boot == anchor.boot);
                let index = known.unwrap_or(self.anchors.len());
                match known {
                    Some(index) => self.anchors[index] = anchor,
                    None => self.anchors.push(anchor),
                }
                return Some(index);
            }
            Some((&KIND_ANSWER, fields)) => {
                if let (Some(boot), Some((at, key, message))) = (boot, read_answer(fields)) {
                    self.latest.insert(key, (boot, at, message));
                }
            }
            _ => self.damaged += 1,
        }
        boot
    }

    fn answers(&self, now: &Anchor) -> Vec<Remembered> {
        let remembered = |(key, &(boot, at, message)): (&&[u8], &(usize, Duration, &[u8]))| {
            let anchor = &self.anchors[boot];
            let age = now.passed_since(anchor) + anchor.at.saturating_sub(at);
            Remembered { key: key.to_vec(), message: message.to_vec(), age }
        };
        let mut answers: Vec<_> = self.latest.iter().map(remembered).collect();
        // Oldest first: what is inserted last is evicted last.
        answers.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.key.cmp(&b.key)));
        answers
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(MARK.as_slice())?;
    let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
    if length > PAYLOAD_MAX {
        return None;
    }
    let (payload, tail) = rest.get(8..)?.split_at_checked(length)?;
    (crc32fast::hash(payload) == crc).then_some((payload, tail))
}

fn read_anchor(fields: &[u8]) -> Option<Anchor> {
    Some(Anchor {
        boot: fields.get(..16)?.try_into().ok()?,
        at: Duration::from_millis(u64::from_le_bytes(fields.get(16..24)?.try_into().ok()?)),
        wall_ms: i64::from_le_bytes(fields.get(24..32)?.try_into().ok()?),
    })
}

fn read_answer(fields: &[u8]) -> Option<(Duration, &[u8], &[u8])> {
    let at = Duration::from_millis(u64::from_le_bytes(fields.get(..8)?.try_into().ok()?));
    let key_len = usize::from(u16::from_le_bytes(fields.get(8..10)?.try_into().ok()?));
    let (key, message) = fields.get(10..)?.split_at_checked(key_len)?;
    Some((at, key, message))
}

fn push_record(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend(MARK);
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    out.extend(payload);
}

fn push_anchor(out: &mut Vec<u8>, anchor: &Anchor) {
    let mut payload = vec![KIND_ANCHOR];
    payload.extend(anchor.boot);
    payload.extend(millis(anchor.at).to_le_bytes());
    payload.extend(anchor.wall_ms.to_le_bytes());
    push_record(out, &payload);
}

fn push_answer(out: &mut Vec<u8>, at: Duration, key: &[u8], message: &[u8]) {
    let mut payload = Vec::with_capacity(11 + key.len() + message.len());
    payload.push(KIND_ANSWER);
    payload.extend(millis(at).to_le_bytes());
    payload.extend(u16::try_from(key.len()).unwrap_or(0).to_le_bytes());
    payload.extend(key);
    payload.extend(message);
    push_record(out, &payload);
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn boot_id() -> Boot {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// What the writer did, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    records: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
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
}

/// Writes in a thread of its own: a disk that hangs must not hang the names.
pub struct Writer {
    queue: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts after [`load`]. `too_old`: what is older than this is left out when files are merged.
    pub fn start(dir: &Path, loaded: &Loaded, too_old: Duration) -> Self {
        let (queue, records) = sync_channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let files = Files {
            dir: dir.to_owned(),
            log: None,
            log_len: loaded.log_len,
            pending: Vec::new(),
            failing: false,
            too_old,
            counts: Arc::clone(&counts),
        };
        let spawned = thread::Builder::new().name("snapshot".into()).spawn(move || files.run(&records));
        Self { queue: Some(queue), thread: spawned.ok(), counts }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Hands over an answer learned at `at` on the boot clock. Never waits.
    pub fn remember(&self, at: Duration, key: &[u8], message: &[u8]) {
        let mut record = Vec::with_capacity(RECORD_HEAD + 11 + key.len() + message.len());
        push_answer(&mut record, at, key, message);
        let sent = self.queue.as_ref().map(|queue| queue.try_send(record));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is left and waits for it.
    pub fn finish(mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; there is nothing left to do.
            let _ = thread.join();
        }
    }
}

struct Files {
    dir: PathBuf,
    log: Option<File>,
    /// Bytes of the log that are whole records.
    log_len: u64,
    pending: Vec<u8>,
    failing: bool,
    too_old: Duration,
    counts: Arc<Counts>,
}

impl Files {
    fn run(mut self, records: &Receiver<Vec<u8>>) {
        let mut anchored = Anchor::now();
        push_anchor(&mut self.pending, &anchored);
        loop {
            let ended = self.collect(records);
            let now = Anchor::now();
            if ended || now.passed_since(&anchored) >= ANCHOR_INTERVAL {
                anchored = now;
                push_anchor(&mut self.pending, &anchored);
            }
            self.flush(&anchored);
            if ended {
                return;
            }
        }
    }

    /// Gathers records for one interval. True when there will be no more.
    fn collect(&mut self, records: &Receiver<Vec<u8>>) -> bool {
        let start = clock::since_boot();
        loop {
            let left = FLUSH_INTERVAL.saturating_sub(clock::since_boot().saturating_sub(start));
            match records.recv_timeout(left) {
                Ok(record) if self.pending.len() + record.len() <= PENDING_MAX => {
                    self.pending.extend(record);
                    self.counts.records.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => {
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    fn flush(&mut self, now: &Anchor) {
        if self.pending.is_empty() {
            return;
        }
        match self.append().and_then(|()| self.merge_if_long(now)) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(dir = %self.dir.display(), "the snapshot is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    tracing::error!(dir = %self.dir.display(), %error, "the snapshot cannot be written; answers learned \
                        from now on would not survive a restart; make room or check the permissions");
                }
                self.failing = true;
                self.log = None;
            }
        }
    }

    fn append(&mut self) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            closed @ None => closed.insert(open_log(&self.dir, &mut self.log_len)?),
        };
        let written = log.write_all(&self.pending).and_then(|()| log.sync_data());
        if let Err(error) = written {
            // Half a record must not stand before whole ones.
            log.set_len(self.log_len)?;
            log.seek(SeekFrom::Start(self.log_len))?;
            return Err(error);
        }
        self.log_len += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn merge_if_long(&mut self, now: &Anchor) -> io::Result<()> {
        let snapshot_len = fs::metadata(self.dir.join("cache.snapshot")).map_or(0, |file| file.len());
        if self.log_len < LOG_MIN.max(snapshot_len) {
            return Ok(());
        }
        merge(&self.dir, self.too_old, now)?;
        self.log = None;
        self.log_len = 0;
        // The new log must name its boot before its first answer.
        push_anchor(&mut self.pending, now);
        self.append()
    }
}

fn open_log(dir: &Path, log_len: &mut u64) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let mut log =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(dir.join("cache.log"))?;
    let mut head = [0; MAGIC.len()];
    let named = log.read_exact(&mut head).is_ok() && head == *MAGIC;
    if !named || *log_len < MAGIC.len() as u64 {
        log.set_len(0)?;
        log.seek(SeekFrom::Start(0))?;
        log.write_all(MAGIC)?;
        *log_len = MAGIC.len() as u64;
    }
    // The torn tail goes.
    log.set_len(*log_len)?;
    log.seek(SeekFrom::Start(*log_len))?;
    Ok(log)
}

/// Both files into a new snapshot: the latest record of each question, unless too old.
fn merge(dir: &Path, too_old: Duration, now: &Anchor) -> io::Result<()> {
    let (snapshot, log) = (read_file(&dir.join("cache.snapshot"))?, read_file(&dir.join("cache.log"))?);
    let mut book = Book::default();
    book.read(&snapshot);
    book.read(&log);
    let mut out = MAGIC.to_vec();
    for (boot, anchor) in book.anchors.iter().enumerate() {
        let before_anchor = now.passed_since(anchor);
        push_anchor(&mut out, anchor);
        for (key, &(theirs, at, message)) in &book.latest {
            if theirs == boot && before_anchor + anchor.at.saturating_sub(at) <= too_old {
                push_answer(&mut out, at, key, message);
            }
        }
    }
    let (new, old) = (dir.join("cache.snapshot.new"), dir.join("cache.snapshot"));
    let mut file = File::create(&new)?;
    file.write_all(&out)?;
    file.sync_all()?;
    fs::rename(&new, &old)?;
    File::open(dir)?.sync_all()?;
    fs::remove_file(dir.join("cache.log"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const TOO_OLD: Duration = Duration::from_hours(96);

    fn anchor(boot: u8, at: Duration, wall: Duration) -> Anchor {
        Anchor { boot: [boot; 16], at, wall_ms: i64::try_from(wall.as_millis()).unwrap() }
    }

    fn log_of(records: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC.to_vec(), records.concat()].concat()
    }

    fn anchor_record(anchor: &Anchor) -> Vec<u8> {
        let mut out = Vec::new();
        push_anchor(&mut out, anchor);
        out
    }

    fn answer_record(at: Duration, key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_answer(&mut out, at, key, message);
        out
    }

    fn loaded(log: &[u8], now: &Anchor) -> Vec<(Vec<u8>, Duration)> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cache.log"), log).unwrap();
        load(dir.path(), now)
            .unwrap()
            .answers
            .into_iter()
            .map(|answer| (answer.message, answer.age))
            .collect()
    }

    #[test]
    fn what_was_written_is_read_back_and_survives_merging() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3_u8 {
            let found = load(dir.path(), &Anchor::now()).unwrap();
            assert_eq!(found.answers.len(), usize::from(round) * 100);
            let writer = Writer::start(dir.path(), &found, TOO_OLD);
            for number in 0..100_u8 {
                writer.remember(clock::since_boot(), &[round, number], &[number; 50]);
            }
            writer.finish();
            merge(dir.path(), TOO_OLD, &Anchor::now()).unwrap();
        }
        let found = load(dir.path(), &Anchor::now()).unwrap();
        assert_eq!((found.answers.len(), found.damaged), (300, 0));
        assert!(found.answers.iter().all(|answer| answer.age < HOUR));
    }

    #[test]
    fn a_clock_that_jumps_within_one_boot_changes_no_age() {
        let log = log_of(&[anchor_record(&anchor(1, HOUR, HOUR * 1_000)), answer_record(HOUR, b"k", b"m")]);
        for wall in [0, 999, 1_000, 9_999_999] {
            assert_eq!(loaded(&log, &anchor(1, HOUR * 3, HOUR * wall)), [(b"m".to_vec(), HOUR * 2)]);
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_tells_and_never_makes_answers_younger() {
        let log = log_of(&[
            anchor_record(&anchor(1, HOUR, HOUR * 1_000)),
            answer_record(HOUR, b"k", b"m"),
            anchor_record(&anchor(1, HOUR * 2, HOUR * 1_001)),
        ]);
        let age_at = |wall| loaded(&log, &anchor(2, HOUR, HOUR * wall))[0].1;
        assert_eq!(age_at(1_004), HOUR * 4);
        assert_eq!(age_at(0), HOUR, "a clock in 1970 must not drop everything");
    }

    #[test]
    fn one_damaged_record_costs_one_record() {
        let records: Vec<_> = (0..10_u8).map(|n| answer_record(HOUR, &[n], &[n; 30])).collect();
        let head = log_of(&[anchor_record(&anchor(1, HOUR, HOUR))]);
        let mut log = [head.clone(), records.concat()].concat();
        log[head.len() + records[0].len() * 4 + 20] ^= 0x55;
        assert_eq!(loaded(&log, &anchor(1, HOUR, HOUR)).len(), 9);
    }

    proptest! {
        #[test]
        fn a_log_cut_anywhere_gives_every_record_before_the_cut(cut in 0_usize..800) {
            let now = anchor(1, HOUR, HOUR);
            let records: Vec<_> = (0..10_u8).map(|n| answer_record(HOUR, &[n], &[n; 30])).collect();
            let log = [log_of(&[anchor_record(&now)]), records.concat()].concat();
            let cut = cut.min(log.len());
            let head = log.len() - records.concat().len();
            let whole = cut.saturating_sub(head) / records[0].len();
            prop_assert_eq!(loaded(&log[..cut], &now).len(), whole);

            // And the next start appends behind them.
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("cache.log"), &log[..cut]).unwrap();
            let found = load(dir.path(), &now).unwrap();
            let writer = Writer::start(dir.path(), &found, TOO_OLD);
            writer.remember(clock::since_boot(), b"new", b"message");
            writer.finish();
            prop_assert_eq!(load(dir.path(), &Anchor::now()).unwrap().answers.len(), whole + 1);
        }

        #[test]
        fn no_file_panics(bytes: Vec<u8>) {
            loaded(&bytes, &anchor(1, HOUR, HOUR));
            loaded(&[MAGIC.to_vec(), bytes].concat(), &anchor(1, HOUR, HOUR));
        }
    }
}
