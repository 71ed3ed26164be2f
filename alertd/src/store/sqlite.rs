//! The store in one SQLite file, in WAL mode with `synchronous = FULL`: a finished commit survives
//! a power cut.
//!
//! - `NORMAL` would be faster, but could lose the last commits in a power cut, including accepted
//!   alerts.
//! - One connection writes, under an exclusive lock on `alertd.lock` next to the file, so that two
//!   alertds never share a store. Readers have their own connections.
//! - `PRAGMA user_version` contains the version of the schema. Each of the [`MIGRATIONS`] runs in a
//!   transaction. A file of a newer version is rejected and not changed.
//! - The file is checked at the start (`check.rs`). Damage never keeps alertd from starting: what
//!   can be read is used, the rest is set aside and named in `alertctl health` (`damage.rs`). An
//!   alertd that does not run notifies nobody, and agents send their states again.
//! - Placeholders are `?N`, because rusqlite binds `$N` by order, not by number.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use dogwatch_alertd_core::{
    Change, Counters, Loaded, Lost, notification_info,
    rules::{
        alert::{Alert, AlertKey},
        incident::Incident,
        outbox::Row,
        silence::Silence,
    },
    title_of,
};
use dogwatch_wire::ctl::{
    HistoryEntry, Incident as IncidentView, NotificationInfo, Recorded, Sent, Silence as SilenceView,
};
use jiff::Timestamp;
use rusqlite::{
    CachedStatement, Connection, OpenFlags, OptionalExtension, Row as SqlRow, Transaction, params,
};
use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Archive, Store, StoreError,
    backup::{self, Copy, Stop},
    cannot, check,
    commits::Commits,
    damage::{self, LostRow},
};

/// The steps of the schema. A released step never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema-overrides.sql"),
    include_str!("schema-history-detail.sql"),
    include_str!("schema-downtimes.sql"),
    include_str!("schema-alert-rows.sql"),
    include_str!("schema-tokens.sql"),
    include_str!("schema-audit.sql"),
    include_str!("schema-checksums.sql"),
];
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How far back rate limits are restored.
const SPENT_MEMORY: Duration = Duration::from_hours(24);

pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// The lock, for as long as the store is open.
    _lock: File,
    /// A notice for people: the file was damaged at the start.
    pub notice: Option<String>,
    /// Rows that the start could not read.
    lost: Vec<LostRow>,
    commits: Commits,
}

impl Sqlite {
    /// Opens the store in `state_dir`, and creates it if it does not exist. `instance` is the id of
    /// a new store.
    pub fn open(state_dir: &Path, instance: &str) -> Result<Self, StoreError> {
        fs::create_dir_all(state_dir).map_err(|error| cannot(state_dir, &error))?;
        let lock_path = state_dir.join("alertd.lock");
        let lock = File::create(&lock_path).map_err(|error| cannot(&lock_path, &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let dir = state_dir.display();
            StoreError::Unusable(format!("another alertd uses {dir}; stop it, or set a different state_dir"))
        })?;
        let path = state_dir.join(NAME);
        backup::clear(&path);
        let mut notices: Vec<_> = damage::look_at_wal(&path).into_iter().collect();
        let mut salvaged = false;
        let (connection, lost) = match checked(&path, instance) {
            Ok(checked) => checked,
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Damaged(reason)) => {
                salvaged = true;
                let aside = rename(&path)?;
                let (connection, _) = checked(&path, instance).map_err(Trouble::into_error)?;
                let saved = match damage::salvage(Path::new(&aside), &connection) {
                    Ok(saved) => format!("{saved} rows could be read and are kept, what else it had is lost"),
                    Err(error) => {
                        let _ = connection.execute_batch("ROLLBACK");
                        format!("nothing in it could be read: {error}")
                    }
                };
                notices
                    .push(format!("the database was damaged ({reason}); it was moved to {aside}; {saved}"));
                let lost = damage::set_aside(&connection, true)?;
                connection.execute(INSTANCE, [instance])?;
                (connection, lost)
            }
        };
        notices.extend(damage::words(&lost));
        let made = connection.query_row(COMMITS_MADE, [], |row| row.get::<_, String>(0)).optional()?;
        let made = made.and_then(|text| text.parse().ok());
        let commits = Commits::new(&path, instance_of(&connection)?, made.unwrap_or(0));
        let lacking = commits.lacking();
        if lacking > 0 && !salvaged && (made.is_some() || lost.iter().all(|row| row.table != "meta")) {
            notices.push(format!(
                "the last {lacking} commits are missing from {}: it was cut or damaged, or is an older copy; open \
                 incidents may be of an earlier time, and agents send their current states again",
                path.display()
            ));
        }
        let notice = (!notices.is_empty()).then(|| notices.join("; "));
        Ok(Self { connection, path, _lock: lock, notice, lost, commits })
    }

    pub fn archive(&self) -> SqliteArchive {
        SqliteArchive { path: self.path.clone(), idle: Mutex::new(Vec::new()) }
    }

    /// The archive of the store in `state_dir`, which need not be open.
    pub fn archive_in(state_dir: &Path) -> SqliteArchive {
        SqliteArchive { path: state_dir.join(NAME), idle: Mutex::new(Vec::new()) }
    }

    /// The id of the store.
    pub(super) fn instance(&self) -> Result<String, StoreError> {
        instance_of(&self.connection)
    }
}

