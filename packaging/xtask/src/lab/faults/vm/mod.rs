//! The faults that need a kernel of their own: disks, RAID, sensors, clocks, cgroup v2.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use super::{
    Options,
    drill::Report,
    inject,
    list::{CRITICAL, Fault, Place, WARNING, fault},
};
use crate::{
    clock, deb,
    lab::{Machine as _, Made, packages, vm},
};

const PLACE: Place = Place {
    faults: FAULTS,
    not_here: &[
        ("fans, power supplies, corrected memory errors", "QEMU emulates none; fixtures in the lab host"),
        ("thin pool of LVM", "dmsetup needs root, which the packaged unit does not have"),
        ("memory pressure, load", "the emulated processors are too slow to tell a fault from the emulation"),
    ],
    shortened: "shortened for this drill: interval 5s, retry_interval 2s; `for` of slow disks, of the hung filesystem, of sensors \
        and of the clock 4s instead of 2m to 30m. The agent's clocks say that the machine has been up for a day",
    // Emulated processors are slow.
    baseline: Duration::from_mins(1),
};

const FAULTS: &[Fault] = &[
    // Disks
    fault(
        "disk of a RAID 1 fails",
        &[("raid md0", CRITICAL)],
        "mdadm -q /dev/md0 --fail /dev/loop1",
        "mdadm -q /dev/md0 --remove /dev/loop1; mdadm -q --zero-superblock /dev/loop1; mdadm -q /dev/md0 --add /dev/loop1",
    )
    .limit(60),
    Fault {
        stays: Some("errors count for ten minutes, messages for an hour"),
        ..fault(
            "disk has errors, which the kernel counts and logs",
            &[("ioerrors sda", CRITICAL), ("kmsg disk errors", WARNING)],
            "echo 2 > /sys/bus/pseudo/drivers/scsi_debug/opts
            for i in $(seq 150); do dd if=/dev/sda of=/dev/null bs=512 skip=4660 count=1 iflag=direct 2>/dev/null; done
            true",
            "echo 0 > /sys/bus/pseudo/drivers/scsi_debug/opts",
        )
        .limit(60)
    },
    Fault {
        stays: Some("errors count for ten minutes"),
        ..fault(
            "the kernel gives up a disk",
            &[("ioerrors sdb", CRITICAL)],
            "echo offline > /sys/block/sdb/device/state",
            "echo running > /sys/block/sdb/device/state",
        )
        .limit(60)
        .also(&["diskio sdb"])
    },
    fault(
        "disk is slow",
        &[("diskio sdc", WARNING)],
        "echo 100 > /sys/bus/pseudo/drivers/scsi_debug/delay",
        "systemctl kill -s STOP lab-reads; sleep 1; until echo 0 > /sys/bus/pseudo/drivers/scsi_debug/delay; do sleep 0.2; done; systemctl kill -s CONT lab-reads",
    )
    .limit(90)
    .group(2)
    .also(&["diskio sda", "diskio sdb"]),
    Fault {
        stays: Some("ext4 keeps the count until fsck"),
        ..fault(
            "ext4 counts and logs an error",
            &[("ioerrors ext4 loop4", CRITICAL), ("kmsg filesystem errors", CRITICAL)],
            "echo 1 > /sys/fs/ext4/loop4/trigger_fs_error",
            "true",
        )
        .limit(60)
    },
    fault(
        "device of a btrfs is missing",
        &[("btrfs *", CRITICAL)],
        "umount /srv/btrfs; losetup -d /dev/loop6; btrfs device scan --forget; mount -o degraded /dev/loop5 /srv/btrfs",
        "umount /srv/btrfs; losetup /dev/loop6 /var/lab/6; btrfs device scan; mount /dev/loop5 /srv/btrfs",
    )
    .limit(60)
    .also(&["disk /srv/btrfs"]),
    fault(
        "NFS server does not answer",
        &[("disk /srv/nfs", CRITICAL)],
        "nft 'add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in tcp dport 2049 drop'",
        "nft delete table inet cut",
    )
    .limit(90),
    // Sensors and hardware
    fault(
        "sensor is hot",
        &[("temperature lm75*", WARNING)],
        "i2cset -f -y $(cat /run/lab-bus) 0x48 0 0x0055 w",
        "i2cset -f -y $(cat /run/lab-bus) 0x48 0 0x002d w",
    )
    .limit(60),
    Fault {
        stays: Some("until the next boot"),
        ..fault(
            "machine check",
            &[("ecc machine checks", WARNING)],
            "echo 16 > /proc/sys/kernel/tainted",
            "true",
        )
        .limit(60)
    },
    // Network
    fault(
        "port of a bond loses its carrier",
        &[("bond bond0", WARNING)],
        "ip link set peer1 down",
        "ip link set peer1 up",
    )
    .limit(60)
    .also(&["nic *"]),
    fault(
        "connection table full",
        &[("conntrack", CRITICAL)],
        "sysctl -q net.netfilter.nf_conntrack_max=40; perl -MIO::Socket::INET -e 'for my $port (20001..20060) { my $s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:$port\", Proto => \"udp\"); $s->send(\"x\") }' || true",
        // The cache has lost its upstream, too: until it has recovered.
        "sysctl -q net.netfilter.nf_conntrack_max=65536; sleep 20",
    )
    .limit(60)
    .also(&["time sync", "dns-*"]),
    // Processes
    Fault {
        stays: Some("a killed process counts for 30 minutes"),
        ..fault(
            "process killed at the memory limit of its unit (cgroup v2)",
            &[("oom", WARNING)],
            "systemd-run -q --unit=lab-eater -p MemoryMax=20M -p MemorySwapMax=0 perl -e 'my @all; push @all, \"x\" x 1_000_000 while 1' || true",
            "systemctl reset-failed lab-eater || true",
        )
        .limit(60)
        .also(&["unit lab-eater.service", "kmsg out of memory"])
    },
    fault(
        "nearly as many processes as the kernel allows",
        &[("procs count", WARNING)],
        "cat /proc/sys/kernel/threads-max > /run/lab-threads
        for i in $(seq 300); do sleep 600 > /dev/null 2>&1 & done
        echo $(( $(ls -d /proc/[0-9]*/task/* | wc -l) * 100 / 92 )) > /proc/sys/kernel/threads-max",
        "cat /run/lab-threads > /proc/sys/kernel/threads-max; pkill -x sleep; true",
    )
    .limit(60)
    .group(3)
    .also(&["procs *", "self-check", "dns-*"]),
    // Clocks
    fault(
        "time service no longer answers",
        &[("time sync", WARNING)],
        "systemctl stop chrony",
        "systemctl start chrony",
    )
    .limit(90)
    .group(4)
    .also(&["unit chrony.service"]),
    Fault {
        stays: Some("a jump counts for ten minutes"),
        ..fault(
            "clock jumps by 40 days",
            &[("time step", CRITICAL)],
            "date -s '+40 days' > /dev/null",
            "date -s '-40 days' > /dev/null",
        )
        .limit(90)
        .group(5)
        .also(&["time *", "updates", "certificate *", "self-check", "dns-*"])
    },
];

/// Boots the machine, installs the package and injects the faults.
pub(super) fn run(options: &Options) -> Result<Report> {
    let from = clock::now();
    let made = if options.release { Made::Release(deb::build(None)?) } else { Made::Dev };
    let (package, _) = packages(made)?;
    eprintln!("image of the virtual machine {}, {}", vm::image()?, clock::took(from));
    let package = fs::read(package)?;
    let files: [(&str, &[u8]); 3] = [
        ("dogwatch.deb", &package),
        ("drill.toml", include_bytes!("machine.toml")),
        ("peer.pl", include_bytes!("../peer.pl")),
    ];
    let machine = vm::Vm::boot("vm", &files)?;
    eprintln!("virtual machine booted, {}", clock::took(from));
    machine.inside(include_str!("prepare.sh")).context("cannot prepare the virtual machine")?;
    eprintln!("agent installed, {}", clock::took(from));
    Ok(inject(&machine, &PLACE, options.only.as_deref()))
}
