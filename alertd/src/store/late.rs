//! A store that alertd can start without: the state directory may be read-only, missing, full, or
//! on a disk that hangs.
//!
//! What can be read is loaded, and everything goes on from memory. Each commit tries to open the
//! store again; the writer has kept all changes since the start, so nothing has to be merged.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use dogwatch_alertd_core::{Change, Loaded};
use jiff::Timestamp;

use super::{
    Store, StoreError,
    sqlite::{self, Sqlite, SqliteArchive},
};

/// A healthy disk answers within milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

pub struct Late {
    state_dir: PathBuf,
    /// The id of the store: the one that was loaded, or of a new store.
    instance: String,
    store: Option<Sqlite>,
    /// A readable copy of a store that cannot be written, until it is loaded.
    copy: Option<Copied>,
    /// Why the store cannot be used, if it cannot.
    pub trouble: Option<String>,
    /// A notice for people: the file was damaged at the start.
    pub notice: Option<String>,
}

impl Late {
    /// Opens the store in `state_dir`, or a copy in `scratch` of what can be read there. `instance`
    /// is the id of a new store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] if another alertd uses the directory, or the store is of a newer
    /// version.
    pub fn open(state_dir: &Path, scratch: &Path, instance: &str) -> Result<Self, StoreError> {
        Self::open_within(PROBE_LIMIT, state_dir, scratch, instance)
    }

    fn open_within(
        limit: Duration,
        state_dir: &Path,
        scratch: &Path,
        instance: &str,
    ) -> Result<Self, StoreError> {
        let mut late = Self {
            state_dir: state_dir.to_owned(),
            instance: instance.to_owned(),
            store: None,
            copy: None,
            trouble: None,
            notice: None,
        };
        let opened = match probe(state_dir, limit) {
            Probe::Usable => Sqlite::open(state_dir, instance),
            Probe::Fails(error) => {
                late.copy = Copied::make(state_dir, scratch);
                Err(StoreError::Unavailable(error))
            }
            Probe::Hangs => Err(StoreError::Unavailable("the disk does not answer".into())),
        };
        match opened {
            Ok(mut store) => {
                late.notice = store.notice.take();
                late.store = Some(store);
            }
            Err(StoreError::Unavailable(why)) => {
                late.trouble = Some(format!("{}: {why}", state_dir.display()));
            }
            Err(error @ StoreError::Unusable(_)) => return Err(error),
        }
        Ok(late)
    }

    pub fn archive(&self) -> SqliteArchive {
        Sqlite::archive_in(&self.state_dir)
    }

    /// Opens the store after all. One that was not loaded is kept under another name.
    fn opened(&mut self) -> Result<&mut Sqlite, StoreError> {
        if self.store.is_none() {
            let store = Sqlite::open(&self.state_dir, &self.instance)?;
            let store = if store.instance()? == self.instance {
                store
            } else {
                drop(store);
                let kept = sqlite::set_aside(&self.state_dir)?;
                tracing::error!(
                    "the state directory has come back with another store, which alertd did not start from; it is kept as {kept}"
                );
                Sqlite::open(&self.state_dir, &self.instance)?
            };
            self.store = Some(store);
        }
        self.store.as_mut().ok_or_else(|| StoreError::Unavailable("the store is not open".into()))
    }
}

impl Store for Late {
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError> {
        if let Some(store) = &mut self.store {
            return store.load(now);
        }
        let loaded = match self.copy.take().map(|copy| copy.load(&self.instance, now)) {
            Some(Ok(loaded)) => loaded,
            unread => {
                let why = match unread {
                    Some(Err(error)) => format!(" ({error})"),
                    _ => String::new(),
                };
                let words = format!(
                    "nothing could be read from the store{why}: open incidents, silences, downtimes, tokens and \
                     schedules' overrides of before are not known"
                );
                self.notice = Some(words);
                Loaded { instance: self.instance.clone(), ..Loaded::default() }
            }
        };
        self.instance.clone_from(&loaded.instance);
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.opened()?.commit(changes)
    }

    fn prune(&mut self, before: Timestamp) -> Result<(), StoreError> {
        self.opened()?.prune(before)
    }
}

enum Probe {
    Usable,
    Fails(String),
    Hangs,
}

/// Writes to the directory on a thread of its own, which is left alone if the disk hangs.
fn probe(dir: &Path, limit: Duration) -> Probe {
    let (said_to, said) = sync_channel(1);
    let dir = dir.to_owned();
    let probing = thread::Builder::new().name("probe".into()).spawn(move || {
        let _ = said_to.send(write_to(&dir));
    });
    if let Err(error) = probing {
        return Probe::Fails(format!("cannot start a thread: {error}"));
    }
    match said.recv_timeout(limit) {
        Ok(Ok(())) => Probe::Usable,
        Ok(Err(error)) => Probe::Fails(error.to_string()),
        Err(RecvTimeoutError::Timeout) => Probe::Hangs,
        Err(RecvTimeoutError::Disconnected) => Probe::Fails("cannot be tested".into()),
    }
}

fn write_to(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join("alertd.probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(b"alertd tests whether it can write here\n")?;
        file.sync_all()
    });
    let _ = fs::remove_file(&path);
    written
}

