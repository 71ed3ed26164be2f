//! `/proc/PID/` (proc_pid_stat(5)): all processes, one small file each. With a hundred processes,
//! `sysinfo` takes ten times as long.

use std::{fmt::Write as _, fs, io, path::Path, sync::Arc};

use rustix::fs::{Dir, Mode, OFlags};

use super::Readings;
use crate::root::{ReadError, Root};

/// A process, as of its line in `stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The first 15 bytes of its name.
    pub(crate) name: String,
    /// `b'R'`, `b'S'`, `b'D'`, `b'Z'`, … of its main thread.
    pub(crate) state: u8,
    pub(crate) parent: u32,
    pub(crate) of_kernel: bool,
    /// Time on processors, in ticks.
    pub(crate) ticks: u64,
    /// When it started, in ticks after boot.
    pub(crate) started: u64,
    pub(crate) resident_pages: u64,
}

impl Process {
    /// Unlike the pid alone, no later process has the same.
    pub(crate) fn id(&self) -> String {
        format!("{} {}", self.pid, self.started)
    }

    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// All processes of a host at one time.
#[derive(Debug)]
pub(crate) struct Processes(pub(crate) Vec<Process>);

/// All processes that this user can see. A process that ends meanwhile is left out.
pub(crate) fn all(readings: &Readings) -> Result<Arc<Processes>, ReadError> {
    readings.share(|root| {
        let path = root.path("/proc");
        read_all(&path).map(Processes).map_err(|source| ReadError::Io { path, source })
    })
}

/// Three calls of the kernel for a process: open, read, close.
fn read_all(proc: &Path) -> io::Result<Vec<Process>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut entries = Dir::new(rustix::fs::open(proc, flags, Mode::empty())?)?;
    let mut pids = Vec::new();
    while let Some(entry) = entries.read() {
        pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    let proc = entries.fd()?;
    let mut processes = Vec::with_capacity(pids.len());
    let (mut path, mut line) = (String::new(), [0_u8; LINE_BYTES]);
    for pid in pids {
        path.clear();
        let _ = write!(path, "{pid}/stat");
        let stat = rustix::fs::openat(proc, &*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        if let Ok(length) = stat.and_then(|stat| rustix::io::read(stat, &mut line)) {
            processes.extend(parse(pid, &line[..length]));
        }
    }
    Ok(processes)
}

/// The kernel writes the line at once. What is read of it is in the first half.
const LINE_BYTES: usize = 2_048;

/// The name may contain spaces, parentheses and bytes that are not UTF-8.
fn parse(pid: u32, line: &[u8]) -> Option<Process> {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')').filter(|&close| close > open)?;
    let name = String::from_utf8_lossy(&line[open + 1..close]).into_owned();
    let rest = std::str::from_utf8(&line[close + 1..]).ok()?;
    // proc_pid_stat(5) counts from 1, and the state is number 3.
    let mut fields = [""; 22];
    for (field, text) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
        *field = text;
    }
    let number = |at: usize| fields[at - 3].parse::<u64>().ok();
    Some(Process {
        pid,
        name,
        state: *fields[0].as_bytes().first()?,
        parent: u32::try_from(number(4)?).ok()?,
        of_kernel: number(9)? & KERNEL_THREAD != 0,
        ticks: number(14)?.saturating_add(number(15)?),
        started: number(22)?,
        resident_pages: number(24)?,
    })
}

/// The arguments, separated by spaces. Empty for kernel threads.
pub(crate) fn command_line(root: &Root, pid: u32) -> String {
    let bytes = fs::read(root.path(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').replace('\0', " ")
}

/// The user that the process runs as.
pub(crate) fn user(root: &Root, pid: u32) -> Option<u32> {
    let status = root.read(&format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // Real, effective, saved, filesystem.
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Number of open files and its limit.
pub(crate) fn open_files(root: &Root, pid: u32) -> io::Result<(u64, u64)> {
    let limits = fs::read_to_string(root.path(format!("/proc/{pid}/limits")))?;
    let limit = open_files_limit(&limits).ok_or(io::ErrorKind::InvalidData)?;
    let fds = root.path(format!("/proc/{pid}/fd"));
    // Since Linux 6.2 the size of the directory is the number, which needs no permission.
    let size = fs::metadata(&fds)?.len();
    if root.is_live() && size > 0 {
        return Ok((size, limit));
    }
    Ok((u64::try_from(fs::read_dir(fds)?.count()).unwrap_or(u64::MAX), limit))
}

/// The soft limit.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The kernel function in which a process sleeps, if this user may know it.
pub(crate) fn sleeps_in(root: &Root, pid: u32) -> Option<String> {
    let name = root.read(&format!("/proc/{pid}/wchan")).ok()?;
    (!matches!(name.trim(), "" | "0")).then(|| name.trim().to_owned())
}

/// Whether its container is paused with the freezer of cgroup v1. The state of such a process is D.
pub(crate) fn is_frozen(root: &Root, pid: u32) -> bool {
    let cgroups = root.read(&format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = cgroups.lines().find_map(|line| line.split_once(":freezer:"));
    path.is_some_and(|(_, path)| {
        let state = root.read(&format!("/sys/fs/cgroup/freezer{path}/freezer.state"));
        state.is_ok_and(|state| state.trim() == "FROZEN")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let line = b"25059 (a) R (\xff b) D 25035 25035 8441 0 -1 4194304 103 0 7 0 40 2 0 0 20 0 5 0 1380239 2998272 423 184467\n";
        let process = parse(25_059, line).unwrap();
        assert_eq!(
            (process.name.as_str(), process.state, process.parent),
            ("a) R (\u{fffd} b", b'D', 25_035)
        );
        assert_eq!((process.ticks, process.started, process.resident_pages), (42, 1_380_239, 423));
        assert!(!process.of_kernel && process.is_running());
        let kernel = b"13 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 9 0 0 20 0 1 0 12 0 0";
        assert!(parse(13, kernel).unwrap().of_kernel);
        for wrong in ["", "1", "1 (a", "1 )a(", "1 (a)", "1 (a) S 1 2 3"] {
            assert_eq!(parse(1, wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        assert_eq!(open_files_limit(limits), Some(1_024));
        assert_eq!(open_files_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files_limit("Max processes 5 5"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let root = Root::live();
        let pid = std::process::id();
        let all = all(&Readings::new(root.clone())).unwrap();
        let this = all.0.iter().find(|process| process.pid == pid).unwrap();
        assert!(this.is_running() && this.resident_pages > 0);
        assert!(command_line(&root, pid).contains("dogwatch_checks"));
        let (open, limit) = open_files(&root, pid).unwrap();
        assert!(open >= 3 && limit > open, "{open} of {limit}");
        assert_eq!(user(&root, pid), Some(rustix::process::geteuid().as_raw()));
        assert!(!is_frozen(&root, pid));
    }

    proptest! {
        #[test]
        fn any_line_can_be_parsed(line in proptest::collection::vec(any::<u8>(), 0..80), text in "1 \\(a\\)( [0-9S-]{1,21}){0,25}") {
            parse(1, &line);
            parse(1, text.as_bytes());
            open_files_limit(&text);
        }
    }
}
