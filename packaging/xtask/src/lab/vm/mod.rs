//! A virtual machine with Debian's own kernel: QEMU without KVM.
//!
//! For what a lab host cannot do: RAID, the device mapper, sensors, a clock of its own, cgroup v2.
//! The image is made once, in `target/lab/vm`, from this machine's apt sources; a run never changes
//! it. Commands go through a virtio serial port to `channel.pl`. The machine has no network.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Machine, host};
use crate::sh;

/// What the image needs to boot and to make faults.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,libnss-systemd,initramfs-tools,\
    busybox,lz4,linux-image-amd64,mdadm,dmsetup,lvm2,thin-provisioning-tools,i2c-tools,nftables,btrfs-progs,\
    nfs-kernel-server,chrony";
const SIZE: &str = "3G";
/// The emulated processors are slow.
const BOOT_LIMIT: Duration = Duration::from_mins(4);
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
const OUTPUT_MAX: usize = 16 * 1_024 * 1_024;

/// Why no machine can be started, if it cannot.
pub(crate) fn unfit() -> Option<String> {
    let tool = ["qemu-system-x86_64", "mkfs.ext4", "mmdebstrap"].into_iter().find(|tool| !sh::has(tool))?;
    Some(format!("{tool} is missing: apt-get install --no-install-recommends qemu-system-x86 mmdebstrap"))
}

fn folder() -> PathBuf {
    host::folder().join("vm")
}

/// Makes the image if it is missing. Returns whether it was made or kept.
pub(crate) fn image() -> Result<&'static str> {
    let folder = folder();
    let done = folder.join("done");
    let suite = host::codename()?;
    let script = include_str!("image.sh");
    let want = format!("{suite} {PACKAGES} {SIZE}\n{script}{}", include_str!("channel.pl"));
    if fs::read_to_string(&done).is_ok_and(|have| have == want) {
        return Ok("kept");
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    println!("making the image of the virtual machine, which takes one or two minutes once …");
    let channel = folder.join("channel.pl");
    fs::write(&channel, include_str!("channel.pl"))?;
    let mut make = sh::command(&["sh", "-ec", script, "sh"]);
    make.arg(&folder).args([&suite, PACKAGES, SIZE]).args(host::sources());
    sh::output(&mut make).context("cannot make the image of the virtual machine")?;
    fs::write(&done, want)?;
    Ok("made")
}

/// A booted machine. Dropping it ends it.
pub(crate) struct Vm {
    qemu: Child,
    channel: Mutex<UnixStream>,
    folder: PathBuf,
}

impl Vm {
    /// Boots a machine whose directory `/root/files` holds `files`.
    pub(crate) fn boot(name: &str, files: &[(&str, &[u8])]) -> Result<Self> {
        let run = host::folder().join("hosts").join(name);
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(run.join("files"))?;
        for (name, bytes) in files {
            fs::write(run.join("files").join(name), bytes)?;
        }
        let (tar, socket) = (run.join("files.tar"), run.join("channel"));
        sh::output(sh::command(&["tar", "cf"]).arg(&tar).arg("-C").arg(run.join("files")).arg("."))?;
        let image = folder();
        let at = |path: PathBuf| path.display().to_string();
        let console = fs::File::create(run.join("console.log"))?;
        let drive = |file: String, rest: &str| format!("file={file},format=raw,if=none,{rest}");
        // A name in /tmp would be shorter, but a unix socket's path may have 107 bytes only.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args("-nodefaults -no-user-config -display none -no-reboot -machine q35".split(' '))
            .args("-accel tcg,thread=multi -cpu max -smp 2 -m 768".split(' '))
            .args(["-kernel", &at(image.join("vmlinuz")), "-initrd", &at(image.join("initrd")), "-append"])
            .arg(
                "root=/dev/vda rw console=ttyS0 quiet loglevel=3 systemd.show_status=0 mitigations=off \
                 nokaslr tsc=reliable no_timer_check net.ifnames=0",
            )
            .args(["-drive", &drive(at(image.join("root.img")), "id=r,snapshot=on,cache=unsafe")])
            .args(["-device", "virtio-blk-pci,drive=r"])
            .args(["-drive", &drive(at(tar), "id=f,readonly=on"), "-device", "virtio-blk-pci,drive=f"])
            .args(["-serial", "stdio", "-device", "virtio-rng-pci", "-device", "virtio-serial"])
            .args(["-chardev", &format!("socket,id=c,path={},server=on,wait=off", at(socket.clone()))])
            .args(["-device", "virtserialport,chardev=c,name=lab"]);
        let qemu = qemu.stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console).spawn()?;
        let mut booting = Booting(Some(qemu));
        let mut channel = None;
        sh::wait_until(Duration::from_secs(10), || {
            channel = UnixStream::connect(&socket).ok();
            channel.is_some()
        });
        let channel = channel.with_context(|| format!("qemu did not start: see {}", run.display()))?;
        channel.set_read_timeout(Some(BOOT_LIMIT))?;
        let qemu = booting.0.take().context("qemu has started")?;
        let booted = Self { qemu, channel: Mutex::new(channel), folder: run };
        booted.inside("systemctl is-system-running --wait || true").with_context(|| booted.console())?;
        booted.channel.lock().unwrap_or_else(PoisonError::into_inner).set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(booted)
    }

    fn console(&self) -> String {
        let console = fs::read(self.folder.join("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let last: Vec<_> = console.lines().rev().take(5).collect();
        format!("the virtual machine did not boot; its console ends: {}", last.join(" | "))
    }
}

/// Ends qemu if the machine does not boot.
struct Booting(Option<Child>);

impl Drop for Booting {
    fn drop(&mut self) {
        if let Some(mut qemu) = self.0.take() {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

impl Machine for Vm {
    /// Each answer is the exit status, the length and the output of the script.
    fn inside(&self, script: &str) -> Result<String> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.write_all(format!("{:08x}", script.len()).as_bytes())?;
        channel.write_all(script.as_bytes())?;
        let mut number = || -> Result<usize> {
            let mut digits = [0; 8];
            channel.read_exact(&mut digits).context("the virtual machine does not answer")?;
            Ok(usize::from_str_radix(std::str::from_utf8(&digits)?, 16)?)
        };
        let (status, length) = (number()?, number()?);
        ensure!(length <= OUTPUT_MAX, "the virtual machine sends {length} bytes");
        let mut output = vec![0; length];
        channel.read_exact(&mut output)?;
        let output = String::from_utf8_lossy(&output).trim_end().to_owned();
        if status != 0 {
            let first = script.lines().next().unwrap_or_default();
            bail!("`{first}` ended with status {status}: {output}");
        }
        Ok(output)
    }

    fn outside(&self, script: &str) -> Result<String> {
        bail!("a virtual machine has no outside: {script}");
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