/// A copy of the store and its WAL, because SQLite reads a WAL only where it can write.
struct Copied {
    dir: PathBuf,
}

impl Copied {
    /// `None` if there is nothing to read, or no room for it in `scratch`.
    fn make(from: &Path, scratch: &Path) -> Option<Self> {
        let copy = Self { dir: scratch.join("store-copy") };
        fs::create_dir_all(&copy.dir).ok()?;
        fs::copy(from.join("alertd.db"), copy.dir.join("alertd.db")).ok()?;
        match fs::copy(from.join("alertd.db-wal"), copy.dir.join("alertd.db-wal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            _ => Some(copy),
        }
    }

    fn load(&self, instance: &str, now: Timestamp) -> Result<Loaded, StoreError> {
        let mut store = Sqlite::open(&self.dir, instance)?;
        match store.notice.take() {
            None => store.load(now),
            Some(damage) => Err(StoreError::Unavailable(damage)),
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use dogwatch_alertd_core::rules::silence::Silence;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn silence(number: u64) -> Change {
        let silence: Silence = serde_json::from_value(serde_json::json!({
            "number": number, "matchers": [], "starts_at": now(), "ends_at": now() + jiff::SignedDuration::from_hours(1),
            "author": "ann", "comment": "test"
        }))
        .unwrap();
        Change::Silence(silence)
    }

    fn numbers(store: &mut impl Store) -> Vec<u64> {
        store.load(now()).unwrap().silences.iter().map(|silence| silence.number).collect()
    }

    struct Dirs(tempfile::TempDir);

    impl Dirs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn state(&self) -> PathBuf {
            self.0.path().join("state")
        }

        fn open(&self) -> Late {
            Late::open_within(Duration::from_millis(200), &self.state(), &self.0.path().join("run"), "new")
                .unwrap()
        }
    }

    /// S10: alertd starts without a state directory, and writes everything when there is one.
    #[test]
    fn a_directory_that_cannot_be_made_is_used_once_it_can() {
        let dirs = Dirs::new();
        fs::write(dirs.state(), "in the way").unwrap();
        let mut late = dirs.open();
        assert!(late.trouble.is_some());
        assert_eq!(numbers(&mut late), [0; 0]);
        assert!(late.notice.as_ref().is_some_and(|notice| notice.contains("not known")));
        assert!(late.commit(&[silence(1)]).is_err());
        fs::remove_file(dirs.state()).unwrap();
        late.commit(&[silence(1), silence(2)]).unwrap();
        drop(late);
        let mut again = dirs.open();
        assert_eq!((again.trouble.clone(), numbers(&mut again)), (None, vec![1, 2]));
    }

    /// S10, a sibling: what a read-only disk has is loaded, the WAL of a crash included.
    #[test]
    fn a_store_that_cannot_be_written_is_loaded() {
        let dirs = Dirs::new();
        let mut store = Sqlite::open(&dirs.state(), "old").unwrap();
        store.commit(&[silence(7)]).unwrap();
        // Not closed: the rows are in the WAL.
        std::mem::forget(store);
        fs::create_dir(dirs.state().join("alertd.probe")).unwrap();
        let mut late = dirs.open();
        assert!(late.trouble.is_some());
        assert_eq!((numbers(&mut late), late.instance.as_str()), (vec![7], "old"));
        assert_eq!(late.notice, None);
        assert!(!dirs.0.path().join("run/store-copy").exists(), "the copy is removed");
    }

    /// A store that turns up late, for example on a disk that was mounted after the start.
    #[test]
    fn another_store_that_turns_up_is_set_aside() {
        let dirs = Dirs::new();
        let hidden = dirs.0.path().join("hidden");
        Sqlite::open(&hidden, "old").unwrap().commit(&[silence(7)]).unwrap();
        fs::write(dirs.state(), "not mounted").unwrap();
        let mut late = dirs.open();
        assert_eq!(numbers(&mut late), [0; 0]);
        fs::remove_file(dirs.state()).unwrap();
        fs::rename(&hidden, dirs.state()).unwrap();
        late.commit(&[silence(1)]).unwrap();
        drop(late);
        assert_eq!(numbers(&mut dirs.open()), [1]);
        let names = fs::read_dir(dirs.state()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().any(|name| name.to_string_lossy().contains("damaged-1")));
    }

    /// S10, a sibling: a disk that hangs. Nobody reads the pipe.
    #[test]
    fn a_disk_that_does_not_answer_is_not_waited_for() {
        let dirs = Dirs::new();
        fs::create_dir(dirs.state()).unwrap();
        let pipe = dirs.state().join("alertd.probe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut late = dirs.open();
        assert!(
            late.trouble.as_ref().is_some_and(|why| why.ends_with("does not answer")),
            "{:?}",
            late.trouble
        );
        assert_eq!(numbers(&mut late), [0; 0]);
    }

    #[test]
    fn a_directory_that_another_alertd_uses_is_an_error() {
        let dirs = Dirs::new();
        let _other = Sqlite::open(&dirs.state(), "old").unwrap();
        let error = Late::open(&dirs.state(), dirs.0.path(), "new").err().unwrap();
        assert!(matches!(error, StoreError::Unusable(_)), "{error}");
    }
}
