//! Collects values into the rows of the tiers. Pure.

use super::layout::{Cell, SERIES_MAX, TIERS, Tier};

/// A finished row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub tier: Tier,
    pub slot: i64,
    pub cells: Vec<Cell>,
}

/// The rows in progress, one for each tier.
#[derive(Debug)]
pub struct Fold {
    open: [Open; TIERS.len()],
}

#[derive(Debug)]
struct Open {
    tier: Tier,
    slot: Option<i64>,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    min: f32,
    max: f32,
    sum: f64,
    count: u32,
}

const EMPTY: Column = Column { min: f32::INFINITY, max: f32::NEG_INFINITY, sum: 0.0, count: 0 };

impl Default for Fold {
    fn default() -> Self {
        Self { open: TIERS.map(|tier| Open { tier, slot: None, columns: Vec::new() }) }
    }
}

impl Fold {
    /// Adds a value of a column. Returns the rows that end with it: `unix` is in a later slot, or
    /// in an earlier one because the clock was set back.
    pub fn add(&mut self, column: usize, value: f64, unix: i64) -> Vec<Row> {
        let mut rows = Vec::new();
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a graph")]
        let cell = Cell { min: value as f32, avg: value as f32, max: value as f32 };
        for open in &mut self.open {
            rows.extend(open.turn(unix));
            open.add(column, cell);
        }
        rows
    }

    /// Adds a cell of a fine row that is already on disk, after a restart at `now`.
    pub fn resume(&mut self, now: i64, unix: i64, column: usize, cell: Cell) {
        for open in &mut self.open {
            if open.tier.slot(unix) == open.tier.slot(now) {
                open.slot = Some(open.tier.slot(now));
                open.add(column, cell);
            }
        }
    }

    /// The rows in progress, as far as they are.
    pub fn unfinished(&self) -> Vec<Row> {
        self.open.iter().filter_map(Open::row).collect()
    }

    /// Forgets a column, because it gets another series.
    pub fn clear(&mut self, column: usize) {
        for open in &mut self.open {
            if let Some(column) = open.columns.get_mut(column) {
                *column = EMPTY;
            }
        }
    }
}

impl Open {
    fn turn(&mut self, unix: i64) -> Option<Row> {
        let slot = self.tier.slot(unix);
        if self.slot == Some(slot) {
            return None;
        }
        let row = self.row();
        self.columns.clear();
        self.slot = Some(slot);
        row
    }

    fn add(&mut self, column: usize, cell: Cell) {
        if !cell.is_some() || column >= SERIES_MAX {
            return;
        }
        if self.columns.len() <= column {
            self.columns.resize(column + 1, EMPTY);
        }
        let Some(slot) = self.columns.get_mut(column) else { return };
        slot.min = slot.min.min(cell.min);
        slot.max = slot.max.max(cell.max);
        slot.sum += f64::from(cell.avg);
        slot.count += 1;
    }

    fn row(&self) -> Option<Row> {
        let slot = self.slot?;
        let cells: Vec<_> = self.columns.iter().map(|column| column.cell()).collect();
        cells.iter().any(|cell| cell.is_some()).then_some(Row { tier: self.tier, slot, cells })
    }
}

impl Column {
    fn cell(self) -> Cell {
        if self.count == 0 {
            return Cell::NONE;
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a graph")]
        Cell { min: self.min, avg: (self.sum / f64::from(self.count)) as f32, max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::layout::{FINE, MIDDLE},
        *,
    };

    #[test]
    fn a_row_has_the_least_the_average_and_the_greatest_value() {
        let mut fold = Fold::default();
        assert!(fold.add(3, 1.0, 600).is_empty());
        assert!(fold.add(3, 9.0, 630).is_empty());
        let rows = fold.add(3, 2.0, 660);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].tier, rows[0].slot), (FINE, 10));
        assert_eq!(rows[0].cells[3], Cell { min: 1.0, avg: 5.0, max: 9.0 });
        assert!(!rows[0].cells[0].is_some());
        let rows = fold.add(3, 4.0, 1_200);
        let middle = rows.iter().find(|row| row.tier == MIDDLE).unwrap();
        assert_eq!(middle.cells[3], Cell { min: 1.0, avg: 4.0, max: 9.0 });
    }

    #[test]
    fn a_clock_that_jumps_back_ends_the_row() {
        let mut fold = Fold::default();
        fold.add(0, 1.0, 6_000);
        let rows = fold.add(0, 2.0, 60);
        assert_eq!(rows.iter().map(|row| row.slot).collect::<Vec<_>>(), [100, 10, 1]);
    }

    #[test]
    fn a_restart_in_the_middle_of_an_hour_loses_nothing_of_it() {
        let mut fold = Fold::default();
        for minute in 0..30 {
            fold.resume(3_600 + 30 * 60, 3_600 + minute * 60, 0, Cell { min: 1.0, avg: 1.0, max: 7.0 });
        }
        for minute in 30..60 {
            fold.add(0, 3.0, 3_600 + minute * 60);
        }
        let rows = fold.add(0, 0.0, 7_200);
        let hour = rows.iter().find(|row| row.tier.step == 3_600).unwrap();
        assert_eq!(hour.cells[0], Cell { min: 1.0, avg: 2.0, max: 7.0 });
    }
}
