//! The format of `history.ring`, version 1. All numbers are little-endian.
//!
//! ```text
//! 0       "dogwatch history 1\n", zeros up to 4096
//! 4096    directory: SERIES_MAX entries of ENTRY_BYTES
//! …       fine tier, middle tier, long tier: rows of ROW_BYTES
//! ```
//!
//! An entry names the series of one column, and since when the column is about it. A row has the
//! number of its slot (seconds since 1970 / step), a CRC-32 of the rest, and three `f32` for each
//! column: least, average, greatest; NaN means no value. The row of slot `n` is at `n mod rows`, so
//! a row is in use if its number is right; what a kill or a torn write leaves behind is not.

use super::{Key, Point};

/// One tier of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Seconds of one row.
    pub step: i64,
    pub rows: i64,
    /// Where its first row is in the file.
    pub offset: u64,
}

/// How many series a host can have.
pub const SERIES_MAX: usize = 200;
pub const HEAD: &[u8] = b"dogwatch history 1\n";
const HEAD_BYTES: u64 = 4_096;
pub const ENTRY_BYTES: usize = 256;
pub const ROW_BYTES: usize = 8 + SERIES_MAX * 12;

pub const FINE: Tier = Tier { step: 60, rows: 48 * 60, offset: TIERS_OFFSET };
pub const MIDDLE: Tier = Tier { step: 600, rows: 14 * 144, offset: after(FINE) };
pub const LONG: Tier = Tier { step: 3_600, rows: 400 * 24, offset: after(MIDDLE) };
pub const TIERS: [Tier; 3] = [FINE, MIDDLE, LONG];
/// Size of the whole file.
pub const FILE_BYTES: u64 = after(LONG);

const TIERS_OFFSET: u64 = HEAD_BYTES + (SERIES_MAX * ENTRY_BYTES) as u64;

const fn after(tier: Tier) -> u64 {
    tier.offset + tier.rows.unsigned_abs() * ROW_BYTES as u64
}

impl Tier {
    pub fn slot(self, unix: i64) -> i64 {
        unix.div_euclid(self.step)
    }

    /// Where the row of a slot is in the file.
    pub fn row_offset(self, slot: i64) -> u64 {
        self.offset + slot.rem_euclid(self.rows).unsigned_abs() * ROW_BYTES as u64
    }

    /// Seconds that the whole tier covers.
    pub fn span(self) -> i64 {
        self.step * self.rows
    }
}

/// The smallest tier that goes back that far.
pub fn tier_for(seconds: i64) -> Tier {
    TIERS.into_iter().find(|tier| tier.span() >= seconds).unwrap_or(LONG)
}

/// Where an entry of the directory is in the file.
pub fn entry_offset(column: usize) -> u64 {
    HEAD_BYTES + (column * ENTRY_BYTES) as u64
}

/// The series of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Key,
    pub unit: String,
    pub max: Option<f64>,
    /// Seconds since 1970. Older values in the column belong to another series.
    pub since: i64,
    /// When the series last had a value, to the day.
    pub used: i64,
}

/// One value of one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    pub min: f32,
    pub avg: f32,
    pub max: f32,
}

impl Cell {
    pub const NONE: Self = Self { min: f32::NAN, avg: f32::NAN, max: f32::NAN };

    pub fn is_some(self) -> bool {
        !self.avg.is_nan()
    }

    pub fn point(self, tier: Tier, slot: i64) -> Option<Point> {
        let Self { min, avg, max } = self;
        self.is_some().then_some(Point { at: slot * tier.step, step: tier.step, min, avg, max })
    }
}

/// The bytes of a row.
pub fn encode_row(slot: i64, cells: &[Cell]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 8];
    for column in 0..SERIES_MAX {
        let cell = cells.get(column).copied().unwrap_or(Cell::NONE);
        for number in [cell.min, cell.avg, cell.max] {
            bytes.extend(number.to_le_bytes());
        }
    }
    // In 32 bits: minutes until the year 10135.
    let number = u32::try_from(slot).unwrap_or(0).to_le_bytes();
    bytes[..4].copy_from_slice(&number);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number);
    crc.update(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    bytes
}

/// The cells of a row, if it is intact and of this slot.
pub fn decode_row(bytes: &[u8], slot: i64) -> Option<Vec<Cell>> {
    let (number, rest) = bytes.get(..ROW_BYTES)?.split_at(4);
    let (crc, cells) = rest.split_at(4);
    let mut right = crc32fast::Hasher::new();
    right.update(number);
    right.update(cells);
    let is_this = u32::try_from(slot).is_ok_and(|slot| slot.to_le_bytes() == number);
    if !is_this || right.finalize().to_le_bytes() != crc {
        return None;
    }
    let mut numbers =
        cells.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default()));
    let mut row = Vec::with_capacity(SERIES_MAX);
    while let (Some(min), Some(avg), Some(max)) = (numbers.next(), numbers.next(), numbers.next()) {
        row.push(Cell { min, avg, max });
    }
    Some(row)
}

