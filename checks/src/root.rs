//! Reads `/proc`, `/sys` and `/run` of this host, or of a captured tree in a test.
//!
//! On the live host, the load comes from the `sysinfo` crate. Its paths are fixed, so this file
//! reads captured trees itself, and a test checks that both return the same numbers on the host of
//! the test. `sysinfo` is not used for memory and swap: it has no huge pages, so
//! [`crate::read::meminfo`] reads both. It is not used for disks either: it has no inodes, does not
//! notice a read-only remount (`is_read_only` is read only once), and hangs on a dead mount
//! (0.40.1). Its API changes with every minor version, so it is used only in this file.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
    path::Arg,
};
use sysinfo::System;

use crate::{CheckResult, Finding, Findings, Judgement};

/// The root directory for the checks.
#[derive(Debug, Clone)]
pub struct Root {
    /// `None` for the live host.
    tree: Option<PathBuf>,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot parse {path}: {why}", path = path.display())]
    Format { path: PathBuf, why: &'static str },
    #[error("cannot read {what}: {source}")]
    Sysinfo { what: &'static str, source: sysinfo::Error },
}

impl From<ReadError> for Judgement {
    /// The check as a whole is UNKNOWN; nothing is known about its things.
    fn from(error: ReadError) -> Self {
        Self::new(move |_| Findings {
            list: vec![Finding::whole(CheckResult::unknown(error.to_string()))],
            ..Findings::default()
        })
    }
}

/// Load averages over 1, 5 and 15 minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadAverage(pub [f64; 3]);

/// The usage of a filesystem from `statvfs(3)`, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsUsage {
    /// `Used` of `df`. Root's reserve counts neither as used nor as free.
    pub used: u64,
    /// `Avail` of `df`: free for users other than root.
    pub free: u64,
    /// Free for root only.
    pub reserved: u64,
    /// 0 if the filesystem has no fixed number of inodes (btrfs, vfat).
    pub inodes: u64,
    pub inodes_free: u64,
    /// The mount that these numbers are of. `None` before Linux 5.8.
    pub mount: Option<MountedAs>,
}

/// The mount that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountedAs {
    /// The first field of a line of `mountinfo`.
    pub id: u64,
    /// The path is the mount point itself, not a directory below it.
    pub is_root: bool,
}

impl Root {
    pub const fn live() -> Self {
        Self { tree: None }
    }

    /// A captured tree: `tree/proc/loadavg` stands for `/proc/loadavg`.
    pub fn captured(tree: impl Into<PathBuf>) -> Self {
        Self { tree: Some(tree.into()) }
    }

    pub const fn is_live(&self) -> bool {
        self.tree.is_none()
    }

