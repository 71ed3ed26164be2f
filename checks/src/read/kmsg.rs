//! Records of `/dev/kmsg`, `priority,sequence,microseconds,flags[,…];text`, and what they tell
//! about the host.
//!
//! Only messages of the kernel itself count. What programs write to `/dev/kmsg` has another
//! facility, so nobody can forge a message.

use crate::State;

/// What a message is about. One service each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Hardware,
    Disk,
    Filesystem,
    Kernel,
    Lockup,
    HungTask,
    OutOfMemory,
    Network,
}

impl Topic {
    pub(crate) const ALL: [Self; 8] = [
        Self::Hardware,
        Self::Disk,
        Self::Filesystem,
        Self::Kernel,
        Self::Lockup,
        Self::HungTask,
        Self::OutOfMemory,
        Self::Network,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware errors",
            Self::Disk => "disk errors",
            Self::Filesystem => "filesystem errors",
            Self::Kernel => "kernel bugs",
            Self::Lockup => "lockups",
            Self::HungTask => "hung tasks",
            Self::OutOfMemory => "out of memory",
            Self::Network => "network resets",
        }
    }
}

/// What is worth counting in a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    Problem(Topic, State),
    /// A program crashed. Which one, and whether that matters, its service knows.
    Segfault,
}

/// The text of a record, if the kernel wrote it.
pub(crate) fn text(record: &str) -> Option<&str> {
    let (header, text) = record.split_once(';')?;
    let priority: u32 = header.split(',').next()?.parse().ok()?;
    let facility = priority >> 3;
    (facility == 0).then_some(text)
}

/// What a text of the kernel is about, if anything.
pub(crate) fn event(text: &str) -> Option<Event> {
    if text.contains("segfault at ") {
        return Some(Event::Segfault);
    }
    // `traps: nginx[1234] general protection fault ip:…` is about a program.
    if text.starts_with("traps: ") || NOISE.iter().any(|noise| text.contains(noise)) {
        return None;
    }
    // Some of these are in all capitals in one version of the kernel and not in the next.
    let found = SIGNS.iter().find(|(sign, ..)| text.contains(sign));
    found.map(|&(_, topic, state)| Event::Problem(topic, state))
}

/// Drives without a medium, and errors within a container's own memory limit.
const NOISE: &[&str] = &["dev fd0", "dev sr", "Memory cgroup out of memory"];

