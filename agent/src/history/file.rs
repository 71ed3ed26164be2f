//! Reads and writes `history.ring`. Only this file knows the disk.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    Earlier, Key, Point, Sample,
    fold::{Fold, Row},
    layout::{
        self, ENTRY_BYTES, Entry, FILE_BYTES, FINE, HEAD, LONG, ROW_BYTES, SERIES_MAX, TIERS, Tier,
        encode_entry, encode_row,
    },
};

const WEEK_S: i64 = 7 * 86_400;

/// The name of the file in the state directory.
pub const NAME: &str = "history.ring";
const DAMAGED_NAME: &str = "history.damaged";

/// The open file, for the one process that writes it.
#[derive(Debug)]
pub struct History {
    file: File,
    entries: Vec<Option<Entry>>,
    columns: HashMap<Key, usize>,
    /// All columns are taken at least until then, in seconds since 1970.
    full_until: i64,
    fold: Fold,
    refused: u64,
    damage: Damage,
}

/// What was damaged when the file was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// It was shorter than it is made, or another file had its name.
    pub cut: bool,
    /// Rows that are not as they were written: damage, or a write that power loss interrupted.
    pub rows: u64,
    /// Series that are no longer known by name.
    pub series: u64,
}

impl Damage {
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl History {
    /// Opens the file in `dir`, or creates it. A file that is not one of ours is kept as
    /// `history.damaged`. `now` is in seconds since 1970.
    pub fn open(dir: &Path, now: i64) -> io::Result<Self> {
        let path = dir.join(NAME);
        let mut cut = false;
        if let Ok(file) = File::open(&path) {
            if !has_head(&file) {
                std::fs::rename(&path, dir.join(DAMAGED_NAME))?;
                cut = true;
            } else if file.metadata()?.len() != FILE_BYTES {
                cut = true;
            }
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path)?;
        if !has_head(&file) {
            file.write_all_at(HEAD, 0)?;
        }
        // Sparse: it takes space as it is used.
        file.set_len(FILE_BYTES)?;
        let entries: Vec<_> = (0..SERIES_MAX).map(|column| read_entry(&file, column)).collect();
        let known = entries.iter().enumerate().rev();
        let columns =
            known.filter_map(|(column, entry)| Some((entry.as_ref()?.key.clone(), column))).collect();
        let fold = Fold::default();
        let damage = Damage { cut, ..damage(&file, &entries) };
        let mut history = Self { file, entries, columns, full_until: i64::MIN, fold, refused: 0, damage };
        history.resume(now);
        Ok(history)
    }

    /// The rows in progress when the agent stopped.
    fn resume(&mut self, now: i64) {
        let hour = now - now.rem_euclid(3_600);
        for slot in FINE.slot(hour)..=FINE.slot(now) {
            let Some(cells) = read_row(&self.file, FINE, slot) else { continue };
            for (column, cell) in cells.into_iter().enumerate() {
                let known = self.entries.get(column).is_some_and(Option::is_some);
                if known && cell.is_some() {
                    self.fold.resume(now, slot * FINE.step, column, cell);
                }
            }
        }
    }

    /// Records a value, and writes the rows that end with it. Returns whether there was room for
    /// its series.
    pub fn record(&mut self, sample: &Sample) -> io::Result<bool> {
        let unix = sample.at.as_second();
        let Some(column) = self.column(sample, unix)? else {
            self.refused += 1;
            return Ok(false);
        };
        for row in self.fold.add(column, sample.value, unix) {
            self.write(&row)?;
        }
        Ok(true)
    }

    /// Writes the rows in progress, before the agent stops.
    pub fn finish(&mut self) -> io::Result<()> {
        for row in self.fold.unfinished() {
            self.write(&row)?;
        }
        Ok(())
    }

    /// The average of every series in the same hour a week before `unix` (seconds since 1970).
    pub fn a_week_before(&self, unix: i64) -> Earlier {
        let slot = LONG.slot(unix - WEEK_S);
        let cells = read_row(&self.file, LONG, slot).unwrap_or_default();
        let known = self.entries.iter().enumerate();
        known
            .filter_map(|(column, entry)| Some((column, entry.as_ref()?)))
            .filter(|(_, entry)| entry.since <= (slot + 1) * LONG.step)
            .filter_map(|(column, entry)| {
                let point = cells.get(column)?.point(LONG, slot)?;
                Some((entry.key.clone(), point.avg))
            })
            .collect()
    }

    /// What was damaged when the file was opened.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Values that were not recorded, because all columns are taken.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn write(&self, row: &Row) -> io::Result<()> {
        self.file.write_all_at(&encode_row(row.slot, &row.cells), row.tier.row_offset(row.slot))
    }

