//! Damage in the store: found, stepped over, and said.
//!
//! | damage | found by | what happens |
//! | --- | --- | --- |
//! | in the content of a row | its checksum (`crc`) | the row moves to the table `set_aside` |
//! | in the structure of the file, its schema or its header | `quick_check` and errors of SQLite | the file is kept under another name; every row that can be read is copied into a new one |
//! | in the WAL | its chain of checksums ([`wal_damage`]) | SQLite uses what comes before; the WAL is kept under another name |
//!
//! SQLite ignores the rest of a WAL from the first frame that is not intact, because an interrupted
//! commit looks like that. More than one commit after it means that finished commits are lost. A
//! WAL that was cut, or whose *last* commit is damaged, has nothing to show for it: that is what
//! the number of commits beside the store is for (`commits.rs`).

use std::{fs, path::Path};

use rusqlite::{
    Connection, OpenFlags,
    functions::FunctionFlags,
    params_from_iter,
    types::{Value, ValueRef},
};

/// A table: its columns without `crc`, and what identifies a row.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [&'static str],
    /// How many of the columns form the primary key.
    keys: usize,
    has_rowid: bool,
}

const fn table(name: &'static str, columns: &'static [&'static str], keys: usize, has_rowid: bool) -> Table {
    Table { name, columns, keys, has_rowid }
}

pub(super) const TABLES: [Table; 10] = [
    table("meta", &["key", "value"], 1, false),
    table("agent", &["id", "body"], 1, false),
    table("alert", &["id", "agent", "service", "body"], 1, true),
    table("incident", &["number", "open", "opened_us", "resolved_us", "body"], 1, true),
    table("told", &["incident", "receiver", "body"], 2, false),
    table("silence", &["number", "ends_us", "body"], 1, true),
    table("downtime", &["number", "ends_us", "body"], 1, true),
    table("override", &["number", "ends_us", "body"], 1, true),
    table("token", &["name", "body"], 1, false),
    table(
        "outbox",
        &["seq", "id", "incident", "receiver", "state", "first_try_us", "settled_us", "body"],
        1,
        true,
    ),
];
/// Read only by people, and large: checked while alertd runs.
const HISTORY: Table = table(
    "history",
    &["id", "at_us", "incident", "kind", "reason", "author", "text", "detail", "origin"],
    1,
    true,
);

/// Rows in a gap between damaged pages that are tried one by one.
const PROBES_MAX: i64 = 50_000;
/// Rows that a notice names.
const NAMES_MAX: usize = 5;

/// A row that was set aside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LostRow {
    pub(super) table: &'static str,
    pub(super) values: Vec<Value>,
}