fn instance_of(connection: &Connection) -> Result<String, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = 'instance'";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

const COMMITS_MADE: &str = "SELECT value FROM meta WHERE key = 'commits'";
const COUNT_COMMIT: &str =
    "INSERT OR REPLACE INTO meta (key, value, crc) VALUES ('commits', ?1, row_crc('commits', ?1))";

const NAME: &str = "alertd.db";

/// Renames the store in `state_dir`, which must not be open, and returns its new name.
pub(super) fn set_aside(state_dir: &Path) -> Result<String, StoreError> {
    rename(&state_dir.join(NAME))
}

enum Trouble {
    Damaged(String),
    Other(StoreError),
}

impl Trouble {
    fn into_error(self) -> StoreError {
        match self {
            Self::Damaged(reason) => StoreError::Unusable(reason),
            Self::Other(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied,
            SystemIoFailure,
        };
        /// The file ends too early: `SQLITE_IOERR_SHORT_READ`.
        const SHORT_READ: i32 = 522;
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(SystemIoFailure) if extended == Some(SHORT_READ) => Self::Damaged(error.to_string()),
            Some(
                CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory | PermissionDenied
                | SystemIoFailure,
            ) => Self::Other(error.into()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Opens the file and sets damaged rows aside.
fn checked(path: &Path, instance: &str) -> Result<(Connection, Vec<LostRow>), Trouble> {
    let connection = prepared(path)?;
    let lost = damage::set_aside(&connection, !check::is_large(path))?;
    connection.execute(INSTANCE, [instance])?;
    Ok((connection, lost))
}

const INSTANCE: &str =
    "INSERT OR IGNORE INTO meta (key, value, crc) VALUES ('instance', ?1, row_crc('instance', ?1))";

fn prepared(path: &Path) -> Result<Connection, Trouble> {
    let mut connection = Connection::open(path)?;
    damage::add_function(&connection)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoint after 4 MiB of WAL. Fewer but longer pauses would cost more than they save.
    connection.pragma_update(None, "wal_autocheckpoint", 1_000)?;
    if let Some(found) = check::at_start(&connection, path)? {
        return Err(Trouble::Damaged(found));
    }
    migrate(&mut connection, path)?;
    if damage::schema_of(&connection)? != damage::schema_of(&model()?)? {
        return Err(Trouble::Damaged("its schema is not the one that was written".into()));
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// An empty store, to compare with.
fn model() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    damage::add_function(&connection)?;
    MIGRATIONS.iter().try_for_each(|step| connection.execute_batch(step))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Trouble> {
    let version: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    // A damaged number would make alertd refuse a file that is its own.
    let has_all = damage::schema_of(connection)? == damage::schema_of(&model()?)?;
    if has_all && version != MIGRATIONS.len() {
        connection.pragma_update(None, "user_version", MIGRATIONS.len())?;
        return Ok(());
    }
    if version > MIGRATIONS.len() {
        let (path, ours) = (path.display(), MIGRATIONS.len());
        let words = format!(
            "{path} has schema {version}, but this alertd supports {ours} at most; install the newer alertd again"
        );
        return Err(Trouble::Other(StoreError::Unusable(words)));
    }
    for (at, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", at + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Renames a damaged file and its WAL, and returns the new name.
fn rename(path: &Path) -> Result<String, StoreError> {
    let free =
        (1..1_000).map(|n| path.with_extension(format!("damaged-{n}"))).find(|candidate| !candidate.exists());
    let aside = free.unwrap_or_else(|| path.with_extension("damaged"));
    fs::rename(path, &aside).map_err(|error| cannot(path, &error))?;
    let mut wal = aside.clone().into_os_string();
    wal.push("-wal");
    // It has the latest commits.
    let _ = fs::rename(path.with_extension("db-wal"), wal);
    let _ = fs::remove_file(path.with_extension("db-shm"));
    Ok(aside.display().to_string())
}

impl Sqlite {
    /// What the start could not read, as far as it matters.
    fn lost(&self) -> Lost {
        let of = |table: &'static str| self.lost.iter().filter(move |row| row.table == table);
        Lost {
            alerts: of("alert")
                .filter_map(|row| Some((AlertKey::new(row.text(1)?, row.text(2)?), row.number(0)?)))
                .collect(),
            agents: of("agent").filter_map(|row| row.text(0).map(str::to_owned)).collect(),
            notifications_of: of("outbox").chain(of("told")).filter_map(incident_of).collect(),
        }
    }

    /// The next free numbers, above those in use.
    fn above(&self, counters: Counters) -> Result<Counters, StoreError> {
        let next = |table: &str, key: &str| -> Result<u64, StoreError> {
            let sql = format!("SELECT COALESCE(MAX({key}), 0) + 1 FROM {table}");
            Ok(self.connection.query_row(&sql, [], |row| row.get(0))?)
        };
        Ok(Counters {
            incident: counters.incident.max(next("incident", "number")?),
            outbox: counters.outbox.max(next("outbox", "seq")?),
            silence: counters.silence.max(next("silence", "number")?),
            overrides: counters.overrides.max(next("override", "number")?),
            downtime: counters.downtime.max(next("downtime", "number")?),
        })
    }
}

fn incident_of(row: &LostRow) -> Option<u64> {
    row.number(if row.table == "told" { 0 } else { 2 })
}

/// As [`rows`], but leaves out and counts what cannot be read.
fn readable<T>(
    connection: &Connection,
    sql: &str,
    bad: &mut Vec<String>,
    read: impl Fn(&SqlRow<'_>, &str) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let read = |row: &SqlRow<'_>, body: &str| Ok(read(row, body).map_err(|error| error.to_string()));
    let mut good = Vec::new();
    for row in rows(connection, sql, read)? {
        match row {
            Ok(row) => good.push(row),
            Err(error) => bad.push(error),
        }
    }
    Ok(good)
}

impl Store for Sqlite {
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError> {
        let c = &self.connection;
        let instance = self.instance()?;
        let counters: Option<String> =
            c.query_row("SELECT value FROM meta WHERE key = 'counters'", [], |row| row.get(0)).optional()?;
        let counters = counters.and_then(|text| from_json::<Counters>(&text).ok()).unwrap_or_default();
        let since = micros(now) - i64::try_from(SPENT_MEMORY.as_micros()).unwrap_or(i64::MAX);
        let mut unread = Vec::new();
        let bad = &mut unread;
        let current =
            |table: &str| format!("SELECT body FROM {table} WHERE ends_us > {} ORDER BY number", micros(now));
        let loaded = Loaded {
            instance,
            counters: self.above(counters)?,
            agents: readable(c, "SELECT body, id FROM agent", bad, |row, body| {
                Ok((row.get(1)?, from_json(body)?))
            })?,
            alerts: readable(
                c,
                "SELECT body, agent, service, id FROM alert ORDER BY id",
                bad,
                |row, body| {
                    let key = AlertKey::new(row.get::<_, String>(1)?, row.get::<_, String>(2)?);
                    Ok((key, Alert { row: row.get(3)?, ..from_json(body)? }))
                },
            )?,
            incidents: readable(c, "SELECT body FROM incident WHERE open = 1", bad, |_, body| {
                from_json(body)
            })?,
            told: readable(c, "SELECT body, incident, receiver FROM told", bad, |row, body| {
                Ok((row.get::<_, u64>(1)?, row.get(2)?, from_json(body)?))
            })?,
            silences: readable(c, &current("silence"), bad, |_, body| from_json(body))?,
            downtimes: readable(c, &current("downtime"), bad, |_, body| from_json(body))?,
            overrides: readable(c, &current("override"), bad, |_, body| from_json(body))?,
            tokens: readable(c, "SELECT body FROM token ORDER BY name", bad, |_, body| from_json(body))?,
            outbox: readable(
                c,
                "SELECT body FROM outbox WHERE settled_us IS NULL ORDER BY seq",
                bad,
                |_, body| from_json(body),
            )?,
            failed: c
                .query_row("SELECT COUNT(*) FROM outbox WHERE state = 'failed'", [], |row| row.get(0))?,
            spent: rows(
                c,
                &format!(
                    "SELECT receiver, first_try_us FROM outbox WHERE first_try_us > {since} ORDER BY first_try_us"
                ),
                |row, receiver| Ok((receiver.to_owned(), from_micros(row.get(1)?))),
            )?,
            lost: self.lost(),
        };
        if !unread.is_empty() {
            let words = format!("{} rows of the database cannot be read: {}", unread.len(), unread[0]);
            self.notice =
                Some(self.notice.take().map_or_else(|| words.clone(), |also| format!("{also}; {words}")));
        }
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for change in changes {
            write(&transaction, change)?;
        }
        let made = self.commits.made + 1;
        transaction.prepare_cached(COUNT_COMMIT)?.execute([made.to_string()])?;
        transaction.commit()?;
        self.commits.done(made);
        Ok(())
    }

    fn prune(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let before = micros(before);
        let transaction = self.connection.transaction()?;
        for sql in [
            "DELETE FROM outbox WHERE settled_us < ?1 AND incident NOT IN (SELECT number FROM incident WHERE open = 1)",
            "DELETE FROM history WHERE at_us < ?1 AND (incident IS NULL OR incident NOT IN (SELECT number FROM incident WHERE open = 1))",
            "DELETE FROM incident WHERE open = 0 AND resolved_us < ?1",
            "DELETE FROM silence WHERE ends_us < ?1",
            "DELETE FROM override WHERE ends_us < ?1",
            "DELETE FROM downtime WHERE ends_us < ?1",
        ] {
            transaction.execute(sql, [before])?;
        }
        Ok(transaction.commit()?)
    }
}

fn write(to: &Transaction<'_>, change: &Change) -> Result<(), StoreError> {
    let prepare = |sql| -> rusqlite::Result<CachedStatement<'_>> { to.prepare_cached(sql) };
    match change {
        Change::Counters(counters) => {
            prepare("INSERT OR REPLACE INTO meta (key, value, crc) VALUES ('counters', ?1, row_crc('counters', ?1))")?
                .execute([to_json(counters)?])?;
        }
        Change::Agent(id, agent) => {
            prepare("INSERT OR REPLACE INTO agent (id, body, crc) VALUES (?1, ?2, row_crc(?1, ?2))")?
                .execute(params![id, to_json(agent.as_ref())?])?;
        }
        Change::AgentGone(id) => {
            prepare("DELETE FROM agent WHERE id = ?1")?.execute([id])?;
        }
        Change::Alert(key, alert) => {
            prepare("INSERT OR REPLACE INTO alert (id, agent, service, body, crc) VALUES (?1, ?2, ?3, ?4, row_crc(?1, ?2, ?3, ?4))")?
                .execute(params![alert.row, key.agent, key.service, to_json(alert.as_ref())?])?;
        }
        Change::AlertGone(row) => {
            prepare("DELETE FROM alert WHERE id = ?1")?.execute([row])?;
        }
        Change::Incident(incident) => write_incident(to, incident)?,
        Change::Told { incident, receiver, told: Some(told) } => {
            prepare("INSERT OR REPLACE INTO told (incident, receiver, body, crc) VALUES (?1, ?2, ?3, row_crc(?1, ?2, ?3))")?
                .execute(params![incident, receiver, to_json(told)?])?;
        }
        Change::Told { incident, receiver, told: None } => {
            prepare("DELETE FROM told WHERE incident = ?1 AND receiver = ?2")?
                .execute(params![incident, receiver])?;
        }
        Change::Silence(silence) => {
            prepare("INSERT OR REPLACE INTO silence (number, ends_us, body, crc) VALUES (?1, ?2, ?3, row_crc(?1, ?2, ?3))")?
                .execute(params![silence.number, micros(silence.ends_at), to_json(silence)?])?;
        }
        Change::Downtime(downtime) => {
            prepare("INSERT OR REPLACE INTO downtime (number, ends_us, body, crc) VALUES (?1, ?2, ?3, row_crc(?1, ?2, ?3))")?
                .execute(params![downtime.number, micros(downtime.over_at()), to_json(downtime)?])?;
        }
        Change::Override(one) => {
            prepare("INSERT OR REPLACE INTO override (number, ends_us, body, crc) VALUES (?1, ?2, ?3, row_crc(?1, ?2, ?3))")?
                .execute(params![one.number, micros(one.until), to_json(one)?])?;
        }
        Change::Token(name, Some(token)) => {
            prepare("INSERT OR REPLACE INTO token (name, body, crc) VALUES (?1, ?2, row_crc(?1, ?2))")?
                .execute(params![name, to_json(token)?])?;
        }
        Change::Token(name, None) => {
            prepare("DELETE FROM token WHERE name = ?1")?.execute([name])?;
        }
        Change::Outbox(row) => write_outbox(to, row)?,
        Change::History(entry) => {
            let detail = entry.detail.as_ref().map(to_json).transpose()?;
            prepare("INSERT INTO history (at_us, incident, kind, reason, author, text, detail, origin, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_crc(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))")?
                .execute(params![micros(entry.at), entry.incident, entry.kind, entry.reason, entry.author, entry.text, detail, entry.from])?;
        }
    }
    Ok(())
}

fn write_incident(to: &Transaction<'_>, incident: &Incident) -> Result<(), StoreError> {
    to.prepare_cached(
        "INSERT OR REPLACE INTO incident (number, open, opened_us, resolved_us, body, crc) VALUES (?1, ?2, ?3, ?4, ?5, row_crc(?1, ?2, ?3, ?4, ?5))",
    )?
    .execute(params![
        incident.number,
        !incident.left_memory,
        micros(incident.opened_at),
        incident.resolved_at.map(micros),
        to_json(incident)?
    ])?;
    Ok(())
}

fn write_outbox(to: &Transaction<'_>, row: &Row) -> Result<(), StoreError> {
    to.prepare_cached(
        "INSERT OR REPLACE INTO outbox (seq, id, incident, receiver, state, first_try_us, settled_us, body, crc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_crc(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8))",
    )?
    .execute(params![
        row.seq,
        row.notification.id,
        row.notification.incident,
        row.notification.receiver,
        row.state.name(),
        row.first_try_at.map(micros),
        row.settled_at.map(micros),
        to_json(row)?
    ])?;
    Ok(())
}

/// Reads all rows. The first column is text and is passed next to the row.
fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&SqlRow<'_>, &str) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut found = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        let first: String = row.get(0)?;
        all.push(read(row, &first)?);
    }
    Ok(all)
}

fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn from_micros(at: i64) -> Timestamp {
    Timestamp::from_microsecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unusable(format!("unwritable row: {error}")))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unusable(format!("unreadable row: {error}")))
}

/// Entries in one page of recorded history.
const RECORDED_MAX: usize = 5_000;

fn sent(row: Row) -> Sent {
    let told = row.notification;
    Sent {
        at: row.first_try_at.unwrap_or(told.created_at),
        title: title_of(&told.firing, &told.resolved),
        receiver: told.receiver,
        kind: told.kind.name().into(),
        reason: told.reason,
    }
}

/// Reads while the writer writes, which WAL allows.
pub struct SqliteArchive {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteArchive {
    /// Checks the parts of a large file that the start did not read. Returns the damage, for
    /// people.
    pub fn check_rest(&self) -> Option<String> {
        check::rest(&self.path)
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection
        };
        let answer = read(&connection);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(connection);
        }
        answer
    }
}

const HISTORY_COLUMNS: &str = "SELECT at_us, incident, kind, reason, author, origin, text FROM history";

fn entry(row: &SqlRow<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        at: from_micros(row.get(0)?),
        incident: row.get(1)?,
        kind: row.get(2)?,
        reason: row.get(3)?,
        author: row.get(4)?,
        from: row.get(5)?,
        text: row.get(6)?,
        detail: None,
    })
}

fn newest(
    connection: &Connection,
    only: &str,
    since: Option<Timestamp>,
    limit: u32,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let sql = format!("{HISTORY_COLUMNS} WHERE at_us >= ?1 {only} ORDER BY at_us DESC, id DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params![since.map_or(i64::MIN, micros), limit], entry)?;
    Ok(found.collect::<Result<_, _>>()?)
}

impl Archive for SqliteArchive {
    fn copy(&self, now: Timestamp, stop: &Stop) -> Result<Copy, StoreError> {
        Copy::make(&self.path, now, stop)
    }

    fn history(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError> {
        self.with(|connection| newest(connection, "", since, limit))
    }

    fn audit(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError> {
        self.with(|connection| newest(connection, "AND author IS NOT NULL", since, limit))
    }

    fn decisions(&self, incident: u64) -> Result<Vec<HistoryEntry>, StoreError> {
        self.with(|connection| {
            let sql = format!("{HISTORY_COLUMNS} WHERE incident = ?1 ORDER BY id");
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_map([incident], entry)?.collect::<Result<_, _>>()?)
        })
    }

    fn notifications(&self, incident: u64) -> Result<Vec<NotificationInfo>, StoreError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM outbox WHERE incident = ?1 ORDER BY seq")?;
            let mut found = statement.query([incident])?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                all.push(notification_info(&from_json::<Row>(&row.get::<_, String>(0)?)?));
            }
            Ok(all)
        })
    }

