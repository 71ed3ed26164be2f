//! Writes files, directories and gzip streams that are the same on every machine.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

/// Compresses with gzip, without a file name and time, so that the same input gives the same
/// package.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip").arg("-9n").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("gzip has no stdin")?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer of gzip's input panicked"))??;
    Ok(output.stdout)
}

pub(crate) fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    directory(to.parent().context("a file has a folder")?)?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Makes a directory with mode 0755, whatever the umask: it becomes the mode on the installed
/// system.
pub(crate) fn directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        directory(parent)?;
    }
    fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
