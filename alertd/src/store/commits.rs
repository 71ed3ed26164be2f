//! How many commits the store has made, beside the store: a file that was cut, or damage in the
//! WAL, can take commits away without a trace, because a WAL simply ends where its checksums do.
//!
//! Each commit writes its number into the database. When it is done, the number is written into
//! `alertd.commits` too, without a sync: it may be older than the database, but never younger. So a
//! database with a smaller number has lost commits.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tracing::warn;

/// `alertd.commits`, for the process that writes the store.
#[derive(Debug)]
pub(super) struct Commits {
    path: PathBuf,
    file: Option<File>,
    /// The id of the store.
    instance: String,
    /// The number of the last commit.
    pub(super) made: u64,
    failing: bool,
}

impl Commits {
    /// For the store at `store`, which has made so many commits.
    pub(super) fn new(store: &Path, instance: String, made: u64) -> Self {
        Self { path: store.with_extension("commits"), file: None, instance, made, failing: false }
    }

    /// How many commits the store lacks.
    pub(super) fn lacking(&self) -> u64 {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let known = parse(&text).filter(|(instance, _)| *instance == self.instance);
        known.map_or(0, |(_, made)| made.saturating_sub(self.made))
    }

    /// A commit is done. An error is said once: without the file, loss of commits goes unnoticed.
    pub(super) fn done(&mut self, made: u64) {
        self.made = made;
        match self.write() {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    warn!("cannot write {}: {error}", self.path.display());
                }
                (self.failing, self.file) = (true, None);
            }
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            // One of another store may be longer.
            file.set_len(0)?;
            self.file = Some(file);
        }
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(text(&self.instance, self.made).as_bytes(), 0)
    }
}

/// Always of the same length for one store, because it is overwritten.
fn text(instance: &str, made: u64) -> String {
    let words = format!("{instance} {made:020}");
    let crc = crc32fast::hash(words.as_bytes());
    format!("{words} {crc:08x}\n")
}

/// What [`text`] wrote; `None` if it is damaged.
fn parse(text: &str) -> Option<(&str, u64)> {
    let (words, crc) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(words.as_bytes()) {
        return None;
    }
    let (instance, made) = words.rsplit_once(' ')?;
    Some((instance, made.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_a_store_lacks_are_counted_and_those_of_another_store_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("alertd.db");
        let mut commits = Commits::new(&store, "one".into(), 0);
        assert_eq!(commits.lacking(), 0);
        commits.done(9);
        commits.done(10);
        assert_eq!(Commits::new(&store, "one".into(), 7).lacking(), 3);
        assert_eq!(Commits::new(&store, "one".into(), 11).lacking(), 0, "it was killed in between");
        assert_eq!(Commits::new(&store, "two".into(), 0).lacking(), 0);
        let file = dir.path().join("alertd.commits");
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("10", "90")).unwrap();
        assert_eq!(Commits::new(&store, "one".into(), 7).lacking(), 0, "a damaged number says nothing");
    }
}
