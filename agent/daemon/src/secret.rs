//! A password, key or token in a file. It is read at each use, so a new secret needs no reload. It
//! never appears in a log, a command line or an error.

use std::{fs::File, io::Read, path::PathBuf};

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
