//! How long `cache.log` was when it was last synced, beside the log: a log that was cut between two
//! records looks as if it had always been so short.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use super::LENGTH;

/// Bytes of the log that were on the disk; `None` if that is not known. `salt` is that of the log,
/// if it still has one.
pub(super) fn read(dir: &Path, salt: Option<u32>) -> Option<u64> {
    let (of, length) = parse(&fs::read(dir.join(LENGTH)).ok()?)?;
    salt.is_none_or(|salt| salt == of).then_some(length)
}

/// Records a length, after a sync. The file itself is not synced: an older number does no harm.
pub(super) fn write(dir: &Path, salt: u32, length: u64) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir.join(LENGTH), flags, Mode::from_raw_mode(0o640))?;
    rustix::io::pwrite(&file, &bytes(salt, length), 0)?;
    Ok(())
}

/// The log ends: it is merged into the snapshot.
pub(super) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(LENGTH)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `length:u64 salt:u32 crc:u32`, little-endian.
fn bytes(salt: u32, length: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u32, u64)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (salt, crc) = rest.split_first_chunk::<4>()?;
    let intact = *crc == crc32fast::hash(bytes.get(..12)?).to_le_bytes();
    intact.then(|| (u32::from_le_bytes(*salt), u64::from_le_bytes(*length)))
}