impl LostRow {
    pub(super) fn text(&self, column: usize) -> Option<&str> {
        match self.values.get(column) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, column: usize) -> Option<u64> {
        match self.values.get(column) {
            Some(Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn name(&self) -> String {
        let shown = |value: &Value| match value {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text.chars().take(64).collect(),
            _ => "?".into(),
        };
        let keys = if self.table == "alert" { 1..3 } else { 0..1 };
        let keys: Vec<_> = self.values.get(keys).unwrap_or_default().iter().map(shown).collect();
        format!("{} {}", self.table, keys.join("/"))
    }
}

/// For people.
pub(super) fn words(lost: &[LostRow]) -> Option<String> {
    if lost.is_empty() {
        return None;
    }
    let names: Vec<_> = lost.iter().take(NAMES_MAX).map(LostRow::name).collect();
    let more = if lost.len() > NAMES_MAX { ", …" } else { "" };
    Some(format!(
        "{} damaged rows of the database were set aside (table set_aside): {}{more}",
        lost.len(),
        names.join(", ")
    ))
}

/// What is lost of the WAL, for people; a damaged one is kept.
pub(super) fn look_at_wal(path: &Path) -> Option<String> {
    let wal = path.with_extension("db-wal");
    let words = wal_damage(&fs::read(&wal).ok()?)?;
    let kept = (1..1_000).map(|n| path.with_extension(format!("wal-damaged-{n}")));
    let kept = kept.into_iter().find(|candidate| !candidate.exists())?;
    let copied = match fs::copy(&wal, &kept) {
        Ok(_) => format!("it is kept as {}", kept.display()),
        Err(error) => format!("it could not be kept: {error}"),
    };
    Some(format!("the log of recent commits ({}) was damaged: {words}; {copied}", wal.display()))
}

/// Makes the function `row_crc` available, which all writes use.
pub(super) fn add_function(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("row_crc", -1, flags, |values| {
        let mut crc = crc32fast::Hasher::new();
        for at in 0..values.len() {
            match values.get_raw(at) {
                ValueRef::Null => crc.update(b"n"),
                ValueRef::Integer(number) => {
                    crc.update(b"i");
                    crc.update(&number.to_le_bytes());
                }
                ValueRef::Real(number) => {
                    crc.update(b"r");
                    crc.update(&number.to_le_bytes());
                }
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                    crc.update(b"t");
                    crc.update(&(bytes.len() as u64).to_le_bytes());
                    crc.update(bytes);
                }
            }
        }
        Ok(i64::from(crc.finalize()))
    })
}

impl Table {
    fn list(&self) -> String {
        self.columns.join(", ")
    }

    /// The columns that the checksum covers. The numbers of history entries come from SQLite.
    fn covered(&self) -> String {
        let all = if self.name == "history" { &self.columns[1..] } else { self.columns };
        all.join(", ")
    }

    /// Rows that are not as they were written.
    fn damaged(&self, connection: &Connection) -> rusqlite::Result<Vec<LostRow>> {
        let (name, columns, covered) = (self.name, self.list(), self.covered());
        let sql = format!("SELECT {columns} FROM {name} WHERE crc IS NOT row_crc({covered})");
        let mut statement = connection.prepare(&sql)?;
        let mut found = statement.query([])?;
        let mut lost = Vec::new();
        while let Some(row) = found.next()? {
            let values =
                (0..self.columns.len()).map(|at| row.get_ref(at).map(lossy)).collect::<Result<_, _>>()?;
            lost.push(LostRow { table: name, values });
        }
        Ok(lost)
    }
}

/// A flipped bit can make text that is not UTF-8.
fn lossy(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        other => other.try_into().unwrap_or(Value::Null),
    }
}

/// Finds rows that are not as they were written, and moves them to the table `set_aside`.
pub(super) fn set_aside(connection: &Connection, with_history: bool) -> rusqlite::Result<Vec<LostRow>> {
    let mut lost = Vec::new();
    let tables = TABLES.iter().chain(with_history.then_some(&HISTORY));
    for table in tables.clone() {
        lost.extend(table.damaged(connection)?);
    }
    if lost.is_empty() {
        return Ok(lost);
    }
    // An index may still have what a damaged column had before.
    connection.execute_batch("REINDEX")?;
    let transaction = connection.unchecked_transaction()?;
    for table in tables {
        if !lost.iter().any(|row| row.table == table.name) {
            continue;
        }
        let (name, columns, covered) = (table.name, table.list(), table.covered());
        let wrong = format!("crc IS NOT row_crc({covered})");
        let parts: Vec<_> = columns.split(", ").map(|column| format!("quote({column})")).collect();
        transaction.execute_batch(&format!(
            "INSERT INTO set_aside (at_us, tab, content)
               SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER), '{name}', {} FROM {name} WHERE {wrong};
             DELETE FROM {name} WHERE {wrong};",
            parts.join(" || ' ' || ")
        ))?;
    }
    transaction.commit()?;
    Ok(lost)
}

/// Damaged entries of the history, for people; reads everything.
pub(super) fn of_history(path: &Path) -> rusqlite::Result<Option<String>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    add_function(&connection)?;
    if !columns_of(&connection, HISTORY.name)?.iter().any(|column| column == "crc") {
        return Ok(None);
    }
    let mut lost = HISTORY.damaged(&connection)?;
    for table in &TABLES {
        lost.extend(table.damaged(&connection)?);
    }
    Ok((!lost.is_empty()).then(|| format!("{} entries of the history are damaged", lost.len())))
}

