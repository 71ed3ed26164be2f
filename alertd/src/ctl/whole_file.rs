//! Writes a file completely or not at all. The data goes to `NAME.part`, readable only by its
//! owner, which is renamed to `NAME` when all of it is on disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use dogwatch_daemon::replace::{Existing, install};
use rustix::fs::{FlockOperation, flock};

/// A file being written. If it is dropped before [`WholeFile::keep`], the partial file is removed.
pub(super) struct WholeFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    force: bool,
}

impl WholeFile {
    /// With `force`, an existing file may be replaced. The error is shown to the user.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, String> {
        let say = |words: &str| format!("{}: {words}", path.display());
        let (Some(name), true) = (path.file_name(), path.symlink_metadata().is_err() || force) else {
            return Err(say("file exists; choose another name, or replace it with --force"));
        };
        // Never replace a device or a directory.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(say("not a regular file; choose another name"));
        }
        let mut part = name.to_owned();
        part.push(".part");
        let part = path.with_file_name(part);
        let file = claim(&part).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => format!("{}: another alertctl is writing this file", part.display()),
            _ => format!("{}: {error}", part.display()),
        })?;
        Ok(Self { file, part, path: path.to_owned(), force })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), String> {
        self.file.write_all(piece).map_err(|error| format!("{}: {error}", self.part.display()))
    }

    /// Syncs the file to disk and renames it.
    pub(super) fn keep(self) -> Result<(), String> {
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        let kept = install(&self.file, &self.part, &self.path, existing).map_err(io::Error::from);
        kept.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{}: file was created meanwhile; try again with another name or --force",
                self.path.display()
            ),
            _ => format!("{}: {error}", self.path.display()),
        })
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // After a rename, there is nothing to remove.
        let _ = fs::remove_file(&self.part);
    }
}

/// Creates and locks the file. An existing unlocked file was left by an interrupted run and is
/// replaced.
fn claim(part: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let left = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(part)?;
            if !left.metadata()?.is_file() {
                return Err(error);
            }
            flock(&left, FlockOperation::NonBlockingLockExclusive)?;
            fs::remove_file(part)?;
            create()?
        }
        created => created?,
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        (dir, path)
    }

    fn refusal(path: &Path, force: bool) -> String {
        WholeFile::create(path, force).err().unwrap()
    }

    #[test]
    fn until_it_is_kept_there_is_no_file_and_afterwards_it_is_its_owners() {
        let (dir, path) = folder();
        let mut file = WholeFile::create(&path, false).unwrap();
        file.write(b"all of it").unwrap();
        assert!(!path.exists());
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_ends_in_the_middle_leaves_nothing_that_looks_whole_and_stands_in_nobodys_way() {
        let (dir, path) = folder();
        let mut file = WholeFile::create(&path, false).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("b.db.part"), "of a killed one").unwrap();
        let mut file = WholeFile::create(&path, false).unwrap();
        assert!(refusal(&path, false).contains("another alertctl is writing this file"));
        file.write(b"whole").unwrap();
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn nothing_is_replaced_unasked_and_never_what_is_no_file() {
        let (dir, path) = folder();
        fs::write(&path, "yesterday's").unwrap();
        assert!(refusal(&path, false).contains("--force"));
        let mut file = WholeFile::create(&path, true).unwrap();
        file.write(b"today's").unwrap();
        file.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"today's");
        assert!(refusal(dir.path(), true).contains("not a regular file"));
        assert!(refusal(Path::new("/dev/null"), true).contains("not a regular file"));
        assert!(refusal(&dir.path().join("none/b.db"), false).contains("No such file"));

        let late = dir.path().join("late.db");
        let file = WholeFile::create(&late, false).unwrap();
        fs::write(&late, "somebody else's").unwrap();
        assert!(file.keep().unwrap_err().contains("meanwhile"));
        assert_eq!(fs::read(&late).unwrap(), b"somebody else's");
    }
}
