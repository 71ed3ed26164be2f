//! Keeps events on disk until alertd has acknowledged them.
//!
//! `spool.log`, all numbers little-endian:
//!
//! ```text
//! header  0  8  "DWSPOOL1"
//!         8  8  epoch of the event numbers; random for a new spool
//!        16  8  first number that was never used, as of the start of this file
//!        24  8  last number acknowledged by alertd, as of the start of this file
//!        32  4  CRC-32 (IEEE) of bytes 0..32
//!
//! record  0  4  F7 'd' 'w' 0A; UTF-8 has no F7, so a search for the next record cannot stop in a payload
//!         4  4  n: length of the payload, at most 1 MiB
//!         8  8  number of the event, or the acknowledged number
//!        16  1  1 event, 2 acknowledgement
//!        17  n  event: JSON of `dogwatch_wire::Event`; acknowledgement: nothing
//!      17+n  4  CRC-32 (IEEE) of bytes 4..17+n
//! ```
//!
//! An event counts as spooled after fdatasync(2). Acknowledgements are not synced: a lost one costs
//! a repeat, which alertd recognizes. Acknowledged events are removed when the file is rewritten
//! ([`dogwatch_daemon::replace`]).
//!
//! Recovery reads the whole file. Bytes that are not an intact record are skipped up to the next
//! one; unreadable bytes at the end are cut off. If there was any damage other than an incomplete
//! last record, the file is kept as `spool.damaged` (only the latest one) and the agent logs it.
//! The next numbers then leave a gap as wide as the damage, because the lost events may have been
//! sent; alertd sees the gap and asks for the states. Without an intact header the epoch is
//! unknown, so a new one starts. No content can make recovery fail or panic.
//!
//! A failed write leaves the file as it was: the next one starts after the last good record.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use dogwatch_daemon::replace::{NewFile, ReplaceError, replace_file};
use dogwatch_wire::{Event, limits};

/// The open file.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    file: File,
    epoch: u64,
    /// End of the last good record.
    length: u64,
    /// Number and size of each event that is not settled, and the sum of the sizes.
    live: VecDeque<(u64, u64)>,
    live_bytes: u64,
    settled: u64,
    /// A failed fsync may have dropped written pages, so only a new file can be trusted after it.
    must_rewrite: bool,
}

/// The content of the spool at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    pub epoch: u64,
    /// The first number that was never used.
    pub next_seq: u64,
    /// alertd has acknowledged the events up to this number.
    pub acked: u64,
    /// All events in the file, including acknowledged ones, in the order of their numbers.
    pub events: Vec<Event>,
    pub damage: Damage,
}

/// The damage in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that are not part of an intact record.
    pub bytes: u64,
    /// There is more damage than an incomplete last record.
    pub corrupt: bool,
}