    fn recorded(&self, since: Timestamp, after: u64) -> Result<Recorded, StoreError> {
        self.with(|connection| {
            let mut page = Recorded::default();
            let sql = "SELECT at_us, incident, kind, reason, author, origin, text, detail, id FROM history
                       WHERE at_us >= ?1 AND id > ?2 AND detail IS NOT NULL ORDER BY id LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let mut found = statement.query(params![micros(since), after, RECORDED_MAX])?;
            while let Some(row) = found.next()? {
                let detail = from_json(&row.get::<_, String>(7)?)?;
                page.entries.push(HistoryEntry { detail: Some(detail), ..entry(row)? });
                page.more_after = Some(row.get(8)?);
            }
            page.more_after = page.more_after.filter(|_| page.entries.len() == RECORDED_MAX);
            if after == 0 {
                let since = micros(since);
                let ended = |table| format!("SELECT body FROM {table} WHERE ends_us > {since} ORDER BY number");
                page.silences = rows(connection, &ended("silence"), |_, body| Ok(body.to_owned()))?;
                page.downtimes = rows(connection, &ended("downtime"), |_, body| Ok(body.to_owned()))?;
                page.overrides = rows(connection, &ended("override"), |_, body| Ok(body.to_owned()))?;
                let sql = format!("SELECT body FROM outbox WHERE state IN ('accepted', 'delivered') AND first_try_us >= {since} ORDER BY seq");
                page.sent = rows(connection, &sql, |_, body| Ok(sent(from_json(body)?)))?;
            }
            Ok(page)
        })
    }

    fn ended_silences(&self, now: Timestamp, limit: u32) -> Result<Vec<SilenceView>, StoreError> {
        self.with(|connection| {
            let now = micros(now);
            let sql = format!(
                "SELECT body FROM silence WHERE ends_us <= {now} ORDER BY ends_us DESC, number DESC LIMIT {limit}"
            );
            rows(connection, &sql, |_, body| Ok(from_json::<Silence>(body)?.ended_view()))
        })
    }

    fn closed_incident(&self, number: u64) -> Result<Option<(IncidentView, Vec<String>)>, StoreError> {
        self.with(|connection| {
            let sql = "SELECT body FROM incident WHERE number = ?1 AND open = 0";
            let body: Option<String> = connection.query_row(sql, [number], |row| row.get(0)).optional()?;
            let incident: Option<Incident> = body.map(|body| from_json(&body)).transpose()?;
            Ok(incident.and_then(|incident| Some((incident.closed?, incident.group.route))))
        })
    }
}