    /// The column of a series; a new one, or that of a series which has had no value for a week.
    fn column(&mut self, sample: &Sample, unix: i64) -> io::Result<Option<usize>> {
        if let Some(&column) = self.columns.get(&sample.key) {
            if let Some(Some(entry)) = self.entries.get_mut(column)
                && (entry.used / DAY != unix / DAY || entry.max != sample.max)
            {
                entry.used = unix;
                entry.max = sample.max;
                let entry = entry.clone();
                self.write_entry(column, &entry)?;
            }
            return Ok(Some(column));
        }
        if unix <= self.full_until {
            return Ok(None);
        }
        let free = self.entries.iter().position(Option::is_none).or_else(|| {
            let used = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.used);
            let (column, oldest) = self.entries.iter().enumerate().min_by_key(|(_, entry)| used(entry))?;
            self.full_until = used(oldest) + UNUSED_AFTER;
            (unix > self.full_until).then_some(column)
        });
        let Some(column) = free else { return Ok(None) };
        let entry = Entry {
            key: sample.key.clone(),
            unit: sample.unit.clone(),
            max: sample.max,
            since: unix,
            used: unix,
        };
        if !self.write_entry(column, &entry)? {
            return Ok(None);
        }
        self.fold.clear(column);
        self.columns.insert(sample.key.clone(), column);
        if let Some(slot) = self.entries.get_mut(column)
            && let Some(before) = slot.replace(entry)
        {
            self.columns.remove(&before.key);
        }
        Ok(Some(column))
    }

    fn write_entry(&self, column: usize, entry: &Entry) -> io::Result<bool> {
        let Some(bytes) = encode_entry(entry) else { return Ok(false) };
        self.file.write_all_at(&bytes, layout::entry_offset(column))?;
        Ok(true)
    }
}

const DAY: i64 = 86_400;
const UNUSED_AFTER: i64 = 7 * DAY;

/// Reads what an agent has written, also while it runs.
#[derive(Debug)]
pub struct Reader {
    file: File,
    entries: Vec<Option<Entry>>,
}

impl Reader {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join(NAME))?;
        if !has_head(&file) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a history of dogwatch"));
        }
        let entries: Vec<_> = (0..SERIES_MAX).map(|column| read_entry(&file, column)).collect();
        Ok(Self { file, entries })
    }

    /// All series, by name.
    pub fn series(&self) -> Vec<&Entry> {
        let mut all: Vec<_> = self.entries.iter().flatten().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// The points of a series from `from` to `to` (seconds since 1970), and how long each stands
    /// for. They come from the finest tier that goes back that far, or to the start of the series;
    /// what its last row does not have yet comes from the finer ones.
    pub fn points(&self, key: &Key, from: i64, to: i64) -> Vec<Point> {
        let Some(column) =
            self.entries.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.key == *key))
        else {
            return Vec::new();
        };
        let since = self.entries.get(column).and_then(Option::as_ref).map_or(from, |entry| entry.since);
        let mut from = from.max(since);
        let wanted = layout::tier_for(to.saturating_sub(from));
        let mut points: Vec<Point> = Vec::new();
        for tier in TIERS.into_iter().rev().filter(|tier| tier.step <= wanted.step) {
            let first = tier.slot(from.max(to - tier.span() + tier.step));
            points.extend((first..=tier.slot(to)).filter_map(|slot| {
                let cell = read_row(&self.file, tier, slot)?.get(column).copied()?;
                cell.point(tier, slot)
            }));
            from = points.last().map_or(from, |point| point.at + point.step);
        }
        points
    }
}

/// Reads everything. Takes some milliseconds; holes of the file cost nothing.
fn damage(file: &File, entries: &[Option<Entry>]) -> Damage {
    let mut found = Damage::default();
    let mut nameless = [false; SERIES_MAX];
    for (column, entry) in entries.iter().enumerate() {
        let mut bytes = [0_u8; ENTRY_BYTES];
        let read = file.read_exact_at(&mut bytes, layout::entry_offset(column));
        if entry.is_none() && (read.is_err() || bytes != [0; ENTRY_BYTES]) {
            nameless[column] = true;
        }
    }
    for tier in TIERS {
        for slot in 0..tier.rows {
            let mut bytes = [0_u8; ROW_BYTES];
            if file.read_exact_at(&mut bytes, tier.row_offset(slot)).is_err() || bytes == [0; ROW_BYTES] {
                continue;
            }
            let number = i64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            match layout::decode_row(&bytes, number) {
                Some(cells) if tier.row_offset(number) == tier.row_offset(slot) => {
                    // A column keeps its entry for ever, so one without has lost it.
                    let used = cells.iter().enumerate().filter(|(_, cell)| cell.is_some());
                    let lost = used.filter(|(column, _)| entries.get(*column).is_none_or(Option::is_none));
                    lost.for_each(|(column, _)| nameless[column] = true);
                }
                _ => found.rows += 1,
            }
        }
    }
    found.series = nameless.iter().filter(|lost| **lost).count() as u64;
    found
}

fn has_head(file: &File) -> bool {
    let mut head = [0_u8; HEAD.len()];
    file.read_exact_at(&mut head, 0).is_ok() && head == *HEAD
}

fn read_entry(file: &File, column: usize) -> Option<Entry> {
    let mut bytes = [0_u8; ENTRY_BYTES];
    file.read_exact_at(&mut bytes, layout::entry_offset(column)).ok()?;
    layout::decode_entry(&bytes)
}

