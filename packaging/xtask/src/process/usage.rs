//! What processes use, from procfs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

/// Memory, threads and CPU time of a process and its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) processes: usize,
    pub(crate) threads: u64,
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    /// User and system time, also of threads that have ended and of children that were reaped.
    pub(crate) cpu: Duration,
}

/// The processes of this host, as `/proc/PID/stat` describes them.
pub(crate) struct Table(BTreeMap<u32, Process>);

#[derive(Clone, Copy)]
struct Process {
    parent: u32,
    threads: u64,
    cpu: Duration,
    started: u64,
    /// Ended, but its parent has not waited for it.
    zombie: bool,
}

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    started: u64,
}

impl Table {
    pub(crate) fn read() -> Self {
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(|pid| Some((pid, process(pid)?))).collect())
    }

    /// A process and its descendants.
    pub(crate) fn tree(&self, root: u32) -> Vec<Identity> {
        let mut found = BTreeSet::from([root]);
        loop {
            let children = self.0.iter().filter(|(_, one)| found.contains(&one.parent)).map(|(pid, _)| *pid);
            let all: BTreeSet<u32> = children.chain(found.iter().copied()).collect();
            if all.len() == found.len() {
                break;
            }
            found = all;
        }
        let known = found.into_iter().filter_map(|pid| Some((pid, self.0.get(&pid)?.started)));
        known.map(|(pid, started)| Identity { pid, started }).collect()
    }

    pub(crate) fn holds(&self, identity: Identity) -> bool {
        self.0.get(&identity.pid).is_some_and(|process| process.started == identity.started)
    }

    /// Descendants that have ended and wait for their parent.
    pub(crate) fn zombies(&self, root: u32) -> Vec<Identity> {
        let zombie = |one: &Identity| self.0.get(&one.pid).is_some_and(|process| process.zombie);
        self.tree(root).into_iter().filter(zombie).collect()
    }

    /// What a process and its descendants use now.
    pub(crate) fn usage(&self, root: u32) -> Usage {
        let mut sum = Usage::default();
        for Identity { pid, .. } in self.tree(root) {
            let Some(process) = self.0.get(&pid) else { continue };
            let (rss_kib, pss_kib) = memory_kib(pid).unwrap_or_default();
            sum.processes += 1;
            sum.threads += process.threads;
            sum.cpu += process.cpu;
            sum.rss_kib += rss_kib;
            sum.pss_kib += pss_kib;
        }
        sum
    }
}

/// CPU time of a process, of its ended threads and of the children that it reaped.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    process(pid).map(|process| process.cpu)
}

/// proc_pid_stat(5). The command may contain spaces; the first field after it is field 3.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Process {
        parent: u32::try_from(number(4)?).ok()?,
        threads: number(20)?,
        cpu: Duration::from_millis(ticks * 1_000 / ticks_per_second()),
        started: number(22)?,
        zombie: fields.first() == Some(&"Z"),
    })
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Resident and proportional memory.
fn memory_kib(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches(" kB").parse().ok()
    };
    Some((line("Rss:")?, line("Pss:")?))
}
