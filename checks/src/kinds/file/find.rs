//! Finds the files of a path or pattern.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Pattern, name::escaped, root::Root};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) files: Vec<Found>,
    /// A directory or file that exists and cannot be read.
    pub(super) error: Option<String>,
    /// There were more than [`ENTRIES_MAX`].
    pub(super) is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    /// Unix time of the last change of the content.
    pub(super) changed: i64,
    pub(super) size: u64,
    pub(super) mode: u32,
}

/// A mistake must not read a whole disk.
pub(super) const ENTRIES_MAX: usize = 20_000;

pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

/// What is wrong with a path.
pub(super) fn error(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("must start with a slash")
    } else if path.contains("**") {
        Some("has `**`, and a pattern matches within one directory only")
    } else if path.contains(['[', ']', '{', '}']) && is_pattern(path) {
        Some("is a pattern, where only `*` and `?` have a meaning")
    } else {
        None
    }
}

/// A pattern finds no hidden files, unless it starts with a dot. It finds directories only if it
/// ends with a slash, and then nothing else.
pub(super) fn find(root: &Root, path: &str) -> Look {
    let mut look = Look::default();
    let mut budget = ENTRIES_MAX;
    let mut found = vec![PathBuf::from("/")];
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !is_pattern(part) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let pattern = Pattern::new(part);
        let mut below = Vec::new();
        for directory in &found {
            let entries = match fs::read_dir(root.path(directory)) {
                Ok(entries) => entries,
                Err(error) => {
                    look.fail(directory, &error);
                    continue;
                }
            };
            for entry in entries.filter_map(Result::ok) {
                if budget == 0 {
                    look.is_cut = true;
                    break;
                }
                budget -= 1;
                let name = entry.file_name();
                let shown = escaped(&name);
                let is_hidden = shown.starts_with('.') && !part.starts_with('.');
                if !is_hidden && pattern.matches(&shown) {
                    below.push(directory.join(name));
                }
            }
        }
        found = below;
    }
    found.sort();
    for file in found {
        match fs::metadata(root.path(&file)) {
            Ok(data) if is_pattern(path) && data.is_dir() != path.ends_with('/') => {}
            Ok(data) => look.files.push(Found {
                changed: data.mtime(),
                size: data.len(),
                mode: data.mode(),
                path: escaped(file),
            }),
            Err(error) => look.fail(&file, &error),
        }
    }
    look
}

impl Look {
    /// A file that is gone is none, also if it vanished meanwhile.
    fn fail(&mut self, path: &Path, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            self.error.get_or_insert(format!("cannot read {}: {error}", escaped(path)));
        }
    }
}
