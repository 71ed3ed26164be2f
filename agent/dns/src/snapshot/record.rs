//! Reads and writes the file format, which [`super`] specifies. Reading accepts any bytes, and its
//! time is bounded.

use std::{fmt, ops::Range, time::Duration};

use dogwatch_dns_core::message::wire;

use super::age::Anchor;

const MAGIC: &[u8; 8] = b"DWDNS002";
const MAGIC_STEM: &[u8] = b"DWDNS";
const MARK: &[u8; 4] = b"REC!";
const RECORD_HEAD: usize = 12;
const HEAD_LEN: usize = 16;
/// Both heads.
pub(super) const FILE_HEAD: usize = 2 * HEAD_LEN;
const KIND_ANCHOR: u8 = 1;
const KIND_ANSWER: u8 = 2;
const KIND_FORGOTTEN: u8 = 3;
const ANSWER_HEAD: usize = 20;
/// The longest answer.
const PAYLOAD_MAX: usize = ANSWER_HEAD + u16::MAX as usize;
/// Bytes that a thread reads at a time; takes a little less than half a millisecond.
const PIECE: usize = 256 << 10;
/// Damaged places that are listed; more are only counted.
const NAMED_MAX: usize = 8;

pub(super) const FLAG_DO: u8 = 1;
pub(super) const FLAG_CD: u8 = 2;

/// An answer in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The first four bytes of the boot ID.
    pub(super) boot: u32,
    pub(super) at: Duration,
    pub(super) uses: u16,
    pub(super) good_for_s: u32,
    pub(super) flags: u8,
    pub(super) message: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Name, type and class from the message; empty if it has no question.
    pub(super) fn question(&self) -> &'a [u8] {
        let end = wire::read_question(self.message).map_or(0, |(_, end)| end);
        self.message.get(wire::HEADER_LEN..end).unwrap_or_default()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Anchor(Anchor),
    Answer(Answer<'a>),
    Forgotten(Forgotten<'a>),
}

/// A question whose answers up to `at` were flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forgotten<'a> {
    pub(super) boot: u32,
    pub(super) at: Duration,
    pub(super) flags: u8,
    /// Name, type and class.
    pub(super) question: &'a [u8],
}

/// A part of a file that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub offset: usize,
    pub len: usize,
    pub why: &'static str,
}

/// The damage that the reader of a file skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) places: usize,
    pub(super) bytes: usize,
    /// Records that seem to begin in the skipped parts.
    pub(super) records: usize,
    /// The first places.
    pub(super) named: Vec<Damage>,
}

impl Skipped {
    pub(super) fn note(&mut self, damage: Damage, records: usize) {
        self.places += 1;
        self.bytes += damage.len;
        self.records += records;
        if self.named.len() < NAMED_MAX {
            self.named.push(damage);
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {} ({})", self.len, self.offset, self.why)
    }
}

/// Why a file has no valid head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// Too short: a crash while the file was created.
    Empty,
    OtherVersion,
    Damaged,
}

/// Reads a file record by record.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: u32,
    /// Bytes that may still be spent on checksums of invalid records, so that no file takes
    /// forever.
    patience: usize,
    pub(super) skipped: Skipped,
}

