//! The faults of a lab host, and what cannot be injected there.

use std::time::Duration;

/// A fault of the host and what the agent must say about it.
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The services that must be hard in these states, all at the same time. `*` at the end of a
    /// service matches any text.
    pub(super) expect: &'static [(&'static str, &'static str)],
    /// Other services that may have a problem because of it.
    pub(super) also: &'static [&'static str],
    pub(super) inject: Step,
    pub(super) mend: Step,
    pub(super) limit_s: u64,
    /// Faults of a group run at the same time, one group after the other.
    pub(super) group: u8,
    /// Injected while that fault is there, and mended before it.
    pub(super) during: Option<&'static str>,
    /// Why the problem stays after it was mended, if it does.
    pub(super) stays: Option<&'static str>,
}

/// A shell script.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// As root in the host.
    Inside(&'static str),
    /// On the machine, with the host's `$PID1` and the directory `$FOLDER` for files.
    Outside(&'static str),
}

/// Where faults are injected.
pub(super) struct Place {
    pub(super) faults: &'static [Fault],
    /// What cannot be injected there, and why.
    pub(super) not_here: &'static [(&'static str, &'static str)],
    /// Which waits of the config are shorter than usual.
    pub(super) shortened: &'static str,
    /// How long nothing may alarm before the first fault. Every built-in check runs twice.
    pub(super) baseline: Duration,
}

use Step::{Inside, Outside};

pub(super) const LAB: Place = Place {
    faults: FAULTS,
    not_here: NOT_HERE,
    shortened: "shortened for this drill: interval 2s, retry_interval 1s; interval of certificate 2s; `for` of \
        listen, zombies, fans, lost and hung filesystems, links, and units of the lab 2s to 4s instead of 0s to 10m",
    baseline: Duration::from_secs(20),
};

/// A fault with the usual limit that disturbs no other.
pub(super) const fn fault(
    name: &'static str,
    expect: &'static [(&'static str, &'static str)],
    inject: &'static str,
    mend: &'static str,
) -> Fault {
    Fault {
        name,
        expect,
        also: &[],
        inject: Inside(inject),
        mend: Inside(mend),
        limit_s: 30,
        group: 1,
        during: None,
        stays: None,
    }
}

impl Fault {
    pub(super) const fn limit(self, limit_s: u64) -> Self {
        Self { limit_s, ..self }
    }

    pub(super) const fn group(self, group: u8) -> Self {
        Self { group, ..self }
    }

    pub(super) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}

pub(super) const CRITICAL: &str = "CRITICAL";
pub(super) const WARNING: &str = "WARNING";
const UNKNOWN: &str = "UNKNOWN";

const FAULTS: &[Fault] = &[
    // Filesystems
    fault(
        "filesystem full",
        &[("disk /srv/full", CRITICAL)],
        "fallocate -l 16m /srv/full/data",
        "rm /srv/full/data",
    ),
    Fault {
        during: Some("filesystem full"),
        ..fault(
            "second filesystem full while the first is",
            &[("disk /srv/full2", CRITICAL), ("disk /srv/full", CRITICAL)],
            "fallocate -l 16m /srv/full2/data",
            "rm /srv/full2/data",
        )
    },
    fault(
        "filesystem nearly full",
        &[("disk /srv/nearly", WARNING)],
        "fallocate -l 15000k /srv/nearly/data",
        "rm /srv/nearly/data",
    ),
    fault(
        "filesystem without free inodes",
        &[("disk /srv/inodes", CRITICAL)],
        "cd /srv/inodes; touch $(seq 250) 2>/dev/null || true",
        "rm /srv/inodes/*",
    ),
    fault(
        "filesystem of fstab becomes read-only",
        &[("disk /srv/ro", CRITICAL)],
        "mount -o remount,ro /srv/ro",
        "mount -o remount,rw /srv/ro",
    ),
    fault(
        "filesystem of fstab is lost",
        &[("disk /srv/lost", CRITICAL)],
        "umount /srv/lost",
        "mount /srv/lost",
    ),
    Fault {
        inject: Outside(
            "set -e
            exec 9<>/dev/fuse
            nsenter -t $PID1 -m -r -w mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0,allow_other lab /srv/hung
            nohup sleep 600 > /dev/null 2>&1 &
            echo $! > $FOLDER/fuse.pid
            grep -q ' /srv/hung ' /proc/$PID1/mountinfo",
        ),
        mend: Outside("kill $(cat $FOLDER/fuse.pid); nsenter -t $PID1 -m -p -r -w umount -l /srv/hung"),
        ..fault("filesystem hangs (FUSE without a server)", &[("disk /srv/hung", CRITICAL)], "", "")
    },
    Fault {
        inject: Outside("echo 1 > /sys/fs/ext4/$(cat $FOLDER/loop)/trigger_fs_error; true"),
        mend: Outside("nsenter -t $PID1 -m umount /srv/ext4"),
        ..fault(
            "ext4 on a loop device has an error and becomes read-only",
            &[("disk /srv/ext4", CRITICAL)],
            "",
            "",
        )
    },
    // Units
    fault(
        "enabled service fails",
        &[("unit lab-fails.service", CRITICAL)],
        "echo exit > /run/lab/fails; systemctl restart lab-fails || true",
        "rm /run/lab/fails; systemctl restart lab-fails",
    ),
    fault(
        "enabled service crashes",
        &[("unit lab-crashes.service", CRITICAL)],
        "systemctl kill -s SEGV lab-crashes",
        "systemctl restart lab-crashes",
    ),
    fault(
        "program of an enabled service is missing",
        &[("unit lab-program.service", CRITICAL)],
        "sed -i s,lab/unit,lab/absent, /etc/systemd/system/lab-program.service; systemctl daemon-reload; systemctl restart lab-program || true",
        "sed -i s,lab/absent,lab/unit, /etc/systemd/system/lab-program.service; systemctl daemon-reload; systemctl restart lab-program",
    ),
    fault(
        "enabled service does not become ready",
        &[("unit lab-mute.service", CRITICAL)],
        "echo mute > /run/lab/mute; systemctl restart --no-block lab-mute",
        "rm /run/lab/mute; systemctl restart lab-mute",
    ),
    Fault {
        stays: Some("restarts count for 10 minutes"),
        ..fault(
            "service in a restart loop",
            &[("unit lab-loops.service", CRITICAL)],
            "echo exit > /run/lab/loops; systemctl kill lab-loops",
            "rm /run/lab/loops; systemctl restart lab-loops",
        )
    },
    fault(
        "named unit is stopped",
        &[("unit lab-named.service", CRITICAL)],
        "systemctl stop lab-named",
        "systemctl start lab-named",
    ),
    fault(
        "named unit no longer exists",
        &[("unit lab-absent.service", CRITICAL)],
        "cp /etc/systemd/system/lab-absent.service /etc/lab; systemctl -q disable --now lab-absent; rm /etc/systemd/system/lab-absent.service; systemctl daemon-reload",
        "mv /etc/lab/lab-absent.service /etc/systemd/system; systemctl daemon-reload; systemctl -q enable --now lab-absent",
    ),
    fault(
        "oneshot fails",
        &[("unit lab-oneshot.service", WARNING)],
        "echo exit > /run/lab/oneshot; systemctl start lab-oneshot || true",
        "rm /run/lab/oneshot; systemctl start lab-oneshot",
    ),
    fault(
        "job of a timer fails",
        &[("unit lab-timed.service", WARNING)],
        "echo exit > /run/lab/timed; systemctl start lab-timed.timer",
        "rm /run/lab/timed; systemctl stop lab-timed.timer; systemctl start lab-timed",
    ),
    fault(
        "socket unit fails, its service does not take the connection",
        &[("unit lab-socketed.socket", CRITICAL)],
        "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => \"127.0.0.1:8301\"); sleep 2'",
        "systemctl reset-failed lab-socketed.service lab-socketed.socket; systemctl start lab-socketed.socket",
    )
    .also(&["unit lab-socketed.service"]),
    // Processes
    fault(
        "zombies",
        &[("procs zombies", CRITICAL)],
        "echo zombies > /run/lab/zombies",
        "rm /run/lab/zombies",
    ),
    fault(
        "process does not run",
        &[("daemon", CRITICAL)],
        "systemctl stop lab-daemon",
        "systemd-run -q --unit=lab-daemon /usr/local/lib/lab/lab-daemon infinity",
    ),
    fault(
        "process uses too much memory",
        &[("memory-of", CRITICAL)],
        "echo memory > /run/lab/memory",
        "rm /run/lab/memory",
    ),
    fault(
        "open files of a process near its limit",
        &[("files-of", CRITICAL)],
        "echo files > /run/lab/files",
        "rm /run/lab/files",
    ),
    // Files
    fault(
        "file too old",
        &[("old", CRITICAL)],
        "touch -d '3 hours ago' /srv/files/old",
        "touch /srv/files/old",
    ),
    fault(
        "file missing",
        &[("missing", CRITICAL)],
        "rm /srv/files/missing",
        "echo x > /srv/files/missing",
    ),
    fault(
        "file too large",
        &[("large", WARNING)],
        "truncate -s 2M /srv/files/large",
        "truncate -s 1 /srv/files/large",
    ),
    fault(
        "file too small",
        &[("small", CRITICAL)],
        ": > /srv/files/small",
        "head -c 4096 /dev/zero > /srv/files/small",
    ),
    fault(
        "file that must not be there",
        &[("unwanted", CRITICAL)],
        ": > /srv/files/core.1",
        "rm /srv/files/core.1",
    ),
    fault(
        "file open to everyone",
        &[("mode", CRITICAL)],
        "chmod 666 /srv/files/mode",
        "chmod 644 /srv/files/mode",
    ),
    fault(
        "queue of files grows",
        &[("queue", WARNING)],
        "for n in 2 3 4 5 6 7; do : > /srv/files/queue/$n; done",
        "rm /srv/files/queue/[2-7]",
    ),
    fault(
        "certificate in a file expires soon",
        &[("certificate /etc/lab/server.pem", WARNING)],
        "cp /etc/lab/soon.pem /etc/lab/server.pem",
        "cp /etc/lab/good.pem /etc/lab/server.pem",
    ),
    // Networks and servers
    fault(
        "cable out: an interface loses its carrier",
        &[("link lab0", CRITICAL)],
        "nsenter -t $(systemctl show -P MainPID lab-net) -n ip link set peer0 down",
        "nsenter -t $(systemctl show -P MainPID lab-net) -n ip link set peer0 up",
    ),
    fault(
        "interface disappears",
        &[("link lab1", CRITICAL)],
        "ip link del lab1",
        "ip link add lab1 type veth peer name peer1 netns $(systemctl show -P MainPID lab-net); ip link set lab1 up; nsenter -t $(systemctl show -P MainPID lab-net) -n ip link set peer1 up",
    ),
    fault(
        "host does not answer pings",
        &[("ping", CRITICAL)],
        "nsenter -t $(systemctl show -P MainPID lab-net) -n ip addr del 10.99.2.2/24 dev peer2",
        "nsenter -t $(systemctl show -P MainPID lab-net) -n ip addr add 10.99.2.2/24 dev peer2",
    )
    .limit(40),
    fault(
        "port closed",
        &[("closed", CRITICAL)],
        "systemctl stop lab-tcp-closed",
        "systemd-run -q --unit=lab-tcp-closed perl /usr/local/lib/lab/peer.pl banner closed 127.0.0.1:8101",
    ),
    fault(
        "wrong banner",
        &[("banner", CRITICAL)],
        "echo wrong > /run/lab/banner",
        "rm /run/lab/banner",
    ),
    fault(
        "server accepts and says nothing",
        &[("deaf", CRITICAL)],
        "echo deaf > /run/lab/deaf",
        "rm /run/lab/deaf",
    ),
    fault(
        "http status 500",
        &[("status", CRITICAL)],
        "echo 500 > /run/lab/status",
        "rm /run/lab/status",
    ),
    fault("http slow", &[("slow", WARNING)], "echo slow > /run/lab/slow", "rm /run/lab/slow"),
    fault(
        "http page without its text",
        &[("text", CRITICAL)],
        "echo other > /run/lab/text",
        "rm /run/lab/text",
    ),
    fault(
        "https certificate expired",
        &[("expired", CRITICAL)],
        "cp /etc/lab/expired.pem /etc/lab/tls.pem; systemctl stop lab-tls; systemd-run -q --unit=lab-tls openssl s_server -quiet -www -accept 8443 -cert /etc/lab/tls.pem -key /etc/lab/server.key",
        "cp /etc/lab/good.pem /etc/lab/tls.pem; systemctl stop lab-tls; systemd-run -q --unit=lab-tls openssl s_server -quiet -www -accept 8443 -cert /etc/lab/tls.pem -key /etc/lab/server.key",
    ),
    fault(
        "DNS server gives a wrong answer",
        &[("name", CRITICAL)],
        "echo wrong > /run/lab/name",
        "rm /run/lab/name",
    ),
    fault(
        "DNS server does not answer",
        &[("server", CRITICAL)],
        "echo silent > /run/lab/server",
        "rm /run/lab/server",
    ),
    Fault {
        stays: Some("drops count as a rate, which falls slowly"),
        ..fault(
            "server does not accept its connections",
            &[("listen", CRITICAL)],
            "systemd-run -q --unit=lab-flood perl /usr/local/lib/lab/peer.pl flood flood 127.0.0.1:8302",
            "systemctl stop lab-flood",
        )
    },
    fault(
        "table of tracked connections nearly full",
        &[("conntrack", WARNING)],
        "nft add table inet lab; nft add chain inet lab out '{ type filter hook output priority 0; }'; nft add rule inet lab out ct state new accept; systemd-run -q --unit=lab-many perl /usr/local/lib/lab/peer.pl many many",
        "systemctl stop lab-many; nft delete table inet lab",
    )
    .limit(60),
    // Sensors and arrays that this kernel does not have
    fault(
        "hot processor (fixture in /sys)",
        &[("temperature coretemp/Package id 0", CRITICAL)],
        "echo 104000 > /run/lab-class/hwmon/hwmon0/temp1_input",
        "echo 45000 > /run/lab-class/hwmon/hwmon0/temp1_input",
    ),
    fault(
        "fan stands still (fixture in /sys)",
        &[("fan nct6775/fan1", CRITICAL)],
        "echo 0 > /run/lab-class/hwmon/hwmon1/fan1_input",
        "echo 1200 > /run/lab-class/hwmon/hwmon1/fan1_input",
    ),
    fault(
        "RAID array loses a disk (fixture in /sys)",
        &[("raid md0", CRITICAL)],
        "echo 1 > /run/lab-block/md0/md/degraded",
        "echo 0 > /run/lab-block/md0/md/degraded",
    ),
    // Plugins, jobs and submitted results
    fault(
        "plugin is CRITICAL",
        &[("plugin-critical", CRITICAL)],
        "echo critical > /run/lab/plugin-critical",
        "rm /run/lab/plugin-critical",
    ),
    fault(
        "plugin missing",
        &[("plugin-gone", UNKNOWN)],
        "echo gone > /run/lab/plugin-gone",
        "rm /run/lab/plugin-gone",
    ),
    fault(
        "plugin hangs",
        &[("plugin-hangs", UNKNOWN)],
        "echo hang > /run/lab/plugin-hangs",
        "rm /run/lab/plugin-hangs",
    ),
    fault(
        "job fails",
        &[("job lab-backup", CRITICAL)],
        "dogwatch job lab-backup --every 1h -- sh -c 'echo no space left >&2; exit 3' || true",
        "dogwatch job lab-backup --forget",
    ),
    fault(
        "job does not run any more",
        &[("job lab-mirror", CRITICAL)],
        "dogwatch job lab-mirror --every 2s --grace 2s -- true",
        "dogwatch job lab-mirror --forget",
    ),
    fault(
        "submitted results stop",
        &[("nightly", UNKNOWN)],
        "systemctl stop lab-nightly",
        "systemd-run -q --unit=lab-nightly sh -c 'while :; do dogwatch submit nightly OK fine; sleep 2; done'",
    ),
    fault(
        "submitted result is CRITICAL",
        &[("sent", CRITICAL)],
        "dogwatch submit sent CRITICAL 'somebody pulled the plug'",
        "dogwatch submit sent OK mended",
    ),
    // What the host needs as a whole, one after the other
    Fault {
        stays: Some("a kill counts for 30 minutes"),
        ..fault(
            "process killed for lack of memory",
            &[("oom", WARNING)],
            "systemd-run -q --wait --unit=lab-oom -p MemoryMax=20M perl /usr/local/lib/lab/peer.pl eat eat || true",
            "systemctl reset-failed lab-oom; true",
        )
        .also(&["unit lab-oom.service"])
        .group(2)
    },
    fault(
        "every DNS upstream is down",
        &[("dns-upstream", CRITICAL)],
        "echo silent > /run/lab/upstream",
        "rm /run/lab/upstream",
    )
    .also(&["dns-stale", "dns-guard"])
    .limit(60)
    .group(2),
    fault(
        "state directory of the agent full",
        &[("disk /var/lib/dogwatch", CRITICAL), ("self-check", WARNING)],
        "systemctl stop alertd; dd if=/dev/zero of=/var/lib/dogwatch/data bs=64k 2>/dev/null; for n in $(seq 20); do dogwatch submit sent CRITICAL \"$(seq -s ' ' 250)\"; dogwatch submit sent OK fine; done",
        "rm /var/lib/dogwatch/data; systemctl start alertd; dogwatch submit sent OK mended",
    )
    .also(&["sent"])
    .limit(100)
    .group(2),
    fault(
        "config on disk is invalid at a reload",
        &[("self-check", WARNING)],
        "echo '[check.broken' > /etc/dogwatch/agent.d/zz.toml; systemctl kill -s HUP --kill-who=main dogwatch",
        "rm /etc/dogwatch/agent.d/zz.toml; systemctl reload dogwatch",
    )
    .limit(75)
    .group(3),
    fault(
        "DNS cache stopped",
        &[("dns-upstream", CRITICAL)],
        "systemctl stop dogwatch-dns.socket dogwatch-dns.service",
        "systemctl start dogwatch-dns.socket dogwatch-dns.service",
    )
    .also(&["dns-stale", "dns-guard"])
    .limit(60)
    .group(3),
];

/// What is not injected, and why. It is not counted.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "with --vm",
        "wrong clock; RAID on loop devices; conntrack_max and threads-max; messages and errors that the \
        kernel logs and counts; slow and dead disks; sensors; btrfs; NFS; cgroup v2",
    ),
    ("process that hangs in the kernel", "a problem only after 5 minutes without progress"),
    ("packet loss, delay", "this kernel has no netem"),
    ("pressure, swap and load of the host", "they are the machine's, which others use"),
    ("enabled service that ended by itself", "a problem only after 5 minutes of running and 5 of absence"),
];