    /// The path of `absolute` below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        match &self.tree {
            None => absolute.to_owned(),
            Some(tree) => tree.join(absolute.strip_prefix("/").unwrap_or(absolute)),
        }
    }

    /// A text with paths in which the kernel escapes bytes as `\ooo` (proc(5)). Bytes that are no
    /// UTF-8 become such escapes too, so that no path is lost.
    pub(crate) fn read_escaped(&self, absolute: &str) -> Result<String, ReadError> {
        let path = self.path(absolute);
        let bytes = fs::read(&path).map_err(|source| ReadError::Io { path, source })?;
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
        Ok(text)
    }

    pub fn read(&self, absolute: &str) -> Result<String, ReadError> {
        let bytes = match &self.tree {
            None => read_whole(absolute),
            Some(_) => read_whole(self.path(absolute)),
        };
        let bytes = bytes.map_err(|source| ReadError::Io { path: self.path(absolute), source })?;
        // One odd name of a mount point must not hide all others.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned()))
    }

    pub fn load_average(&self) -> Result<LoadAverage, ReadError> {
        if self.is_live() {
            let load = System::load_average()
                .map_err(|source| ReadError::Sysinfo { what: "the load average", source })?;
            return Ok(LoadAverage([load.one, load.five, load.fifteen]));
        }
        let text = self.read("/proc/loadavg")?;
        let mut numbers = text.split_whitespace().map_while(|field| field.parse().ok());
        match [numbers.next(), numbers.next(), numbers.next()] {
            [Some(one), Some(five), Some(fifteen)] => Ok(LoadAverage([one, five, fifteen])),
            _ => Err(self.format("/proc/loadavg", "expected three numbers")),
        }
    }

    /// Number of processors that are online; at least 1.
    pub fn cores(&self) -> Result<usize, ReadError> {
        let text = self.read("/sys/devices/system/cpu/online")?;
        count_cpu_list(text.trim())
            .ok_or_else(|| self.format("/sys/devices/system/cpu/online", "expected a list like 0-3,8"))
    }

    /// Can hang as long as the filesystem does, so call it through [`crate::statvfs`]. A captured
    /// tree has a file `statvfs` instead, with one line per path: `path block_size blocks free
    /// available inodes inodes_free [mount_id]`, or `path EACCES`.
    pub(crate) fn statvfs(&self, path: &Path) -> io::Result<FsUsage> {
        let Some(tree) = &self.tree else {
            let fs = rustix::fs::statvfs(path)?;
            let numbers = [fs.f_frsize, fs.f_blocks, fs.f_bfree, fs.f_bavail, fs.f_files, fs.f_ffree];
            return Ok(FsUsage { mount: mounted_as(path), ..FsUsage::new(numbers) });
        };
        let table = fs::read_to_string(tree.join("statvfs"))?;
        let line = table.lines().find_map(|line| line.strip_prefix(path.to_str()?)?.strip_prefix(' '));
        if line == Some("EACCES") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let numbers: Vec<u64> =
            line.unwrap_or_default().split(' ').map_while(|field| field.parse().ok()).collect();
        let mount = numbers.get(6).map(|&id| MountedAs { id, is_root: true });
        let usage = numbers.first_chunk().map(|&numbers| FsUsage { mount, ..FsUsage::new(numbers) });
        usage.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn format(&self, absolute: &str, why: &'static str) -> ReadError {
        ReadError::Format { path: self.path(absolute), why }
    }
}

impl FsUsage {
    /// Used or free for users other than root.
    pub(crate) fn total(&self) -> u64 {
        self.used.saturating_add(self.free)
    }

    fn new([block, blocks, free, available, inodes, inodes_free]: [u64; 6]) -> Self {
        Self {
            used: blocks.saturating_sub(free).saturating_mul(block),
            free: available.saturating_mul(block),
            reserved: free.saturating_sub(available).saturating_mul(block),
            inodes,
            inodes_free,
            mount: None,
        }
    }
}

/// A second mount at the same path, or one above it, hides a mount: only its id tells.
fn mounted_as(path: &Path) -> Option<MountedAs> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID)
        && stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    known.then_some(MountedAs { id: stat.stx_mnt_id, is_root })
}

/// Files of the kernel have no size, so std would ask for it in vain, and read twice at their end.
fn read_whole(path: impl Arg) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        match rustix::io::read(&file, spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Most files of the kernel are smaller.
const READ_BYTES: usize = 4_096;

/// Whether systemd is the init of this host; the same test as in `sd_booted(3)`.
pub fn runs_systemd(root: &Root) -> bool {
    Path::is_dir(&root.path("/run/systemd/system"))
}

/// Whether this host is a container, which sees the hardware of its host and must leave it to that.
pub(crate) fn in_container(root: &Root) -> bool {
    let marks = ["/run/systemd/container", "/run/.containerenv", "/.dockerenv"];
    marks.iter().any(|mark| root.path(mark).exists())
}

/// `0-3,8` → 5.
fn count_cpu_list(list: &str) -> Option<usize> {
    let mut count = 0_usize;
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?);
        count = count.checked_add(to.checked_sub(from)?)?.checked_add(1)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_reading_return_the_same_numbers_on_this_host() {
        let by_hand = Root::captured("/");
        let live = Root::live();
        // Other work on the host changes these between the two readings. A wrong unit would be off
        // by a factor of a thousand.
        let close = |a: f64, b: f64, slack: f64| (a - b).abs() <= slack;
        let one = |root: &Root| root.load_average().unwrap().0[0];
        assert!(close(one(&by_hand), one(&live), 1.0));
    }

    #[test]
    fn processors_are_counted_from_the_list_of_the_kernel() {
        assert_eq!(["0", "0-1", "0-3,8", "0,2-3"].map(count_cpu_list), [Some(1), Some(2), Some(5), Some(3)]);
        assert_eq!(["", "a", "3-1", "0-", "1-99999999999999999999"].map(count_cpu_list), [None; 5]);
        assert!(Root::live().cores().unwrap() >= 1);
    }
}