/// The first match counts.
const SIGNS: &[(&str, Topic, State)] = {
    use State::{Critical, Warning};
    use Topic::{Disk, Filesystem, Hardware, HungTask, Kernel, Lockup, Network, OutOfMemory};
    &[
        ("EXT4-fs error", Filesystem, Critical),
        ("Remounting filesystem read-only", Filesystem, Critical),
        ("JBD2: Error", Filesystem, Critical),
        ("Aborting journal", Filesystem, Critical),
        ("EXT4-fs warning", Filesystem, Warning),
        ("has been shut down due to", Filesystem, Critical),
        ("Corruption of in-memory data", Filesystem, Critical),
        ("Metadata corruption detected", Filesystem, Critical),
        ("metadata I/O error", Filesystem, Critical),
        ("BTRFS critical", Filesystem, Critical),
        ("BTRFS error", Filesystem, Critical),
        ("csum failed", Filesystem, Critical),
        ("F2FS-fs error", Filesystem, Critical),
        ("lost async page write", Disk, Critical),
        ("lost page write", Disk, Critical),
        ("lost sync page write", Disk, Critical),
        ("critical medium error", Disk, Warning),
        ("critical target error", Disk, Warning),
        ("I/O error, dev ", Disk, Warning),
        ("Buffer I/O error on dev", Disk, Warning),
        ("failed command: ", Disk, Warning),
        ("hard resetting link", Disk, Warning),
        ("rejecting I/O to offline device", Disk, Warning),
        ("controller is down; will reset", Disk, Warning),
        ("Disk failure on ", Disk, Warning),
        ("Uncorrected error", Hardware, Critical),
        ("Uncorrectable error", Hardware, Critical),
        ("severity: fatal", Hardware, Critical),
        ("AER: Uncorrect", Hardware, Critical),
        ("Memory failure: ", Hardware, Critical),
        (" UE ", Hardware, Critical),
        ("Machine check events logged", Hardware, Warning),
        ("[Hardware Error]", Hardware, Warning),
        ("Kernel panic", Kernel, Critical),
        ("kernel BUG at ", Kernel, Critical),
        ("BUG: unable to handle", Kernel, Critical),
        ("BUG: kernel NULL pointer", Kernel, Critical),
        ("Oops: ", Kernel, Critical),
        ("general protection fault", Kernel, Critical),
        ("soft lockup - CPU#", Lockup, Warning),
        ("hard LOCKUP", Lockup, Critical),
        ("detected stall", Lockup, Warning),
        ("self-detected stall", Lockup, Warning),
        ("blocked for more than ", HungTask, Warning),
        ("Out of memory: Kill", OutOfMemory, Warning),
        ("NETDEV WATCHDOG: ", Network, Warning),
        ("Detected Hardware Unit Hang", Network, Warning),
        ("Reset adapter", Network, Warning),
    ]
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_the_kernel_have_a_topic() {
        use State::{Critical, Warning};
        for (text, topic, state) in [
            ("mce: [Hardware Error]: Machine check events logged", Topic::Hardware, Warning),
            ("EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0", Topic::Hardware, Critical),
            ("I/O error, dev sda, sector 2048 op 0x0:(READ) flags 0x0", Topic::Disk, Warning),
            ("blk_update_request: critical medium error, dev sdb, sector 1000", Topic::Disk, Warning),
            ("Buffer I/O error on dev dm-1, logical block 0, lost async page write", Topic::Disk, Critical),
            ("EXT4-fs error (device sda1): ext4_lookup:1700: inode #2: comm ls", Topic::Filesystem, Critical),
            ("EXT4-fs (sda1): Remounting filesystem read-only", Topic::Filesystem, Critical),
            ("XFS (sdb1): Metadata corruption detected at xfs_agf_verify", Topic::Filesystem, Critical),
            ("XFS (dm-0): metadata I/O error in \"xlog_iodone\" at daddr 0x64", Topic::Filesystem, Critical),
            ("BTRFS error (device sda): bdev /dev/sda errs: wr 1, rd 0", Topic::Filesystem, Critical),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:34]", Topic::Lockup, Warning),
            ("INFO: task jbd2/sda1-8:212 blocked for more than 120 seconds.", Topic::HungTask, Warning),
            ("Out of memory: Killed process 4242 (java) total-vm:8123456kB", Topic::OutOfMemory, Warning),
            ("NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out", Topic::Network, Warning),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000000", Topic::Kernel, Critical),
        ] {
            assert_eq!(event(text), Some(Event::Problem(topic, state)), "{text}");
        }
        assert_eq!(event("nginx[12]: segfault at 0 ip 00 sp 00 error 4 in nginx[55]"), Some(Event::Segfault));
        for text in [
            "traps: app[1] general protection fault ip:7f sp:7f error:0 in libc.so.6",
            "I/O error, dev fd0, sector 0 op 0x0:(READ)",
            "Buffer I/O error on dev sr0, logical block 0, async page read",
            "Memory cgroup out of memory: Killed process 99 (worker)",
            "BTRFS info (device sda): bdev /dev/sda errs: wr 1, rd 0",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode",
            "usb 1-1: new high-speed USB device number 2",
        ] {
            assert_eq!(event(text), None, "{text}");
        }
    }

    #[test]
    fn programs_cannot_forge_a_message_of_the_kernel() {
        assert_eq!(
            text("6,339,5140900,-;NET: Registered protocol family 10"),
            Some("NET: Registered protocol family 10")
        );
        assert_eq!(text("2,340,5140900,-,caller=T1;EXT4-fs error"), Some("EXT4-fs error"));
        assert_eq!(text("12,341,5140900,-;EXT4-fs error (forged)"), None);
        assert_eq!([" SUBSYSTEM=acpi", "", ";", "x,1;y"].map(text), [None; 4]);
    }

    proptest! {
        #[test]
        fn any_record_can_be_read(record in "\\PC{0,60}") {
            let _ = (text(&record), event(&record));
        }
    }
}