/// Copies every row that can be read from a damaged file. Returns how many.
pub(super) fn salvage(from: &Path, to: &Connection) -> rusqlite::Result<usize> {
    let damaged = Connection::open(from)?;
    add_function(&damaged)?;
    // Reads what it can of a damaged schema.
    damaged.pragma_update(None, "writable_schema", true)?;
    to.execute_batch("BEGIN")?;
    let mut saved = 0;
    for table in TABLES.iter().chain([&HISTORY]) {
        saved += copy_rows(&damaged, to, table).unwrap_or_default();
    }
    to.execute_batch("COMMIT")?;
    Ok(saved)
}

fn copy_rows(from: &Connection, to: &Connection, table: &Table) -> rusqlite::Result<usize> {
    let known = columns_of(from, table.name)?;
    let columns: Vec<_> =
        table.columns.iter().copied().filter(|column| known.iter().any(|k| k == column)).collect();
    let has_crc = known.iter().any(|column| column == "crc");
    let mut copied = columns.clone();
    if has_crc {
        copied.push("crc");
    }
    let (name, list) = (table.name, copied.join(", "));
    let places: Vec<_> = (1..=copied.len()).map(|at| format!("?{at}")).collect();
    let insert = if has_crc {
        format!("INSERT OR REPLACE INTO {name} ({list}) VALUES ({})", places.join(", "))
    } else {
        let covered: Vec<_> = table
            .covered()
            .split(", ")
            .map(|column| {
                columns.iter().position(|c| *c == column).map_or("NULL".into(), |at| format!("?{}", at + 1))
            })
            .collect();
        format!(
            "INSERT OR REPLACE INTO {name} ({list}, crc) VALUES ({}, row_crc({}))",
            places.join(", "),
            covered.join(", ")
        )
    };
    let mut insert = to.prepare(&insert)?;
    let width = copied.len();
    let mut put = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Vec<Value>> {
        let values: Vec<_> = (0..width).map(|at| row.get_ref(at).map(lossy)).collect::<Result<_, _>>()?;
        // A value of another type than the column's is damage too.
        let _ = insert.execute(params_from_iter(values.iter()));
        Ok(values)
    };
    let order = table.columns[..table.keys].join(", ");
    let backwards = table.columns[..table.keys].join(" DESC, ");
    let mut count = 0;
    let mut scan = |order: &str| -> (Option<Value>, bool) {
        let mut end = None;
        let Ok(mut statement) = from.prepare(&format!("SELECT {list} FROM {name} ORDER BY {order}")) else {
            return (None, false);
        };
        let Ok(mut rows) = statement.query([]) else { return (None, false) };
        loop {
            match rows.next().and_then(|row| row.map(&mut put).transpose()) {
                Ok(Some(values)) => {
                    count += 1;
                    end = values.into_iter().next();
                }
                Ok(None) => return (end, true),
                Err(_) => return (end, false),
            }
        }
    };
    let (first_end, complete) = scan(&order);
    if complete {
        return Ok(count);
    }
    let (second_end, _) = scan(&format!("{backwards} DESC"));
    if let (true, Some(Value::Integer(low)), Some(Value::Integer(high))) =
        (table.has_rowid, first_end.or(Some(Value::Integer(0))), second_end)
    {
        let mut one = from.prepare(&format!("SELECT {list} FROM {name} WHERE {order} = ?1"))?;
        for number in (low + 1)..high.min(low.saturating_add(PROBES_MAX)) {
            if let Ok(mut rows) = one.query([number])
                && let Ok(Some(row)) = rows.next()
                && put(row).is_ok()
            {
                count += 1;
            }
        }
    }
    Ok(count)
}

fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA table_info({table})"))?;
    let names = statement.query_map([], |row| row.get::<_, String>(1))?;
    names.collect()
}

/// The statements that make the schema, to compare.
pub(super) fn schema_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare("SELECT type || ' ' || name || ' ' || tbl_name || ' ' || sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY 1")?;
    let all = statement.query_map([], |row| row.get::<_, String>(0))?;
    all.collect()
}

/// Bits in which the salts of a damaged frame may differ.
const SALT_BITS_MAX: u32 = 8;
const WAL_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

