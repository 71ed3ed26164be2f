//! The text of the repository: from a folder, or from a revision as git has it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// Folders that hold output, by name, wherever they are.
const SKIPPED: &[&str] = &["dist", "fixtures", "target", "var"];
const EXTENSIONS: &[&str] = &["conf", "md", "rs", "service", "socket", "sql", "toml", "yml"];

/// The text files that the house rules read, by path from the top of the repository.
pub(super) struct Sources(BTreeMap<String, String>);

impl Sources {
    pub(super) fn of_folder(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        walk(root, "", &mut files)?;
        Ok(Self(files))
    }

    /// Reads a git revision without a checkout.
    pub(super) fn of_revision(root: &Path, revision: &str) -> Result<Self> {
        let names = git(root, &["ls-tree", "-r", "--name-only", revision])?;
        let names: Vec<_> = names.lines().filter(|name| is_read(name)).collect();
        let mut child = Command::new("git")
            .args(["cat-file", "--batch"])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start git")?;
        let mut wanted = child.stdin.take().context("git has no stdin")?;
        let list: Vec<_> = names.iter().map(|name| format!("{revision}:{name}\n")).collect();
        let writer = thread::spawn(move || wanted.write_all(list.concat().as_bytes()));
        let mut bytes = Vec::new();
        child.stdout.take().context("git has no stdout")?.read_to_end(&mut bytes)?;
        writer.join().map_err(|_| anyhow::anyhow!("writing to git panicked"))??;
        if !child.wait()?.success() {
            bail!("git cat-file failed");
        }
        let mut files = BTreeMap::new();
        let mut rest = bytes.as_slice();
        for name in names {
            let text;
            (text, rest) = object(rest).with_context(|| format!("git has no {revision}:{name}"))?;
            files.insert(name.to_owned(), String::from_utf8_lossy(text).into_owned());
        }
        Ok(Self(files))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The files below `folder` whose name ends with `extension`, with their text.
    pub(super) fn below<'a>(
        &'a self,
        folder: &'a str,
        extension: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(extension))
    }
}

/// One answer of `git cat-file --batch`: `ID blob SIZE`, the bytes, a newline.
fn object(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let size: usize = header.rsplit(' ').next()?.parse().ok()?;
    let body = &bytes[end + 1..];
    Some((body.get(..size)?, body.get(size + 1..)?))
}

pub(super) fn git(root: &Path, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new("git").args(arguments).current_dir(root).output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Skips the same as [`walk`].
fn is_read(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let name = parts.next().unwrap_or_default();
    let wanted = name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension));
    wanted && parts.all(|folder| !is_skipped(folder))
}

fn is_skipped(folder: &str) -> bool {
    folder.starts_with('.') || SKIPPED.contains(&folder)
}

fn walk(root: &Path, folder: &str, files: &mut BTreeMap<String, String>) -> Result<()> {
    let at = root.join(folder);
    for entry in fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() && !is_skipped(&name) {
            walk(root, &path, files)?;
        } else if kind.is_file() && is_read(&path) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.insert(path, text);
        }
    }
    Ok(())
}
