//! Loads the answers from both files.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt, fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use dogwatch_dns_core::{
    resolver::{Remembered, RememberedAnswers},
    zones::origin::Origin,
};

use super::{
    LOG, ORIGIN, SNAPSHOT,
    age::{Ages, Anchor, Lapse, Stretches},
    length,
    record::{Answer, Damage, FLAG_CD, FLAG_DO, Forgotten, NoHead, Record, Records, Skipped, salt_of},
    side_by_side,
};

/// The result of loading.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Answers passed on. A question may have several; the youngest comes last.
    pub answers: usize,
    /// What could not be read, per file.
    pub reports: Vec<FileReport>,
    /// Files that were not read, so they must not be overwritten.
    pub(super) unread: Vec<&'static str>,
    /// Files with damage, to be merged at once.
    pub(super) damaged: Vec<&'static str>,
    /// Valid bytes of the log; the rest is cut off.
    pub(super) log_len: usize,
    pub(super) salt: Option<u32>,
}

/// What was lost from one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    pub file: &'static str,
    pub trouble: Trouble,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be read; with the reason.
    Unreadable(String),
    /// Written by another version of dogwatch.
    OtherVersion,
    /// Both heads are damaged, so nothing in it can be verified.
    NoHead,
    Damaged {
        places: usize,
        bytes: usize,
        records: usize,
        named: Vec<Damage>,
    },
    /// Answers from a boot without an anchor, so their age is unknown.
    Undated {
        records: usize,
    },
    /// A kill or power loss during a write.
    Torn {
        offset: usize,
        bytes: usize,
    },
    /// It was longer when it was last synced.
    Shorter {
        bytes: u64,
    },
}

impl FileReport {
    /// Whether no complete record was lost.
    pub fn harmless(&self) -> bool {
        matches!(self.trouble, Trouble::Torn { .. })
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file;
        match &self.trouble {
            Trouble::Unreadable(why) => {
                write!(f, "cannot read {file}: {why}; starting without it; the file is kept as {file}.unread")
            }
            Trouble::OtherVersion => {
                write!(
                    f,
                    "{file} was written by another version of dogwatch; starting without it; the file is kept as {file}.unread"
                )
            }
            Trouble::NoHead => {
                write!(
                    f,
                    "the header of {file} is damaged; starting without it; the file is kept as {file}.unread"
                )
            }
            Trouble::Damaged { places, bytes, records, named } => {
                let named: Vec<_> = named.iter().map(ToString::to_string).collect();
                let more = if *places > named.len() { ", …" } else { "" };
                write!(
                    f,
                    "{file} is damaged: skipped {places} places, about {records} records, {bytes} bytes: {}{more}; the rest \
                     is loaded; the damaged file is kept as {file}.damaged",
                    named.join(", ")
                )
            }
            Trouble::Undated { records } => {
                write!(f, "{file}: skipped {records} answers of unknown age")
            }
            Trouble::Shorter { bytes } => {
                write!(f, "{file} has lost its end ({bytes} bytes); the rest is loaded")
            }
            Trouble::Torn { offset, bytes } => {
                write!(f, "{file}: removed an incomplete write at the end ({bytes} bytes at {offset})")
            }
        }
    }
}

/// Receives the loaded answers.
pub trait Take {
    /// Receives all answers.
    fn take_all(&mut self, answers: Answers<'_>);
}

impl<F: FnMut(&Remembered<'_>)> Take for F {
    fn take_all(&mut self, answers: Answers<'_>) {
        (0..answers.len()).filter_map(|place| answers.get(place)).for_each(|answer| self(&answer));
    }
}

/// The loaded answers, oldest first. A question may have several; the youngest comes last.
#[derive(Clone, Copy)]
pub struct Answers<'a>(&'a [Dated<'a, 'a>]);

impl RememberedAnswers for Answers<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, place: usize) -> Option<Remembered<'_>> {
        self.0.get(place).map(|Dated { lapse, answer, .. }| Remembered {
            message: answer.message,
            dnssec_ok: answer.flags & FLAG_DO != 0,
            checking_disabled: answer.flags & FLAG_CD != 0,
            uses: answer.uses,
            good_for: Duration::from_secs(answer.good_for_s.into()),
            age: lapse.passed,
            unseen: lapse.unseen,
        })
    }
}