/// What is lost of a WAL, for people; `None` for an intact one, and for one that ends within a
/// commit. The format is described at <https://www.sqlite.org/fileformat2.html#walformat>.
fn wal_damage(wal: &[u8]) -> Option<String> {
    let word =
        |at: usize| wal.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    // Shorter: it was created and never used.
    if wal.len() < WAL_HEAD + FRAME_HEAD {
        return None;
    }
    let (magic, page) = (word(0)?, word(8)? as usize);
    let little = magic == 0x377f_0682;
    let seed = checksum(&wal[..24], (0, 0), little);
    let known = (little || magic == 0x377f_0683) && page.is_power_of_two() && (512..=65_536).contains(&page);
    if !known || Some(seed.0) != word(24) || Some(seed.1) != word(28) {
        return Some("its header is damaged, so none of the commits in it can be read".into());
    }
    let salts = &wal[16..24];
    let length = FRAME_HEAD + page;
    let mut sum = seed;
    let mut broken = false;
    let mut commits_after = 0;
    let mut frames_after_commit = 0;
    for frame in wal[WAL_HEAD..].chunks_exact(length) {
        // A few flipped bits are not the salts of an older log, which are random.
        let differs: u32 = frame[8..16].iter().zip(salts).map(|(a, b)| (a ^ b).count_ones()).sum();
        let ours = differs <= SALT_BITS_MAX;
        let commits = frame[4..8] != [0; 4];
        if !broken {
            let head = checksum(&frame[..8], sum, little);
            let next = checksum(&frame[FRAME_HEAD..], head, little);
            let stored = (be(&frame[16..20]), be(&frame[20..24]));
            if differs == 0 && next == stored {
                sum = next;
                continue;
            }
            broken = true;
            if !ours {
                continue;
            }
        }
        if broken && ours {
            frames_after_commit += usize::from(commits_after > 0);
            commits_after += usize::from(commits);
        }
    }
    let lost = commits_after > 1 || frames_after_commit > 0;
    lost.then(|| format!("a frame in it is damaged, so about {commits_after} commits in it are lost"))
}

fn be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

fn checksum(bytes: &[u8], from: (u32, u32), little: bool) -> (u32, u32) {
    let words = bytes.chunks_exact(4).map(|word| {
        let number = be(word);
        if little { number.swap_bytes() } else { number }
    });
    let words: Vec<_> = words.collect();
    words.chunks_exact(2).fold(from, |(first, second), pair| {
        let first = first.wrapping_add(pair[0]).wrapping_add(second);
        (first, second.wrapping_add(pair[1]).wrapping_add(first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wal_with(commits: usize) -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        db.execute_batch("CREATE TABLE t (x)").unwrap();
        for number in 0..commits {
            db.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
        }
        let wal = fs::read(dir.path().join("x.db-wal")).unwrap();
        (dir, wal)
    }

    /// S6: each byte of the WAL but those of its last commit.
    #[test]
    fn damage_in_a_wal_is_noticed_unless_it_looks_like_an_interrupted_commit() {
        let (_dir, mut wal) = wal_with(6);
        assert_eq!(wal_damage(&wal), None);
        let length = FRAME_HEAD + 4_096;
        let last_commit = wal.len() - length;
        for at in (0..wal.len()).step_by(131) {
            wal[at] ^= 0x10;
            // Checkpoint number and the like are covered by the checksum of the header.
            assert_eq!(wal_damage(&wal).is_some(), at < last_commit, "byte {at}");
            wal[at] ^= 0x10;
        }
        for cut in (0..wal.len()).step_by(997) {
            assert_eq!(wal_damage(&wal[..cut]), None, "an interrupted write of {cut} bytes");
        }
    }

    /// After a checkpoint, the frames of before are still in the file.
    #[test]
    fn what_a_checkpoint_left_in_a_wal_is_no_damage() {
        let (dir, _) = wal_with(6);
        let path = dir.path().join("x.db");
        let db = Connection::open(&path).unwrap();
        for _ in 0..6 {
            db.execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
        db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        db.execute("INSERT INTO t VALUES (2)", []).unwrap();
        let wal = fs::read(dir.path().join("x.db-wal")).unwrap();
        assert!(wal.len() > WAL_HEAD + 2 * (FRAME_HEAD + 4_096));
        assert_eq!(wal_damage(&wal), None);
    }
}