fn read_row(file: &File, tier: Tier, slot: i64) -> Option<Vec<layout::Cell>> {
    debug_assert!(TIERS.contains(&tier), "a tier of this file");
    let mut bytes = [0_u8; ROW_BYTES];
    file.read_exact_at(&mut bytes, tier.row_offset(slot)).ok()?;
    layout::decode_row(&bytes, slot)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const START: i64 = 1_700_000_000 - 1_700_000_000 % 3_600;

    fn sample(service: &str, value: f64, unix: i64) -> Sample {
        Sample {
            key: Key { service: service.into(), label: "used".into() },
            unit: "B".into(),
            value,
            max: Some(100.0),
            at: Timestamp::from_second(unix).unwrap(),
        }
    }

    fn key(service: &str) -> Key {
        Key { service: service.into(), label: "used".into() }
    }

    #[test]
    fn what_was_recorded_is_read_back_at_every_resolution_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), START).unwrap();
        history.record(&sample("disk /", 0.0, START - 20 * DAY)).unwrap();
        for minute in 0..3 * 60 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let value = minute as f64;
            assert!(history.record(&sample("disk /", value, START + minute * 60)).unwrap());
            if minute % 50 == 7 {
                // Killed and started again: nothing but the row in progress may be missing.
                drop(history);
                history = History::open(dir.path(), START + minute * 60 + 60).unwrap();
            }
        }
        history.finish().unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        assert_eq!(
            reader.series().iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(),
            [key("disk /")]
        );
        let now = START + 3 * 3_600;
        let fine = reader.points(&key("disk /"), START, now);
        assert!(fine.len() >= 175, "{}", fine.len());
        assert!((fine[100].avg - 101.0).abs() < 3.0, "{:?}", fine[100]);
        let hours = reader.points(&key("disk /"), now - 300 * 86_400, now);
        assert_eq!((hours.len(), hours[1].step), (4, 3_600));
        assert!(hours[2].min <= 61.0 && hours[2].max >= 118.0, "{:?}", hours[2]);
        assert!(reader.points(&key("disk /var"), START, now).is_empty());
    }

    #[test]
    fn what_a_value_was_in_the_same_hour_a_week_ago_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), START).unwrap();
        for minute in 0..180 {
            let value = if (60..120).contains(&minute) { 40.0 } else { 90.0 };
            history.record(&sample("load", value, START + minute * 60)).unwrap();
        }
        let asked = START + 7 * 86_400 + 90 * 60;
        assert_eq!(history.a_week_before(asked), [(key("load"), 40.0)].into());
        assert_eq!(history.a_week_before(asked + 86_400), Earlier::new());
        // A series that is younger than the row took over the column of another one.
        history.entries[0].as_mut().unwrap().since = START + 86_400;
        assert_eq!(history.a_week_before(asked), Earlier::new());
    }

    #[test]
    fn a_young_series_is_read_from_the_tiers_that_have_it() {
        for (minutes, since) in [(3, 7), (3, 300), (25, 7), (200, 30), (2_000, 7), (4_000, 300)] {
            let dir = tempfile::tempdir().unwrap();
            let mut history = History::open(dir.path(), START).unwrap();
            for minute in 0..=minutes {
                history.record(&sample("load", 1.0, START + minute * 60)).unwrap();
            }
            let now = START + minutes * 60;
            let points = Reader::open(dir.path()).unwrap().points(&key("load"), now - since * DAY, now);
            let known: i64 = points.iter().map(|point| point.step).sum();
            assert_eq!(known, minutes * 60, "{minutes} minutes, --since {since}d");
            assert!(points.is_sorted_by(|a, b| a.at + a.step <= b.at), "{points:?}");
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_kept_and_a_hole_is_no_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "my notes").unwrap();
        let mut history = History::open(dir.path(), START).unwrap();
        assert_eq!(std::fs::read(dir.path().join(DAMAGED_NAME)).unwrap(), b"my notes");
        history.record(&sample("load", 1.0, START)).unwrap();
        history.record(&sample("load", 1.0, START + 600)).unwrap();
        history.finish().unwrap();
        let points = Reader::open(dir.path()).unwrap().points(&key("load"), START, START + 900);
        assert_eq!(points.iter().map(|point| point.at - START).collect::<Vec<_>>(), [0, 600]);
    }

    #[test]
    fn the_number_of_series_is_bounded_and_an_old_one_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), START).unwrap();
        for n in 0..SERIES_MAX {
            assert!(history.record(&sample(&format!("disk /{n}"), 5.0, START)).unwrap());
        }
        assert!(!history.record(&sample("new", 1.0, START + 60)).unwrap());
        assert_eq!(history.refused(), 1);
        let later = START + UNUSED_AFTER + DAY;
        assert!(history.record(&sample("new", 1.0, later)).unwrap());
        history.finish().unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        let points = reader.points(&key("new"), START - 60, later);
        assert!(points.iter().all(|point| point.avg < 2.0), "no value of the series before: {points:?}");
    }
}
