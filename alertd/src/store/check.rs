//! Checks whether the database is damaged. Reading a large history takes long, and nobody would be
//! notified meanwhile. So at the start, only the tables with current data of a large database are
//! checked; the others are checked while alertd runs.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::damage;

/// A database up to this size is checked completely at the start.
const WHOLE_MAX: u64 = 64 << 20;
/// Tables that grow with history.
const HISTORIES: [&str; 3] = ["history", "outbox", "incident"];
/// Everything that a start reads from them.
const OPEN_ROWS: [&str; 2] = [
    "SELECT SUM(LENGTH(body)) FROM incident WHERE open = 1",
    "SELECT SUM(LENGTH(body)) FROM outbox WHERE settled_us IS NULL",
];

pub(super) fn is_large(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > WHOLE_MAX)
}

/// Returns the damage in the data that a start needs. Damage can also show as an error
/// (`SQLITE_CORRUPT`).
pub(super) fn at_start(connection: &Connection, path: &Path) -> rusqlite::Result<Option<String>> {
    if !is_large(path) {
        return quick_check(connection, None);
    }
    let mut names =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for name in names.iter().filter(|name| !HISTORIES.contains(&name.as_str())) {
        if let Some(found) = quick_check(connection, Some(name))? {
            return Ok(Some(found));
        }
    }
    for sql in OPEN_ROWS.iter().filter(|sql| names.iter().any(|name| sql.contains(name.as_str()))) {
        connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?;
    }
    Ok(None)
}

/// Checks what [`at_start`] left out, while alertd runs. Returns the damage, for people.
pub(super) fn rest(path: &Path) -> Option<String> {
    if !is_large(path) {
        return None;
    }
    let open = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let found = open.and_then(|connection| quick_check(&connection, None));
    let found = match found.and_then(|found| Ok(found.or(damage::of_history(path)?))) {
        Ok(found) => found?,
        Err(error) => error.to_string(),
    };
    Some(format!(
        "the history in {path} is damaged ({found}); firing alerts, acks and silences are not; to recover the history, run `sqlite3 {path} .recover`",
        path = path.display()
    ))
}

fn quick_check(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Option<String>> {
    let table = table.map_or("1".to_owned(), |name| format!("'{name}'"));
    let found: String =
        connection.query_row(&format!("PRAGMA quick_check({table})"), [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek as _, SeekFrom, Write as _},
        path::PathBuf,
    };

    use super::*;

    const PAGE: u64 = 4_096;

    /// A large database: a small table, then a long history.
    fn large(dir: &Path) -> PathBuf {
        let path = dir.join("alertd.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                 INSERT INTO agent SELECT 'a' || i, hex(zeroblob(400)) FROM n;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO history (at_us, kind, reason, text) SELECT i, 'x', 'y', hex(zeroblob(2000)) FROM n;",
            )
            .unwrap();
        assert!(is_large(&path));
        path
    }

    /// Overwrites the first page with rows of a table.
    fn damage(path: &Path, table: &str) {
        let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY pageno LIMIT 1";
        let connection = Connection::open(path).unwrap();
        // Without dbstat, use the root page from the schema.
        let page: u64 = connection.query_row(sql, [table], |row| row.get(0)).unwrap_or_else(|_| {
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            connection.query_row(sql, [table], |row| row.get(0)).unwrap()
        });
        drop(connection);
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start((page - 1) * PAGE)).unwrap();
        file.write_all(&[0xaa; 512]).unwrap();
    }

    fn is_damaged(path: &Path) -> bool {
        let connection = Connection::open(path).unwrap();
        !matches!(at_start(&connection, path), Ok(None))
    }

    #[test]
    fn of_a_large_file_the_start_reads_what_it_needs_and_the_rest_is_read_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = large(dir.path());
        assert!(!is_damaged(&path));
        assert_eq!(rest(&path), None);
        damage(&path, "history");
        assert!(!is_damaged(&path), "alertd starts anyway");
        assert!(rest(&path).unwrap().contains(".recover"));
        damage(&path, "agent");
        assert!(is_damaged(&path));
    }

    #[test]
    fn a_small_file_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alertd.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        drop(connection);
        assert!(!is_damaged(&path));
        damage(&path, "history");
        assert!(is_damaged(&path));
        assert_eq!(rest(&path), None);
    }
}
