//! Replaces a file as a whole: a reader finds the old content or the new, never a mix of both, also
//! after a crash or a power cut.
//!
//! The new content goes into a temporary file, which is synced and takes the final name by
//! rename(2); then the directory is synced. If anything fails before the rename, the old file is
//! untouched and the temporary file is removed. A crash can leave a temporary file behind; the next
//! replacement removes it.
//!
//! It does not lock: two processes that replace the same file at once must agree on their own.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// How the new file is made. The default is mode 0600, the caller's owner, and a temporary file
/// `NAME.new` beside the file.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Permission bits. As with open(2), the umask takes bits away.
    pub mode: u32,
    /// Sets `mode` exactly, whatever the umask is.
    pub ignore_umask: bool,
    /// User and group id. Changing them needs root; the ids that the file has anyway do not.
    pub owner: Option<(u32, u32)>,
    /// Where the content is written first. It must be on the same filesystem.
    pub temporary: Option<PathBuf>,
}

impl Default for NewFile {
    fn default() -> Self {
        Self::with_mode(0o600)
    }
}

impl NewFile {
    pub const fn with_mode(mode: u32) -> Self {
        Self { mode, ignore_umask: false, owner: None, temporary: None }
    }
}

/// Why a file was not replaced, or not for certain.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The old file, if any, is still in place.
    #[error("{0}")]
    NotReplaced(#[source] io::Error),
    /// The new file is in place, but a power cut may bring the old one back.
    #[error("the directory cannot be synced: {0}")]
    NotDurable(#[source] io::Error),
}

impl From<ReplaceError> for io::Error {
    fn from(error: ReplaceError) -> Self {
        let (ReplaceError::NotReplaced(source) | ReplaceError::NotDurable(source)) = error;
        source
    }
}

/// Replaces `path` with what `write` writes. Returns the new file, open for reading and writing.
pub fn replace_file(
    path: &Path,
    new: &NewFile,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<File, ReplaceError> {
    let temporary = new.temporary.clone().unwrap_or_else(|| beside(path));
    let made = make(&temporary, new, write);
    let installed = made
        .map_err(ReplaceError::NotReplaced)
        .and_then(|file| install(&file, &temporary, path, Existing::Replace).map(|()| file));
    if let Err(ReplaceError::NotReplaced(_)) = installed {
        // Gone already, or never made.
        let _ = fs::remove_file(&temporary);
    }
    installed
}

/// What [`install`] does if a file has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Replace,
    /// Fails with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Syncs `file`, which is open at `temporary`, and renames it to `path`. For callers that make the
/// temporary file themselves; all others use [`replace_file`].
pub fn install(file: &File, temporary: &Path, path: &Path, existing: Existing) -> Result<(), ReplaceError> {
    let renamed = file.sync_all().and_then(|()| rename(temporary, path, existing));
    renamed.map_err(ReplaceError::NotReplaced)?;
    sync_directory_of(path).map_err(ReplaceError::NotDurable)
}

/// Makes the creation, removal or renaming of `path` durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn make(
    temporary: &Path,
    new: &NewFile,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<File> {
    // From a crash. Removed rather than opened, so that the new file never follows a symbolic link
    // and has the right mode.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(new.mode).open(temporary)?;
    let mut writer = BufWriter::new(&file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if let Some((uid, gid)) = new.owner {
        let found = file.metadata()?;
        if (found.uid(), found.gid()) != (uid, gid) {
            fchown(&file, Some(uid), Some(gid))?;
        }
    }
    if new.ignore_umask {
        file.set_permissions(Permissions::from_mode(new.mode))?;
    }
    Ok(file)
}

fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    if existing == Existing::Replace {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every filesystem supports that flag (renameat2(2)).
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn replace(path: &Path, text: &str) -> Result<File, ReplaceError> {
        replace_file(path, &NewFile::default(), |file| file.write_all(text.as_bytes()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_made_and_replaced_and_nothing_else_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, "old, and longer").unwrap();
        assert_eq!(mode(&path), 0o600);
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn the_returned_file_is_the_one_at_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = replace(&path, "first ").unwrap();
        file.write_all(b"second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first second");
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, "old").unwrap();
        let full = replace_file(&path, &NewFile::default(), |file| {
            file.write_all(b"half of the n")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(
            matches!(&full, Err(ReplaceError::NotReplaced(error)) if error.kind() == io::ErrorKind::StorageFull)
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for path in [&dir.path().join("missing/state.json"), Path::new("/proc/self/state.json")] {
            assert!(matches!(replace(path, "new"), Err(ReplaceError::NotReplaced(_))), "{}", path.display());
        }
    }

    #[test]
    fn what_is_not_a_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs::create_dir(&path).unwrap();
        assert!(matches!(replace(&path, "new"), Err(ReplaceError::NotReplaced(_))));
        assert_eq!(names(dir.path()), ["directory"]);
    }

    #[test]
    fn a_temporary_file_from_a_crash_is_never_followed_or_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("state.json"), dir.path().join("other"));
        fs::write(&other, "not yours").unwrap();
        symlink(&other, dir.path().join("state.json.new")).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "not yours");
        fs::write(dir.path().join("state.json.new"), "a half-written file with another mode").unwrap();
        replace(&path, "newer").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("newer", 0o600));
        assert_eq!(names(dir.path()), ["other", "state.json"]);
    }

    #[test]
    fn mode_owner_and_place_of_the_temporary_file_can_be_chosen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let new = NewFile {
            mode: 0o666,
            ignore_umask: true,
            owner: Some(own),
            temporary: Some(dir.path().join("tmp")),
        };
        let seen = replace_file(&path, &new, |_| {
            assert_eq!(names(dir.path()), ["tmp"]);
            Ok(())
        });
        assert_eq!(seen.unwrap().metadata().unwrap().uid(), own.0);
        assert_eq!((mode(&path), names(dir.path())), (0o666, vec!["new".to_owned()]));
        if !rustix::process::geteuid().is_root() {
            let roots = NewFile { owner: Some((0, 0)), ..NewFile::default() };
            let error = replace_file(&path, &roots, |_| Ok(())).unwrap_err();
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(names(dir.path()), ["new"]);
        }
    }

    #[test]
    fn install_can_keep_an_existing_file() {
        let dir = tempfile::tempdir().unwrap();
        let (part, path) = (dir.path().join("part"), dir.path().join("backup.db"));
        let file = File::create(&part).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        let error = install(&file, &part, &path, Existing::Keep).unwrap_err();
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        fs::remove_file(&path).unwrap();
        install(&file, &part, &path, Existing::Keep).unwrap();
        assert_eq!(names(dir.path()), ["backup.db"]);
    }
}
