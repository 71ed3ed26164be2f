//! A password, key or token in a file. It is read at each use, so a new secret needs no reload. It
//! never appears in a log, a command line or an error.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A longer file is not a secret; the path must be wrong.
const BYTES_MAX: u64 = 16 * 1024;

/// The path of a secret. Prints as that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The first line, without its line end. The error is a message for the operator.
    pub fn read(&self) -> Result<String, String> {
        self.lines().map(|mut lines| lines.swap_remove(0))
    }

    /// All lines that are not empty, at least one.
    pub fn lines(&self) -> Result<Vec<String>, String> {
        let path = self.0.display();
        let mut text = String::new();
        File::open(&self.0)
            .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| format!("cannot read the secret in {path}: {error}"))?;
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if lines.is_empty() {
            return Err(format!("{path} is empty; write the secret into it"));
        }
        if lines.iter().any(|line| line.chars().any(char::is_control)) {
            return Err(format!("{path} contains control characters; it must be one line of text"));
        }
        Ok(lines)
    }
}

/// For people: files named in this config that do not exist, and secrets that every user can read.
pub fn doubtful_files(config: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(table) = config.parse::<toml::Table>() {
        look_at(&toml::Value::Table(table), &mut found);
    }
    found
}

/// Keys of files with secrets; `key` is that of a TLS server.
fn holds_secret(key: &str) -> bool {
    let kinds = ["password_file", "token_file", "secret_file", "url_file", "key_file"];
    key == "key" || kinds.iter().any(|kind| key.ends_with(kind))
}

/// Keys of files that the daemon reads and does not create, as it does `key_file`.
fn must_exist(key: &str) -> bool {
    key != "key_file" && (holds_secret(key) || key == "ca_file" || key == "certificate")
}

fn look_at(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let program = value.as_array().filter(|_| key == "command").and_then(|words| words.first());
                let path = program.unwrap_or(value).as_str().filter(|path| path.starts_with('/'));
                match path {
                    Some(path) if program.is_some() || must_exist(key) || holds_secret(key) => {
                        let missing =
                            (program.is_some() || must_exist(key)).then(|| missing(key, path.as_ref()));
                        let exposed = holds_secret(key).then(|| exposed(path.as_ref()));
                        found.extend(missing.flatten().or(exposed.flatten()));
                    }
                    _ => look_at(value, found),
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| look_at(value, found)),
        _ => {}
    }
}

/// Not if it cannot be seen, for example by another user than the daemon's.
fn missing(key: &str, path: &Path) -> Option<String> {
    let error = fs::metadata(path).err().filter(|error| error.kind() == std::io::ErrorKind::NotFound);
    error.map(|_| format!("{key} {} does not exist", path.display()))
}

fn exposed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let path = path.display();
    (mode & 0o004 != 0)
        .then(|| format!("every user of this host can read the secret in {path}; run `chmod o-r {path}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S15.
    #[test]
    fn a_secret_that_everybody_can_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (open, closed, ca) = (file("open", 0o644), file("closed", 0o640), file("ca", 0o644));
        let config = format!(
            "[receiver.a.email]\npassword_file = \"{open}\"\nca_file = \"{ca}\"\n\
             [receiver.b.ntfy]\ntoken_file = \"{closed}\"\n[alertd.listen]\nkey = \"{open}\"\n\
             [receiver.c.webhook]\nsecret_file = \"{closed}\"\n"
        );
        let found = doubtful_files(&config);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|words| words.contains(&open)));
    }

    #[test]
    fn a_file_or_program_that_does_not_exist_is_named() {
        let found = doubtful_files(
            "[receiver.a.email]\npassword_file = \"/no/a\"\n[receiver.b.webhook]\nsecret_file = \"/no/b\"\n\
             ca_file = \"/no/ca\"\n[[receiver.c]]\nexec.command = [\"/no/program\", \"/no/matter\"]\n\
             [alertd.listen]\ncertificate = \"/no/c\"\nkey = \"/no/k\"\n\
             [alertd.web]\nkey_file = \"/no/one/yet\"\n[receiver.d.exec]\ncommand = [\"/bin/sh\"]\n",
        );
        let mut found: Vec<_> =
            found.iter().map(|words| words.strip_suffix(" does not exist").unwrap()).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "ca_file /no/ca",
                "certificate /no/c",
                "command /no/program",
                "key /no/k",
                "password_file /no/a",
                "secret_file /no/b",
            ]
        );
    }

    #[test]
    fn a_secret_is_one_line_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = SecretFile::new(path.clone());
        assert!(secret.read().unwrap_err().contains("cannot read the secret in"));
        fs::write(&path, "").unwrap();
        assert!(secret.read().unwrap_err().contains("is empty"));
        fs::write(&path, "s3cret\nolder\n").unwrap();
        assert_eq!(secret.read().unwrap(), "s3cret");
        assert_eq!(secret.lines().unwrap(), ["s3cret", "older"]);
        fs::write(&path, "s3c\u{1b}ret\n").unwrap();
        assert!(!secret.read().unwrap_err().contains("s3c"));
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
