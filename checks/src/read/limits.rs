//! Small files under `/proc/sys` and the limits of a container: how many processes and open files
//! there can be.

use super::Source;
use crate::root::{ReadError, Root};

/// `/proc/sys/fs/file-nr`: open files of the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileNr {
    pub(crate) open: u64,
    pub(crate) max: u64,
}

impl Source for FileNr {
    const PATH: &'static str = "/proc/sys/fs/file-nr";

    fn parse(text: &str) -> Result<Self, &'static str> {
        // Allocated, free (0 since Linux 2.6), maximum.
        let numbers: Vec<u64> = text.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        match numbers[..] {
            [allocated, free, max, ..] => Ok(Self { open: allocated.saturating_sub(free), max }),
            _ => Err("expected three numbers"),
        }
    }
}

/// `/proc/sys/kernel/hung_task_detect_count`: how often a task was in state D for two minutes,
/// since boot. Only in new kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HungTasks(pub(crate) u64);

impl Source for HungTasks {
    const PATH: &'static str = "/proc/sys/kernel/hung_task_detect_count";

    fn parse(text: &str) -> Result<Self, &'static str> {
        text.trim().parse().map(Self).map_err(|_| "expected a number")
    }
}

/// One limit of the number of processes and threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskLimit {
    /// `kernel.pid_max`.
    pub(crate) name: &'static str,
    pub(crate) used: u64,
    pub(crate) max: u64,
}

/// All limits that this host or container has.
pub(crate) fn of_tasks(root: &Root) -> Result<Vec<TaskLimit>, ReadError> {
    let load = root.read("/proc/loadavg")?;
    let threads = existing_threads(&load);
    let number = |path: &str| root.read(path).ok()?.trim().parse::<u64>().ok();
    let mut limits = Vec::new();
    if let Some(used) = threads {
        for (name, path) in [
            ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
            ("kernel.threads-max", "/proc/sys/kernel/threads-max"),
        ] {
            limits.extend(number(path).map(|max| TaskLimit { name, used, max }));
        }
    }
    // Only in a container: the root of the whole tree has no such files.
    for directory in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
        let used = number(&format!("{directory}/pids.current"));
        let max = number(&format!("{directory}/pids.max"));
        if let (Some(used), Some(max)) = (used, max) {
            limits.push(TaskLimit { name: "pids.max of the container", used, max });
        }
    }
    Ok(limits)
}

/// The second number in the fourth field of `/proc/loadavg`, `2/412`.
fn existing_threads(load: &str) -> Option<u64> {
    let (_running, existing) = load.split_ascii_whitespace().nth(3)?.split_once('/')?;
    existing.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_numbers_are_parsed() {
        assert_eq!(FileNr::parse("1227\t0\t2466165\n"), Ok(FileNr { open: 1_227, max: 2_466_165 }));
        assert_eq!(
            FileNr::parse("992\t0\t9223372036854775807\n"),
            Ok(FileNr { open: 992, max: 9_223_372_036_854_775_807 })
        );
        assert!(FileNr::parse("1227 0").is_err());
        assert_eq!(HungTasks::parse("3\n"), Ok(HungTasks(3)));
        assert!(HungTasks::parse("").is_err());
        assert_eq!(existing_threads("0.38 0.28 0.28 2/100 16729\n"), Some(100));
        assert_eq!(existing_threads("0.38 0.28 0.28"), None);
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "([0-9]{1,22}|[/ \\n\t]|\\PC){0,12}") {
            let _ = (FileNr::parse(&text), HungTasks::parse(&text), existing_threads(&text));
        }
    }
}
