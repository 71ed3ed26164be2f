//! `cargo xtask drill faults`: real faults on a booted host with the package. Which does the agent
//! find, after how long, and what does it say that is not so?
//!
//! A fault is found when each service that it must break is hard in the expected state. A service
//! that becomes hard without any fault to explain it is a false alarm, and so is a problem that
//! stays after its fault was mended. Faults of a group are injected together, because a host
//! rarely has one problem at a time and the drill should take minutes.
//!
//! A lab host shares this machine's kernel, so it can have no RAID, no sensors and no clock of its
//! own. With `--vm` the faults are those that need a kernel.
//!
//! `list` has the faults of a lab host; `host.toml`, `prepare.sh`, `network.sh` and `peer.pl` make
//! it. `vm/` has the same for the virtual machine.

mod drill;
mod list;
mod vm;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail};
use clap::Parser;

use self::{
    drill::{Drill, Report},
    list::Place,
};
use super::{
    Machine, Made, clean_when_interrupted,
    host::{self, Host, Layer},
    lifecycle::file_name,
    lock, packages, unfit,
};
use crate::{clock, deb};

#[derive(Parser)]
#[command(
    name = "cargo xtask drill faults",
    about = "Inject real faults on a lab host and print which are found (needs root)"
)]
pub(crate) struct Options {
    /// Use the programs of the release profile, which take minutes to build
    #[arg(long)]
    release: bool,
    /// The faults that need a kernel of their own, in a virtual machine (QEMU without KVM)
    #[arg(long)]
    vm: bool,
    /// Inject only faults with this text in their name, and those that they need
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print the result as JSON, and the progress on stderr
    #[arg(long)]
    json: bool,
}

const LAYER: Layer = Layer { name: "faults", packages: "nftables openssl" };
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let words = std::iter::once("faults").chain(arguments.iter().map(String::as_str));
    let options = Options::parse_from(words);
    let unfit = if options.vm { unfit().or_else(super::vm::unfit) } else { unfit() };
    if let Some(why) = unfit {
        println!("SKIPPED faults: {why}");
        return Ok(());
    }
    let _lock = lock()?;
    clean_when_interrupted()?;
    let done = if options.vm { vm::run(&options) } else { on_a_host(&options) };
    host::clean();
    let report = done?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    let missed = report.missed().count();
    if missed + report.false_alarms.len() > 0 {
        bail!("{missed} faults missed, {} false alarms", report.false_alarms.len());
    }
    Ok(())
}

fn on_a_host(options: &Options) -> Result<Report> {
    let from = clock::now();
    let made = if options.release { Made::Release(deb::build(None)?) } else { Made::Dev };
    let (package, _) = packages(made)?;
    host::base()?;
    LAYER.make()?;
    let host = Host::boot_on("faults", Some(LAYER), |root| {
        fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.2\noptions timeout:1\n")?;
        let config = root.join("etc/dogwatch/agent.d");
        fs::create_dir_all(&config)?;
        fs::write(config.join("drill.toml"), include_str!("host.toml"))?;
        let lab = root.join("usr/local/lib/lab");
        fs::create_dir_all(&lab)?;
        Ok(fs::write(lab.join("peer.pl"), include_str!("peer.pl"))?)
    })?;
    eprintln!("host booted, {}", clock::took(from));
    prepare(&host, &package).context("cannot prepare the host")?;
    eprintln!("agent installed, {}", clock::took(from));
    Ok(inject(&host, &list::LAB, options.only.as_deref()))
}

/// Injects all faults of a place where the agent runs.
fn inject(machine: &dyn Machine, place: &'static Place, only: Option<&str>) -> Report {
    let from = clock::now();
    let mut drill = Drill::new(machine, place, only);
    eprintln!("{}", place.shortened);
    drill.baseline();
    let groups: BTreeSet<u8> = drill.runs.iter().map(|run| run.fault.group).collect();
    for group in groups {
        drill.group(group);
    }
    drill.report(clock::now().duration_since(from))
}

fn prepare(host: &Host, package: &Path) -> Result<()> {
    let name = file_name(package)?;
    fs::copy(package, host.path("root").join(name))?;
    host.outside(LOOP)?;
    host.output(&["sh", "-c", include_str!("prepare.sh")])?;
    host.output(&["sh", "-c", include_str!("network.sh")])?;
    // The loop device goes away with its mount.
    host.outside("nsenter -t $PID1 -m mount /dev/lab-loop /srv/ext4 && losetup -d /dev/$(cat $FOLDER/loop)")?;
    host.output(&["dpkg", "-i", &format!("/root/{name}")])?;
    let after = "systemd-run -q --unit=lab-files -p User=dogwatch -p LimitNOFILE=64 perl /usr/local/lib/lab/peer.pl process files
        systemd-run -q --unit=lab-nightly sh -c 'while :; do dogwatch submit nightly OK fine; sleep 2; done'
        systemctl restart dogwatch";
    host.output(&["sh", "-ec", after]).map(drop)
}

/// An ext4 image on a loop device, which the host can see, and pings for everyone.
const LOOP: &str = r#"set -e
truncate -s 64M $FOLDER/ext4.img
mkfs.ext4 -q -F -e remount-ro $FOLDER/ext4.img
loop=$(losetup -f --show $FOLDER/ext4.img)
basename $loop > $FOLDER/loop
nsenter -t $PID1 -m mknod /dev/lab-loop b 7 ${loop#/dev/loop}
nsenter -t $PID1 -n sh -c 'echo "0 2147483647" > /proc/sys/net/ipv4/ping_group_range'"#;