/// Reads both files in `dir` and passes the answers to `to`, oldest first. Never fails; problems
/// are in [`Loaded::reports`].
pub fn load(dir: &Path, now: &Anchor, to: &mut dyn Take) -> Loaded {
    let mut files = [(SNAPSHOT, Ok(Vec::new())), (LOG, Ok(Vec::new()))];
    let size: u64 = files.iter().filter_map(|(file, _)| Some(fs::metadata(dir.join(file)).ok()?.len())).sum();
    let threads = if size < WORTH_THREADS as u64 { 1 } else { side_by_side::threads() };
    side_by_side::each(threads, &mut files, |(file, bytes)| *bytes = fs::read(dir.join(file)));
    let mut unreadable = Vec::new();
    let [snapshot, log] = files.map(|(file, bytes)| {
        bytes.unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                let trouble = Trouble::Unreadable(explained(&dir.join(file), &error));
                unreadable.push(FileReport { file, trouble });
            }
            Vec::new()
        })
    });
    let mut loaded = load_bytes(&snapshot, &log, now, to);
    let known = length::read(dir, salt_of(&log)).unwrap_or(0);
    let lost = known.saturating_sub(log.len() as u64);
    if lost > 0 {
        loaded.reports.push(FileReport { file: LOG, trouble: Trouble::Shorter { bytes: lost } });
    }
    loaded.unread.extend(unreadable.iter().map(|report| report.file));
    loaded.reports.extend(unreadable);
    loaded
}

/// Which upstreams the answers came from; `None` if it was not recorded. An error is for the log
/// only.
pub fn load_origin(dir: &Path) -> Result<Option<Origin>, String> {
    let path = dir.join(ORIGIN);
    let advice = "starting without it; the cached names are attributed to the configured upstreams";
    match fs::read(&path) {
        Ok(bytes) => match Origin::from_bytes(&bytes) {
            Ok(origin) => Ok(Some(origin)),
            Err(why) => Err(format!("{ORIGIN} is damaged: {why}; {advice}")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {ORIGIN}: {}; {advice}", explained(&path, &error))),
    }
}

/// The error, with what the operator needs to fix it.
pub(super) fn explained(path: &Path, error: &io::Error) -> String {
    let ours = rustix::process::geteuid().as_raw();
    // The file, or the directory that denies access to it.
    let seen = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?)));
    match seen {
        Some((seen, of)) if error.kind() == ErrorKind::PermissionDenied => format!(
            "{error}: {} is owned by user {} (mode {:03o}), and the cache runs as user {ours}; try: chown -R {ours} {}",
            seen.display(),
            of.uid(),
            of.mode() & 0o777,
            path.parent().unwrap_or(path).display()
        ),
        _ => error.to_string(),
    }
}

/// As [`load`], from bytes.
pub fn load_bytes(snapshot: &[u8], log: &[u8], now: &Anchor, to: &mut dyn Take) -> Loaded {
    let mut loaded = Loaded::default();
    let mut book = Book::default();
    let threads = if snapshot.len() + log.len() < WORTH_THREADS { 1 } else { side_by_side::threads() };
    book.read(SNAPSHOT, snapshot, &mut loaded, threads);
    loaded.log_len = book.read(LOG, log, &mut loaded, threads);
    loaded.salt = salt_of(log).or_else(|| salt_of(snapshot));
    let Book { answers, forgotten, stretches } = book;
    let mut ages = stretches.until(now);
    let mut dated: Vec<_> = Vec::with_capacity(answers.len());
    dated.extend(answers.iter().enumerate().filter_map(|(order, answer)| {
        Some(Dated { lapse: ages.of(answer.boot, answer.at)?, order, answer })
    }));
    let undated = answers.len() - dated.len();
    drop_forgotten(&mut dated, &forgotten, &mut ages);
    if undated > 0 {
        loaded.reports.push(FileReport { file: LOG, trouble: Trouble::Undated { records: undated } });
    }
    // Stable, and fast on nearly sorted input. The youngest comes last: it wins and is evicted
    // last.
    dated.sort_by_key(|dated| Reverse(dated.lapse.passed));
    dated.retain(|dated| dated.lapse.passed <= TOO_OLD);
    loaded.answers = dated.len();
    to.take_all(Answers(&dated));
    loaded
}

/// Below this size, starting a thread takes longer than its work.
const WORTH_THREADS: usize = 512 << 10;

/// An answer with its age.
#[derive(Clone, Copy)]
pub(super) struct Dated<'a, 'b> {
    pub(super) lapse: Lapse,
    /// Its position among all answers read.
    pub(super) order: usize,
    pub(super) answer: &'a Answer<'b>,
}