impl<'a> Records<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, NoHead> {
        let salt = salt_of(bytes).ok_or_else(|| {
            let named = bytes.first_chunk::<8>().filter(|name| name.starts_with(MAGIC_STEM));
            let other = named.is_some_and(|name| name != MAGIC);
            match bytes.len() {
                0..HEAD_LEN if !other => NoHead::Empty,
                _ if other => NoHead::OtherVersion,
                _ => NoHead::Damaged,
            }
        })?;
        let patience = bytes.len().saturating_mul(4) + PAYLOAD_MAX;
        let mut records = Self { bytes, at: FILE_HEAD, salt, patience, skipped: Skipped::default() };
        let head = bytes.get(..FILE_HEAD);
        if head.is_some_and(|head| head != file_head(salt)) {
            records.skipped.note(Damage { offset: 0, len: HEAD_LEN, why: "one of the two heads" }, 0);
        }
        Ok(records)
    }

    /// The current position. After the last record, the bytes from here on are torn.
    pub(super) fn position(&self) -> usize {
        self.at.min(self.bytes.len())
    }

    /// Splits the following records, found by their lengths alone, into pieces of about [`PIECE`]
    /// bytes.
    pub(super) fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (self.at, self.at);
        while let Some(end) =
            self.bytes.get(at..).and_then(<[u8]>::first_chunk).and_then(|head| end_of(head, at))
            && end <= self.bytes.len()
        {
            at = end;
            if at - start >= PIECE {
                pieces.push(start..at);
                start = at;
            }
        }
        if at > start {
            pieces.push(start..at);
        }
        pieces
    }

    /// Reads such a piece. `None` if anything in it is damaged.
    pub(super) fn read_piece(&self, piece: &Range<usize>, mut see: impl FnMut(Record<'a>)) -> Option<()> {
        let bytes = self.bytes.get(..piece.end)?;
        let mut records = Self { bytes, at: piece.start, skipped: Skipped::default(), ..*self };
        while records.at < piece.end {
            let payload = records.whole(records.at).ok()?;
            records.at += RECORD_HEAD + payload.len();
            see(read_payload(payload)?);
        }
        Some(())
    }

    /// Continues after this piece, which was read.
    pub(super) fn skip_piece(&mut self, piece: &Range<usize>) {
        self.at = piece.end;
    }

    pub(super) fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let start = self.at;
            let (payload, why) = match self.whole(start) {
                Ok(payload) => (Some(payload), ""),
                Err(why) => (None, why),
            };
            if let Some(payload) = payload {
                self.at = start + RECORD_HEAD + payload.len();
                match read_payload(payload) {
                    Some(record) => return Some(record),
                    None => self
                        .skipped
                        .note(Damage { offset: start, len: self.at - start, why: "unknown record kind" }, 1),
                }
                continue;
            }
            let (next, records) = self.next_whole(start)?;
            self.at = next;
            self.skipped.note(Damage { offset: start, len: next - start, why }, records);
        }
    }

    /// The position of the next valid record after `start`, and how many records seem to begin
    /// before it.
    fn next_whole(&mut self, start: usize) -> Option<(usize, usize)> {
        let mut from = start + 1;
        let mut records = 1;
        loop {
            let rest = self.bytes.get(from..)?;
            let next = from + rest.windows(MARK.len()).position(|window| window == MARK)?;
            if self.whole(next).is_ok() {
                return Some((next, records));
            }
            records += 1;
            from = next + 1;
        }
    }

    fn whole(&mut self, at: usize) -> Result<&'a [u8], &'static str> {
        const CUT: &str = "cut short";
        let bytes = self.bytes;
        let head = bytes.get(at..).and_then(<[u8]>::first_chunk::<RECORD_HEAD>).ok_or(CUT)?;
        if head[..4] != *MARK {
            return Err("no record starts here");
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if length > PAYLOAD_MAX {
            return Err("impossible length");
        }
        let payload = bytes.get(at + RECORD_HEAD..at + RECORD_HEAD + length).ok_or(CUT)?;
        if salted_crc(self.salt, payload) == crc {
            return Ok(payload);
        }
        match self.patience.checked_sub(length) {
            Some(left) => self.patience = left,
            // Stop searching: nothing is found from here on.
            None => self.bytes = &bytes[..at],
        }
        Err("checksum")
    }
}

/// The end of the record that begins at `at` with this head.
fn end_of(head: &[u8; RECORD_HEAD], at: usize) -> Option<usize> {
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    (head[..4] == *MARK && length <= PAYLOAD_MAX).then_some(at + RECORD_HEAD + length)
}