/// The bytes of an entry; `None` if its names are too long.
pub fn encode_entry(entry: &Entry) -> Option<[u8; ENTRY_BYTES]> {
    let mut bytes = [0_u8; ENTRY_BYTES];
    let names = format!("{}\0{}\0{}", entry.key.service, entry.key.label, entry.unit);
    let length = u8::try_from(names.len()).ok().filter(|&length| usize::from(length) <= NAMES_BYTES)?;
    bytes[4..12].copy_from_slice(&entry.since.to_le_bytes());
    bytes[12..20].copy_from_slice(&entry.used.to_le_bytes());
    bytes[20..28].copy_from_slice(&entry.max.unwrap_or(f64::NAN).to_le_bytes());
    bytes[28] = length;
    bytes[29..29 + names.len()].copy_from_slice(names.as_bytes());
    let crc = crc32fast::hash(&bytes[4..]).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
    Some(bytes)
}

/// `None` for an entry that is empty or damaged.
pub fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let bytes = bytes.get(..ENTRY_BYTES)?;
    if crc32fast::hash(&bytes[4..]).to_le_bytes() != bytes[..4] {
        return None;
    }
    let eight = |at: usize| bytes[at..at + 8].try_into().unwrap_or_default();
    let max = f64::from_le_bytes(eight(20));
    let names = std::str::from_utf8(bytes.get(29..29 + usize::from(bytes[28]))?).ok()?;
    let mut names = names.splitn(3, '\0').map(str::to_owned);
    let key = Key { service: names.next().filter(|name| !name.is_empty())?, label: names.next()? };
    Some(Entry {
        key,
        unit: names.next()?,
        max: (!max.is_nan()).then_some(max),
        since: i64::from_le_bytes(eight(4)),
        used: i64::from_le_bytes(eight(12)),
    })
}

const NAMES_BYTES: usize = ENTRY_BYTES - 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_within_its_budget() {
        const { assert!(FILE_BYTES <= 40 * 1_024 * 1_024) }
        // Rows written a day, each rounded up to two pages.
        let rows: i64 = TIERS.iter().map(|tier| 86_400 / tier.step).sum();
        assert!(rows * 2 * 4_096 < 30_000_000, "{rows} rows a day");
    }

    #[test]
    fn a_row_reads_back_and_a_damaged_or_older_one_does_not() {
        let cells = [Cell { min: 1.0, avg: 2.0, max: 3.0 }, Cell::NONE];
        let mut bytes = encode_row(29_400_000, &cells);
        let row = decode_row(&bytes, 29_400_000).unwrap();
        assert_eq!(row.len(), SERIES_MAX);
        assert_eq!(row[0], cells[0]);
        assert!(!row[1].is_some() && !row[199].is_some());
        assert_eq!(decode_row(&bytes, 29_400_000 + FINE.rows), None, "the same place, two days later");
        for at in [0, 5, 9, 2_000] {
            bytes[at] ^= 1;
            assert_eq!(decode_row(&bytes, 29_400_000), None, "{at}");
            bytes[at] ^= 1;
        }
        assert_eq!(decode_row(&bytes[..100], 29_400_000), None);
        assert_eq!(decode_row(&vec![0; ROW_BYTES], 0), None, "a hole in the file");
    }

    #[test]
    fn an_entry_reads_back_and_a_long_name_has_no_entry() {
        let key = Key { service: "disk /var".into(), label: "/var".into() };
        let entry = Entry { key, unit: "B".into(), max: Some(1e12), since: 17, used: 18 };
        let bytes = encode_entry(&entry).unwrap();
        assert_eq!(decode_entry(&bytes), Some(entry.clone()));
        assert_eq!(decode_entry(&[0; ENTRY_BYTES]), None);
        let long = Key { service: "x".repeat(250), label: String::new() };
        assert_eq!(encode_entry(&Entry { key: long, ..entry }), None);
    }

    #[test]
    fn the_finest_tier_that_goes_back_far_enough_is_used() {
        assert_eq!(tier_for(3_600), FINE);
        assert_eq!(tier_for(7 * 86_400), MIDDLE);
        assert_eq!(tier_for(10_000 * 86_400), LONG);
    }
}