/// Removes answers that were flushed after they were cached. Within one millisecond, file order
/// decides.
pub(super) fn drop_forgotten(
    dated: &mut Vec<Dated<'_, '_>>,
    forgotten: &[(usize, Forgotten<'_>)],
    ages: &mut Ages,
) {
    let mut flushed = HashMap::new();
    for (answers_before, one) in forgotten {
        if let Some(lapse) = ages.of(one.boot, one.at) {
            let when = (lapse.passed, Reverse(*answers_before));
            let last = flushed.entry((one.question.to_ascii_lowercase(), one.flags)).or_insert(when);
            *last = when.min(*last);
        }
    }
    if flushed.is_empty() {
        return;
    }
    dated.retain(|Dated { lapse, order, answer }| {
        let flushed = flushed.get(&(answer.question().to_ascii_lowercase(), answer.flags));
        flushed.is_none_or(|(passed, Reverse(answers_before))| {
            lapse.passed < *passed || (lapse.passed == *passed && order >= answers_before)
        })
    });
}

/// Older answers are useless: the longest max_stale plus the longest TTL.
pub(super) const TOO_OLD: Duration = Duration::from_hours(8 * 24);

/// Answers in the pieces in which they were read, to avoid copying them.
#[derive(Default)]
pub(super) struct Pieces<'a> {
    pieces: Vec<Vec<Answer<'a>>>,
    len: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Answer<'a>> {
        self.pieces.iter().flatten()
    }

    fn push(&mut self, answer: Answer<'a>) {
        match self.pieces.last_mut() {
            Some(piece) => piece.push(answer),
            None => self.pieces.push(vec![answer]),
        }
        self.len += 1;
    }

    fn add_piece(&mut self, answers: Vec<Answer<'a>>) {
        self.len += answers.len();
        self.pieces.push(answers);
    }
}

/// All records that were read.
#[derive(Default)]
pub(super) struct Book<'a> {
    pub(super) answers: Pieces<'a>,
    /// Each with the number of answers read before it.
    pub(super) forgotten: Vec<(usize, Forgotten<'a>)>,
    pub(super) stretches: Stretches,
}

impl<'a> Book<'a> {
    fn add(&mut self, record: &Record<'a>) {
        match *record {
            Record::Anchor(anchor) => self.stretches.push(anchor),
            Record::Answer(answer) => self.answers.push(answer),
            Record::Forgotten(forgotten) => self.forgotten.push((self.answers.len(), forgotten)),
        }
    }

    /// Reads up to the first damage, on several threads, because the checksums take most of the
    /// time.
    fn read_pieces(&mut self, records: &mut Records<'a>, threads: usize) {
        let mut pieces: Vec<_> = records.pieces().into_iter().map(|piece| (piece, None)).collect();
        side_by_side::each(threads, &mut pieces, |(piece, found)| {
            let mut answers = Vec::with_capacity(piece.len() / TYPICAL_RECORD);
            // Each with the number of answers before it.
            let mut others = Vec::new();
            *found = records
                .read_piece(piece, |record| match record {
                    Record::Answer(answer) => answers.push(answer),
                    other => others.push((answers.len(), other)),
                })
                .map(|()| (answers, others));
        });
        for (piece, found) in pieces {
            let Some((answers, others)) = found else { return };
            let before_piece = self.answers.len();
            for (before, other) in others {
                match other {
                    Record::Forgotten(forgotten) => self.forgotten.push((before_piece + before, forgotten)),
                    other => self.add(&other),
                }
            }
            self.answers.add_piece(answers);
            records.skip_piece(&piece);
        }
    }

    /// Reads one file. Returns the length of its valid part, to which records can be appended.
    pub(super) fn read(
        &mut self,
        file: &'static str,
        bytes: &'a [u8],
        loaded: &mut Loaded,
        threads: usize,
    ) -> usize {
        let mut report = |trouble| loaded.reports.push(FileReport { file, trouble });
        let mut records = match Records::of(bytes) {
            Ok(records) => records,
            Err(NoHead::Empty) => return 0,
            Err(why) => {
                report(match why {
                    NoHead::OtherVersion => Trouble::OtherVersion,
                    NoHead::Empty | NoHead::Damaged => Trouble::NoHead,
                });
                loaded.unread.push(file);
                return 0;
            }
        };
        self.read_pieces(&mut records, threads);
        // The rest after the first damage, if any.
        while let Some(record) = records.next() {
            self.add(&record);
        }
        let end = records.position();
        let torn = bytes.len() - end;
        if torn > 0 && file == SNAPSHOT {
            // A snapshot is complete before it gets its name, so a kill cannot cut it short.
            records.skipped.note(Damage { offset: end, len: torn, why: "the end" }, 1);
        }
        let Skipped { places, bytes: skipped, records: lost, named } = records.skipped;
        if places > 0 {
            report(Trouble::Damaged { places, bytes: skipped, records: lost, named });
            loaded.damaged.push(file);
        }
        if torn > 0 && file == LOG {
            report(Trouble::Torn { offset: end, bytes: torn });
        }
        end
    }
}

/// Length of a record with one address.
const TYPICAL_RECORD: usize = 90;
