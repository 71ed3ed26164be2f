//! Copies the store as of one moment, without blocking the writer. WAL makes that possible; it
//! cannot be checkpointed meanwhile and grows by everything that is written.
//!
//! The copy is one file with mode 0600 in the state directory: the data is private, and no other
//! disk is known to be large enough. It is deleted when its [`Copy`] is dropped, or at the next
//! start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use data_encoding::HEXLOWER;
use dogwatch_wire::ctl;
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::{StoreError, cannot, sqlite::BUSY_TIMEOUT};

/// The file name, next to the store. Only one copy is made at a time.
const NAME: &str = "alertd.backup";
/// Space that the copy must leave free: the CRITICAL threshold of `alertctl health` (`health.rs`).
const ROOM_KEPT: u64 = 64 << 20;
const PIECE_BYTES: usize = 256 * 1024;

/// A copy, deleted on drop.
#[derive(Debug)]
pub struct Copy {
    path: PathBuf,
    pub about: ctl::Backup,
}

/// Stops copying when the client has gone.
#[derive(Clone, Default)]
pub struct Stop(Arc<Stopping>);

#[derive(Default)]
struct Stopping {
    asked: AtomicBool,
    running: Mutex<Option<InterruptHandle>>,
}

impl Stop {
    pub fn now(&self) {
        self.0.asked.store(true, Relaxed);
        if let Some(running) = &*self.0.running.lock().unwrap_or_else(PoisonError::into_inner) {
            running.interrupt();
        }
    }

    fn watch(&self, connection: Option<&Connection>) -> Result<(), StoreError> {
        let handle = connection.map(Connection::get_interrupt_handle);
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = handle;
        if self.0.asked.load(Relaxed) {
            return Err(StoreError::Unavailable(
                "the client closed the connection before the backup was complete".into(),
            ));
        }
        Ok(())
    }
}

impl Copy {
    /// Copies the store at `store`, then reads the whole copy to check it and count its content.
    pub(super) fn make(store: &Path, now: Timestamp, stop: &Stop) -> Result<Self, StoreError> {
        let path = clear(store);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        drop(file.map_err(|error| cannot(&path, &error))?);
        let about = ctl::Backup {
            taken_at: now,
            bytes: 0,
            sha256: String::new(),
            open_incidents: 0,
            incidents: 0,
            alerts: 0,
            silences: 0,
            store: store.display().to_string(),
            warning: None,
        };
        // From here on, any error deletes the file.
        let mut copy = Self { path, about };
        let made = copy.fill(store, stop).and_then(|()| copy.check(stop));
        stop.watch(None)?;
        made?;
        (copy.about.bytes, copy.about.sha256) =
            digest(&copy.path, stop).map_err(|error| cannot(&copy.path, &error))?;
        Ok(copy)
    }

    /// Opens the copy for reading from the beginning.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    fn fill(&self, store: &Path, stop: &Stop) -> Result<(), StoreError> {
        let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        stop.watch(Some(&connection))?;
        let number =
            |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, u64>(0));
        let needed = (number("page_count")? - number("freelist_count")?) * number("page_size")?;
        let found = rustix::fs::statvfs(&self.path).map_err(|error| cannot(&self.path, &error.into()))?;
        enough_room(needed, found.f_bavail.saturating_mul(found.f_frsize), store)?;
        let to = self.path.to_str();
        let to = to.ok_or_else(|| StoreError::Unusable("the path of state_dir is not UTF-8".into()))?;
        connection.execute("VACUUM INTO ?1", [to])?;
        Ok(())
    }

    fn check(&mut self, stop: &Stop) -> Result<(), StoreError> {
        let copy = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        stop.watch(Some(&copy))?;
        let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let words = format!("the copy is damaged ({found}), so the database may be damaged too");
            return Err(StoreError::Unavailable(words));
        }
        let count = |what: &str| {
            copy.query_row(&format!("SELECT COUNT(*) FROM {what}"), [], |row| row.get::<_, u64>(0))
        };
        self.about.open_incidents = count("incident WHERE open = 1")?;
        self.about.incidents = count("incident")?;
        self.about.alerts = count("alert")?;
        self.about.silences =
            count(&format!("silence WHERE ends_us > {}", self.about.taken_at.as_microsecond()))?;
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Deletes the remains of a copy that was interrupted, and returns the path for the next one.
pub(super) fn clear(store: &Path) -> PathBuf {
    let path = store.with_file_name(NAME);
    remove(&path);
    path
}

fn remove(path: &Path) {
    // Includes SQLite's own files, which remain if alertd was killed while copying.
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // Usually there is none.
        let _ = fs::remove_file(name);
    }
}

fn enough_room(needed: u64, free: u64, store: &Path) -> Result<(), StoreError> {
    if free >= needed.saturating_add(ROOM_KEPT) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(StoreError::Unavailable(format!(
        "not enough disk space: the copy needs up to {} MiB next to {}, plus {} MiB that must stay free, but only {} MiB are free",
        mib(needed),
        store.display(),
        mib(ROOM_KEPT),
        free >> 20
    )))
}

/// Returns the size and SHA-256 of a file.
fn digest(path: &Path, stop: &Stop) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut piece, mut context, mut bytes) = (vec![0; PIECE_BYTES], Context::new(&SHA256), 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, HEXLOWER.encode(context.finish().as_ref())));
        }
        if stop.0.asked.load(Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        context.update(&piece[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::{Archive as _, Store as _, sqlite::Sqlite};

    fn now() -> Timestamp {
        "2026-11-22T02:20:00Z".parse().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("backup")).collect()
    }

    #[test]
    fn a_copy_is_whole_private_and_gone_when_nobody_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path(), "first").unwrap();
        let copy = store.archive().copy(now(), &Stop::default()).unwrap();
        let path = dir.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(copy.about.bytes, bytes.len() as u64);
        assert_eq!(copy.about.sha256, HEXLOWER.encode(ring::digest::digest(&SHA256, &bytes).as_ref()));

        let elsewhere = tempfile::tempdir().unwrap();
        fs::copy(&path, elsewhere.path().join("alertd.db")).unwrap();
        let mut restored = Sqlite::open(elsewhere.path(), "another").unwrap();
        assert_eq!(restored.load(now()).unwrap().instance, "first", "the schema and all its data");
        drop(copy);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_a_killed_alertd_left_is_taken_away_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        for name in [NAME, "alertd.backup-journal"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        drop(Sqlite::open(dir.path(), "x").unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_copy_that_nobody_waits_for_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path(), "x").unwrap();
        let stop = Stop::default();
        stop.now();
        let refused = store.archive().copy(now(), &stop).unwrap_err().to_string();
        assert!(refused.contains("the client closed"), "{refused}");
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_copy_never_takes_the_room_that_the_store_needs() {
        let room = |needed: u64, free: u64| enough_room(needed << 20, free << 20, Path::new("/s/alertd.db"));
        assert!(room(100, 164).is_ok());
        let words = room(100, 163).unwrap_err().to_string();
        assert!(words.contains("100 MiB next to /s/alertd.db") && words.contains("only 163 MiB"), "{words}");
    }
}