impl Spool {
    /// Opens or creates the spool in `dir`. A new spool gets `fresh_epoch`.
    pub fn open(dir: &Path, fresh_epoch: u64) -> io::Result<(Self, Recovered)> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let found = recover(&bytes);
        if let Some(found) = &found
            && !found.damage.corrupt
        {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let length = bytes.len() as u64 - found.damage.bytes;
            file.set_len(length)?;
            let mut spool = Self::on(dir, file, found.epoch, length);
            spool.note(&found.events);
            spool.settle(found.acked);
            return Ok((spool, found.clone()));
        }
        if !bytes.is_empty() {
            // Best effort: a full disk must not stop the agent here.
            let _ = fs::write(dir.join(DAMAGED_NAME), &bytes);
        }
        let found = found.unwrap_or_else(|| Recovered {
            epoch: fresh_epoch,
            next_seq: 1,
            acked: 0,
            events: Vec::new(),
            damage: Damage { bytes: bytes.len() as u64, corrupt: !bytes.is_empty() },
        });
        let spool = Self::write_new(dir, found.epoch, found.next_seq, found.acked, &found.events)?;
        Ok((spool, found))
    }

    fn on(dir: &Path, file: File, epoch: u64, length: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            file,
            epoch,
            length,
            live: VecDeque::new(),
            live_bytes: 0,
            settled: 0,
            must_rewrite: false,
        }
    }

    /// Adds events and syncs them. Also writes what is settled, without syncing that. Events that
    /// are in the file already are not added again.
    pub fn append(&mut self, events: &[Event], settled: u64) -> io::Result<()> {
        if self.must_rewrite {
            self.compact(self.last_seq() + 1)?;
        }
        let last = self.last_seq();
        let fresh = &events[events.partition_point(|event| event.seq <= last)..];
        let mut bytes = Vec::new();
        for event in fresh {
            put_event(&mut bytes, event)?;
        }
        if settled > self.settled {
            put_record(&mut bytes, settled, KIND_ACK, &[]);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&bytes, self.length).inspect_err(|_| {
            // Whatever was written is after the end. If this fails too, recovery cuts it off.
            let _ = self.file.set_len(self.length);
        })?;
        if !fresh.is_empty() {
            self.file.sync_data().inspect_err(|_| self.must_rewrite = true)?;
        }
        self.length += bytes.len() as u64;
        self.note(fresh);
        self.settle(settled);
        Ok(())
    }

    /// Starts a new file with these events. If that fails, the old file stays in use.
    pub fn begin(&mut self, epoch: u64, next_seq: u64, settled: u64, events: &[Event]) -> io::Result<()> {
        match Self::write_new(&self.dir, epoch, next_seq, settled, events) {
            Ok(new) => *self = new,
            Err(error) => {
                // The new file has the name already: the open one is no longer in the directory.
                self.must_rewrite |= matches!(error, ReplaceError::NotDurable(_));
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Rewrites the file without the settled events. If that fails, the old file stays in use.
    pub fn compact(&mut self, next_seq: u64) -> io::Result<()> {
        let bytes = fs::read(self.dir.join(NAME))?;
        let found = recover(&bytes).ok_or_else(|| io::Error::other("the spool's header is damaged"))?;
        let (settled, last) = (self.settled, self.last_seq());
        let wanted = |event: &Event| event.seq > settled && event.seq <= last;
        let events: Vec<Event> = found.events.into_iter().filter(wanted).collect();
        self.begin(self.epoch, next_seq, settled, &events)
    }

    /// Whether more than half of the file, and not just a little, is settled.
    pub fn is_worth_compacting(&self) -> bool {
        self.length > COMPACT_BYTES_MIN + 2 * self.live_bytes
    }

    fn write_new(
        dir: &Path,
        epoch: u64,
        next_seq: u64,
        settled: u64,
        events: &[Event],
    ) -> Result<Self, ReplaceError> {
        let mut bytes = header(epoch, next_seq, settled);
        for event in events {
            put_event(&mut bytes, event).map_err(ReplaceError::NotReplaced)?;
        }
        let file = replace_file(&dir.join(NAME), &NewFile::with_mode(0o640), |file| file.write_all(&bytes))?;
        let mut spool = Self::on(dir, file, epoch, bytes.len() as u64);
        spool.note(events);
        spool.settle(settled);
        Ok(spool)
    }

    fn note(&mut self, events: &[Event]) {
        for event in events {
            let bytes = serde_json::to_vec(event).map_or(0, |json| json.len()) as u64;
            self.live.push_back((event.seq, bytes));
            self.live_bytes += bytes;
        }
    }

    fn settle(&mut self, settled: u64) {
        self.settled = self.settled.max(settled);
        while let Some(&(seq, bytes)) = self.live.front()
            && seq <= self.settled
        {
            self.live.pop_front();
            self.live_bytes -= bytes;
        }
    }

    fn last_seq(&self) -> u64 {
        self.live.back().map_or(self.settled, |&(seq, _)| seq)
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Size on disk.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// What can be read of the spool in `dir`, without changing it.
pub fn read(dir: &Path) -> Option<Recovered> {
    recover(&fs::read(dir.join(NAME)).ok()?)
}

/// Keeps a copy of the spool in `dir` as `spool.old`, if there are events in it. Best effort.
pub fn keep_old(dir: &Path) {
    if read(dir).is_some_and(|old| !old.events.is_empty()) {
        let _ = fs::copy(dir.join(NAME), dir.join(OLD_NAME));
    }
}

/// Smaller files are not worth rewriting.
const COMPACT_BYTES_MIN: u64 = 64 * 1_024;

const NAME: &str = "spool.log";
const DAMAGED_NAME: &str = "spool.damaged";
const OLD_NAME: &str = "spool.old";
const MAGIC: &[u8; 8] = b"DWSPOOL1";
const HEADER_BYTES: usize = 36;
const SYNC: &[u8; 4] = b"\xf7dw\n";
/// Sync mark, length, number, kind.
const RECORD_HEAD_BYTES: usize = 17;
const CRC_BYTES: usize = 4;
const KIND_EVENT: u8 = 1;
const KIND_ACK: u8 = 2;

fn header(epoch: u64, next_seq: u64, acked: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for number in [epoch, next_seq, acked] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn put_event(to: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    let json = serde_json::to_vec(event).map_err(io::Error::other)?;
    put_record(to, event.seq, KIND_EVENT, &json);
    Ok(())
}

fn put_record(to: &mut Vec<u8>, seq: u64, kind: u8, payload: &[u8]) {
    let start = to.len();
    to.extend(SYNC);
    to.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend(seq.to_le_bytes());
    to.push(kind);
    to.extend(payload);
    let crc = crc32fast::hash(&to[start + SYNC.len()..]);
    to.extend(crc.to_le_bytes());
}

/// Reads all intact records; `None` if the header is damaged.
fn recover(bytes: &[u8]) -> Option<Recovered> {
    let (head, crc) = bytes.get(..HEADER_BYTES)?.split_at(HEADER_BYTES - CRC_BYTES);
    if !head.starts_with(MAGIC) || crc32fast::hash(head).to_le_bytes() != *crc {
        return None;
    }
    let mut found = Recovered {
        epoch: u64_at(head, 8)?,
        next_seq: u64_at(head, 16)?.max(1),
        acked: u64_at(head, 24)?,
        events: Vec::new(),
        damage: Damage::default(),
    };
    let mut at = HEADER_BYTES;
    let mut damaged_before_intact = 0;
    while at < bytes.len() {
        if let Some((record, length)) = record_at(&bytes[at..]) {
            damaged_before_intact = found.damage.bytes;
            take(record, &mut found);
            at += length;
        } else {
            let next = next_sync(bytes, at + 1);
            found.damage.bytes += (next - at) as u64;
            at = next;
        }
    }
    let tail =
        &bytes[bytes.len() - usize::try_from(found.damage.bytes - damaged_before_intact).unwrap_or(0)..];
    found.damage.corrupt = damaged_before_intact > 0 || !is_torn(tail);
    found.next_seq = found.next_seq.max(found.acked.saturating_add(1)).saturating_add(found.damage.bytes);
    Some(found)
}

enum Record {
    Event(Event),
    Ack(u64),
}

fn take(record: Record, found: &mut Recovered) {
    match record {
        // A number that does not grow was written again after a failed write. The first one counts.
        Record::Event(event) if found.events.last().is_none_or(|last| last.seq < event.seq) => {
            found.next_seq = found.next_seq.max(event.seq.saturating_add(1));
            found.events.push(event);
        }
        Record::Event(_) => {}
        Record::Ack(seq) => found.acked = found.acked.max(seq),
    }
}

/// The intact record at the start of `bytes`, and its length.
fn record_at(bytes: &[u8]) -> Option<(Record, usize)> {
    let payload_bytes = claimed_payload(bytes)?;
    let end = RECORD_HEAD_BYTES + payload_bytes;
    let checked = bytes.get(SYNC.len()..end)?;
    if bytes.get(end..end + CRC_BYTES)? != crc32fast::hash(checked).to_le_bytes() {
        return None;
    }
    let seq = u64_at(bytes, 8)?;
    let record = match bytes[16] {
        KIND_EVENT => {
            let event: Event = serde_json::from_slice(&bytes[RECORD_HEAD_BYTES..end]).ok()?;
            if event.seq != seq {
                return None;
            }
            Record::Event(event)
        }
        KIND_ACK => Record::Ack(seq),
        _ => return None,
    };
    Some((record, end + CRC_BYTES))
}

fn claimed_payload(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(SYNC) {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?)).ok()?;
    (length <= limits::BODY_BYTES_MAX).then_some(length)
}

/// Whether this is the start of a record whose rest was never written.
fn is_torn(tail: &[u8]) -> bool {
    let begins = tail.len() < SYNC.len() && SYNC.starts_with(tail);
    let short = tail.len() >= SYNC.len()
        && tail.starts_with(SYNC)
        && (tail.len() < RECORD_HEAD_BYTES
            || claimed_payload(tail)
                .is_some_and(|payload| tail.len() < RECORD_HEAD_BYTES + payload + CRC_BYTES));
    tail.is_empty() || begins || short
}

fn next_sync(bytes: &[u8], from: usize) -> usize {
    let found = bytes[from..].windows(SYNC.len()).position(|window| window == SYNC);
    found.map_or(bytes.len(), |offset| from + offset)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use dogwatch_wire::EventKind;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn appended_events_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, found) = Spool::open(dir.path(), 7).unwrap();
        assert_eq!((found.epoch, found.next_seq, found.events.len()), (7, 1, 0));
        spool.append(&[event(1), event(2)], 0).unwrap();
        spool.append(&[event(3)], 1).unwrap();
        let (_, found) = Spool::open(dir.path(), 8).unwrap();
        let expected = Recovered {
            epoch: 7,
            next_seq: 4,
            acked: 1,
            events: vec![event(1), event(2), event(3)],
            damage: Damage::default(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rewritten_spool_keeps_its_numbers_even_if_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path(), 7).unwrap();
        spool.append(&[event(1), event(2)], 2).unwrap();
        let before = spool.length();
        spool.compact(3).unwrap();
        assert!(spool.length() < before);
        let (_, found) = Spool::open(dir.path(), 8).unwrap();
        assert_eq!((found.epoch, found.next_seq, found.acked, found.events.len()), (7, 3, 2, 0));
    }

    #[test]
    fn an_incomplete_record_is_cut_off_and_the_spool_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path(), 7).unwrap();
        spool.append(&[event(1), event(2)], 0).unwrap();
        let bytes = fs::read(dir.path().join(NAME)).unwrap();
        fs::write(dir.path().join(NAME), &bytes[..bytes.len() - 3]).unwrap();
        let (mut spool, found) = Spool::open(dir.path(), 8).unwrap();
        assert_eq!((found.epoch, found.events.clone()), (7, vec![event(1)]));
        assert!(!found.damage.corrupt && found.damage.bytes > 0);
        assert!(found.next_seq > 2, "number 2 may have been sent");
        assert!(!dir.path().join(DAMAGED_NAME).exists());
        spool.append(&[event(found.next_seq)], 0).unwrap();
        let (_, found) = Spool::open(dir.path(), 9).unwrap();
        assert_eq!((found.events.len(), found.damage), (2, Damage::default()));
    }

    #[test]
    fn a_flipped_byte_costs_only_its_record_and_the_damaged_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path(), 7).unwrap();
        spool.append(&[event(1), event(2), event(3)], 0).unwrap();
        let mut bytes = fs::read(dir.path().join(NAME)).unwrap();
        let second = HEADER_BYTES + (bytes.len() - HEADER_BYTES) / 2;
        bytes[second] ^= 0x10;
        fs::write(dir.path().join(NAME), &bytes).unwrap();
        let (_, found) = Spool::open(dir.path(), 8).unwrap();
        assert_eq!((found.epoch, found.events.clone()), (7, vec![event(1), event(3)]));
        assert!(found.damage.corrupt && found.next_seq > 4);
        assert_eq!(fs::read(dir.path().join(DAMAGED_NAME)).unwrap(), bytes);
        let (_, again) = Spool::open(dir.path(), 9).unwrap();
        assert_eq!((again.events, again.next_seq), (found.events, found.next_seq));
    }

    #[test]
    fn without_an_intact_header_a_new_epoch_starts() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), b"not a spool at all").unwrap();
        let (spool, found) = Spool::open(dir.path(), 8).unwrap();
        assert_eq!((spool.epoch(), found.epoch, found.next_seq), (8, 8, 1));
        assert!(found.damage.corrupt);
    }

    proptest! {
        #[test]
        fn cut_anywhere_it_yields_a_prefix(count in 1_u64..6, cut in any::<prop::sample::Index>()) {
            let bytes = file(count);
            let kept = cut.index(bytes.len() + 1);
            let events: Vec<Event> = (1..=count).map(event).collect();
            if let Some(found) = recover(&bytes[..kept]) {
                prop_assert!(events.starts_with(&found.events));
                prop_assert!(!found.damage.corrupt, "a cut is a torn tail: {:?}", found.damage);
                prop_assert_eq!(kept == bytes.len(), found.events.len() as u64 == count);
            } else {
                prop_assert!(kept < HEADER_BYTES);
            }
        }

        #[test]
        fn with_any_byte_changed_it_yields_all_records_but_one(
            count in 1_u64..6, at in any::<prop::sample::Index>(), flip in 1_u8..,
        ) {
            let mut bytes = file(count);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let Some(found) = recover(&bytes) else {
                prop_assert!(at < HEADER_BYTES);
                return Ok(());
            };
            prop_assert_eq!(found.events.len() as u64, count - 1);
            prop_assert!(found.events.iter().all(|found| *found == event(found.seq)));
            prop_assert!(found.next_seq > count, "a lost number is not used again");
        }

        #[test]
        fn no_content_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), keep_header: bool) {
            if keep_header {
                bytes.splice(0..0, header(1, 2, 3));
            }
            if let Some(found) = recover(&bytes) {
                prop_assert!(found.next_seq >= 1);
            }
        }
    }

    fn file(count: u64) -> Vec<u8> {
        let mut bytes = header(7, 1, 0);
        for seq in 1..=count {
            put_record(&mut bytes, seq, KIND_EVENT, &serde_json::to_vec(&event(seq)).unwrap());
        }
        bytes
    }

    fn event(seq: u64) -> Event {
        let kind = EventKind::Removed { service: format!("disk-{seq}") };
        Event { seq, at: Timestamp::UNIX_EPOCH, kind }
    }
}