/// The salt in the first valid head.
pub(super) fn salt_of(bytes: &[u8]) -> Option<u32> {
    let heads = bytes.get(..FILE_HEAD.min(bytes.len()))?.as_chunks::<HEAD_LEN>().0;
    heads.iter().find_map(|head| {
        let (named, crc) = head.split_at(HEAD_LEN - 4);
        let right = named.starts_with(MAGIC) && crc32fast::hash(named).to_le_bytes() == crc;
        right.then(|| u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
    })
}

/// The start of every file.
pub(super) fn file_head(salt: u32) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    for copy in head.as_chunks_mut::<HEAD_LEN>().0 {
        copy[..8].copy_from_slice(MAGIC);
        copy[8..12].copy_from_slice(&salt.to_le_bytes());
        let crc = crc32fast::hash(&copy[..12]);
        copy[12..].copy_from_slice(&crc.to_le_bytes());
    }
    head
}

fn salted_crc(salt: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(payload);
    hasher.finalize()
}

fn read_payload(payload: &[u8]) -> Option<Record<'_>> {
    let (&kind, fields) = payload.split_first()?;
    match kind {
        KIND_ANCHOR => {
            let (boot, fields) = fields.split_first_chunk::<16>()?;
            let (at, fields) = fields.split_first_chunk::<8>()?;
            let wall = fields.first_chunk::<8>()?;
            let at = Duration::from_millis(u64::from_le_bytes(*at));
            Some(Record::Anchor(Anchor::of(*boot, at, i64::from_le_bytes(*wall))))
        }
        KIND_ANSWER => {
            let (boot, fields) = fields.split_first_chunk::<4>()?;
            let (at, fields) = fields.split_first_chunk::<8>()?;
            let (uses, fields) = fields.split_first_chunk::<2>()?;
            let (good_for, fields) = fields.split_first_chunk::<4>()?;
            let (&flags, message) = fields.split_first()?;
            Some(Record::Answer(Answer {
                boot: u32::from_le_bytes(*boot),
                at: Duration::from_millis(u64::from_le_bytes(*at)),
                uses: u16::from_le_bytes(*uses),
                good_for_s: u32::from_le_bytes(*good_for),
                flags,
                message,
            }))
        }
        KIND_FORGOTTEN => {
            let (boot, fields) = fields.split_first_chunk::<4>()?;
            let (at, fields) = fields.split_first_chunk::<8>()?;
            let (&flags, question) = fields.split_first()?;
            let (boot, at) = (u32::from_le_bytes(*boot), Duration::from_millis(u64::from_le_bytes(*at)));
            Some(Record::Forgotten(Forgotten { boot, at, flags, question }))
        }
        _ => None,
    }
}

pub(super) fn push_forgotten(out: &mut Vec<u8>, salt: u32, forgotten: &Forgotten<'_>) {
    push_record(out, salt, |out| {
        out.push(KIND_FORGOTTEN);
        out.extend(forgotten.boot.to_le_bytes());
        out.extend(millis(forgotten.at).to_le_bytes());
        out.push(forgotten.flags);
        out.extend(forgotten.question);
    });
}

pub(super) fn push_anchor(out: &mut Vec<u8>, salt: u32, anchor: &Anchor) {
    push_record(out, salt, |out| {
        out.push(KIND_ANCHOR);
        out.extend(anchor.boot);
        out.extend(millis(anchor.at).to_le_bytes());
        out.extend(anchor.wall_ms.to_le_bytes());
    });
}

pub(super) fn push_answer(out: &mut Vec<u8>, salt: u32, answer: &Answer<'_>) {
    push_record(out, salt, |out| {
        out.push(KIND_ANSWER);
        out.extend(answer.boot.to_le_bytes());
        out.extend(millis(answer.at).to_le_bytes());
        out.extend(answer.uses.to_le_bytes());
        out.extend(answer.good_for_s.to_le_bytes());
        out.push(answer.flags);
        out.extend(answer.message);
    });
}

/// The length of an answer's record.
pub(super) fn record_len(answer: &Answer<'_>) -> usize {
    RECORD_HEAD + ANSWER_HEAD + answer.message.len()
}

pub(super) fn push_record(out: &mut Vec<u8>, salt: u32, payload: impl FnOnce(&mut Vec<u8>)) {
    out.extend(MARK);
    let head = out.len();
    out.extend([0; 8]);
    payload(out);
    let (head, payload) = out[head..].split_at_mut(8);
    head[..4].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    head[4..].copy_from_slice(&salted_crc(salt, payload).to_le_bytes());
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
