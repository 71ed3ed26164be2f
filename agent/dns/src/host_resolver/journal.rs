//! Records each change and the state before it on disk, before the change is made, so that the next
//! `enable` or `disable` can undo an interrupted switch.
//!
//! The directory belongs to root, not to the cache's user: whoever can write here can make root
//! write any file.
//!
//! | file | content |
//! | --- | --- |
//! | `journal.json` | a [`Journal`]; replaced as a whole, by rename |
//! | `N.before` | the file before change N, byte for byte |
//! | `N.placed` | the file as written by change N |
//! | `lock` | locked by a running switch |
//!
//! Each entry is on disk (fsync) before its change is made. After a crash, the journal lists at
//! most one change that was not made; undoing it changes nothing.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use dogwatch_daemon::replace::{NewFile, ReplaceError, replace_file, sync_directory_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    layout::{File, Node, below},
    plan::Manager,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In progress, or interrupted if no process holds the lock.
    Switching,
    Enabled,
    /// The same, for undoing.
    Reverting,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub phase: Phase,
    pub manager: Manager,
    pub cache: IpAddr,
    pub old_servers: Vec<IpAddr>,
    pub since: Timestamp,
    pub stages: Vec<StageRecord>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    pub puts: Vec<PutRecord>,
    pub then: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRecord {
    pub path: PathBuf,
    pub before: Before,
    /// The file in the journal's directory with the written content.
    pub placed: String,
    /// Directories created for it, outermost first.
    pub made: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    Absent,
    File { saved: String, mode: u32, uid: u32, gid: u32 },
    Link { target: PathBuf },
}

/// The journal's directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// `dir` is a real path, not relative to a test root.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o755))
    }

    /// Takes the lock until the file is dropped. `None` if another process holds it.
    pub fn lock(&self) -> io::Result<Option<fs::File>> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("lock"))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn load(&self) -> io::Result<Option<Journal>> {
        match fs::read(self.dir.join("journal.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: {error}", self.dir.join("journal.json").display()),
                )
            })?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn save(&self, journal: &Journal) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(journal).map_err(io::Error::other)?;
        replace(&self.dir.join("journal.json"), &bytes, 0o644, None)
    }

    /// Stores bytes under a new name.
    pub fn keep(&self, bytes: &[u8], end: &str) -> io::Result<String> {
        for number in 0_u32.. {
            let name = format!("{number}.{end}");
            if !self.dir.join(&name).exists() {
                replace(&self.dir.join(&name), bytes, 0o600, None)?;
                return Ok(name);
            }
        }
        Err(io::Error::other("no free file name"))
    }

    pub fn kept(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(name))
    }

    /// Deletes the journal first: without it, the other files have no effect.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join("journal.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sync_directory_of(&self.dir.join("journal.json"))?,
        }
        fs::remove_dir_all(&self.dir)
    }
}

/// Writes `bytes` to `path` atomically and syncs. An existing file keeps its mode and owner.
pub(super) fn put(root: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let place = below(root, path);
    match Node::read(root, path)? {
        Node::File(File { mode, uid, gid, .. }) => replace(&place, bytes, mode, Some((uid, gid))),
        _ => replace(&place, bytes, mode, None),
    }
}

/// Restores the state before the change.
pub(super) fn restore(root: &Path, path: &Path, before: &Before, store: &Store) -> io::Result<()> {
    let place = below(root, path);
    match before {
        Before::Absent => match fs::remove_file(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_directory_of(&place),
        },
        Before::File { saved, mode, uid, gid } => {
            replace(&place, &store.kept(saved)?, *mode, Some((*uid, *gid)))
        }
        Before::Link { target } => {
            let new = beside(&place);
            let _ = fs::remove_file(&new);
            symlink(target, &new)?;
            fs::rename(&new, &place)?;
            sync_directory_of(&place)
        }
    }
}

/// The missing directories above `path`, outermost first.
pub(super) fn missing_folders(root: &Path, path: &Path) -> Vec<PathBuf> {
    let above: Vec<_> = path.ancestors().skip(1).take_while(|folder| !below(root, folder).exists()).collect();
    above.into_iter().rev().map(Path::to_owned).collect()
}

pub(super) fn make_folders(root: &Path, folders: &[PathBuf]) -> io::Result<()> {
    for folder in folders {
        let place = below(root, folder);
        match fs::create_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(&place, Permissions::from_mode(0o755))?,
        }
        sync_directory_of(&place)?;
    }
    Ok(())
}

/// Removes these directories if they are empty.
pub(super) fn remove_folders(root: &Path, folders: &[PathBuf]) {
    for folder in folders.iter().rev() {
        // A directory that is in use by now stays.
        let _ = fs::remove_dir(below(root, folder));
    }
}

/// Removes the temporary file of an interrupted change.
pub(super) fn remove_torn(root: &Path, path: &Path) {
    // Usually there is none.
    let _ = fs::remove_file(beside(&below(root, path)));
}

fn replace(place: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let new = NewFile { mode, ignore_umask: true, owner, temporary: Some(beside(place)) };
    match replace_file(place, &new, |file| file.write_all(bytes)) {
        // The file is a bind mount, as in containers: it can be written but not replaced.
        Err(ReplaceError::NotReplaced(error)) if error.kind() == io::ErrorKind::ResourceBusy => {
            let mut file = fs::OpenOptions::new().write(true).truncate(true).open(place)?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        replaced => Ok(replaced.map(drop)?),
    }
}

fn beside(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // The leading dot and the unusual suffix keep other programs from reading it as a drop-in.
    place.with_file_name(format!(".{name}.dogwatch-new"))
}
