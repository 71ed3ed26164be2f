//! A Debian host with systemd as PID 1 in its own namespaces: systemd-nspawn on an overlay over one
//! base image.
//!
//! mmdebstrap makes the base image once, from this machine's apt sources, in `target/lab`. A host
//! has its own process, mount, network (loopback only), UTS, IPC and cgroup namespaces and the
//! machine's kernel. It cannot test memory limits of cgroup v2 on a machine with v1, nor negative
//! OOM scores if root lacks `CAP_SYS_RESOURCE`.
//!
//! Everything that a host adds to the machine (processes, mount, cgroups) is recorded in its
//! directory first, so that [`clean`] removes it even after xtask has crashed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::sh;

/// Installed in every host, in addition to `minbase`.
const BASE_PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,libnss-systemd,procps";
const BOOT_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Cgroup controllers of version 1, which nspawn mounts read-only.
const CONTROLLERS: &str = "memory cpu cpuacct pids blkio cpuset devices freezer";

pub(crate) fn folder() -> PathBuf {
    sh::target().join("lab")
}

/// Makes the base image of this machine's release if it is missing. Returns whether it was made or
/// kept.
pub(crate) fn base() -> Result<&'static str> {
    make_base(&codename()?, &base_folder(None), sources())
}

/// Makes the base image of another release of Debian, from the same mirrors.
pub(crate) fn base_of(suite: &str) -> Result<&'static str> {
    let own = codename()?;
    if suite == own {
        return base();
    }
    let folder = base_folder(Some(suite));
    fs::create_dir_all(&folder)?;
    let mut renamed = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source)?.replace(&own, suite);
        let copy = folder.with_extension(source.extension().unwrap_or_default());
        fs::write(&copy, text)?;
        renamed.push(copy);
    }
    make_base(suite, &folder, renamed)
}

fn base_folder(suite: Option<&str>) -> PathBuf {
    let other = suite.filter(|suite| codename().is_ok_and(|own| own != *suite));
    folder().join(other.map_or_else(|| "base".to_owned(), |suite| format!("base-{suite}")))
}

fn make_base(suite: &str, base: &Path, sources: Vec<PathBuf>) -> Result<&'static str> {
    let done = base.with_extension("done");
    let want = format!("{suite} {BASE_PACKAGES}\n");
    if fs::read_to_string(&done).is_ok_and(|have| have == want) {
        return Ok("kept");
    }
    let _ = fs::remove_file(&done);
    sh::output(sh::command(&["rm", "-rf"]).arg(base))?;
    fs::create_dir_all(folder())?;
    println!("making the base image of {suite}, which takes 20 s once …");
    let mut make = sh::command(&["mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io"]);
    make.arg(format!("--include={BASE_PACKAGES}")).arg(suite).arg(base).args(sources);
    sh::output(&mut make)?;
    // Each host gets its own id, and no resolver that it cannot reach.
    fs::write(base.join("etc/machine-id"), "")?;
    let _ = fs::remove_file(base.join("etc/hostname"));
    let _ = fs::remove_file(base.join("etc/resolv.conf"));
    fs::write(&done, want)?;
    Ok("made")
}

/// Packages on top of the base image. apt installs them once; a host with the layer has them from
/// its first boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) packages: &'static str,
}

impl Layer {
    fn folder(self) -> PathBuf {
        folder().join("layers").join(self.name)
    }

    /// Makes the layer if it is missing.
    pub(crate) fn make(self) -> Result<()> {
        let (layer, done) = (self.folder(), self.folder().join("done"));
        let want = format!("{} {}\n", fs::read_to_string(folder().join("base.done"))?.trim(), self.packages);
        if fs::read_to_string(&done).is_ok_and(|have| have == want) {
            return Ok(());
        }
        remove(&layer);
        for part in ["up", "work", "root"] {
            fs::create_dir_all(layer.join(part))?;
        }
        mount(&layer, &[folder().join("base")])?;
        // No systemd runs there, so nothing starts. apt needs the machine's resolver configuration.
        let root = layer.join("root");
        let resolv_conf = root.join("etc/resolv.conf");
        fs::copy("/etc/resolv.conf", &resolv_conf)?;
        let install = format!(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq --no-install-recommends {} && apt-get clean",
            self.packages
        );
        let installed = sh::output(sh::command(&["chroot"]).arg(&root).args(["sh", "-c", &install]));
        if !resolv_conf.is_symlink() {
            let _ = fs::remove_file(&resolv_conf);
        }
        unmount(&root);
        installed?;
        Ok(fs::write(&done, want)?)
    }
}

pub(crate) fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}

pub(crate) fn sources() -> Vec<PathBuf> {
    let listed =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sources: Vec<_> = listed
        .chain([PathBuf::from("/etc/apt/sources.list")])
        .filter(|path| {
            path.extension().is_some_and(|end| end == "sources" || end == "list") && path.is_file()
        })
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("debian")))
        .collect();
    sources.sort();
    sources
}

/// A booted host. Dropping it stops it and removes everything that it added to this machine.
pub(crate) struct Host {
    folder: PathBuf,
    base: PathBuf,
    layer: Option<Layer>,
    pid1: String,
}

impl Host {
    /// Boots a host. `resolv_conf` is its resolver configuration.
    pub(crate) fn boot(name: &str, resolv_conf: &str) -> Result<Self> {
        Self::boot_on(name, None, |root| Ok(fs::write(root.join("etc/resolv.conf"), resolv_conf)?))
    }

    /// Boots a host with a layer of packages. `prepare` writes to its disk first.
    pub(crate) fn boot_on(
        name: &str,
        layer: Option<Layer>,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::boot_from(name, base_folder(None), layer, prepare)
    }

    /// Boots a host with another release of Debian, which [`base_of`] has made.
    pub(crate) fn boot_suite(
        name: &str,
        suite: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        Self::boot_from(name, base_folder(Some(suite)), None, prepare)
    }

    fn boot_from(
        name: &str,
        base: PathBuf,
        layer: Option<Layer>,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let host = folder().join("hosts").join(name);
        remove(&host);
        for part in ["up", "work", "root"] {
            fs::create_dir_all(host.join(part))?;
        }
        let mut booted = Self { folder: host, base, layer, pid1: String::new() };
        booted.mount()?;
        fs::write(booted.path("etc/hostname"), format!("{name}\n"))?;
        fs::write(booted.path("etc/hosts"), format!("127.0.0.1 localhost\n127.0.1.1 {name}\n"))?;
        prepare(&booted.path(""))?;
        booted.start()?;
        Ok(booted)
    }

    fn mount(&self) -> Result<()> {
        let layer = self.layer.map(|layer| layer.folder().join("up"));
        let lower: Vec<_> = layer.into_iter().chain([self.base.clone()]).collect();
        mount(&self.folder, &lower)
    }

    fn start(&mut self) -> Result<()> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let cgroups = cgroups(&name);
        fs::write(self.folder.join("cgroups"), cgroups.join("\n"))?;
        for cgroup in &cgroups {
            fs::create_dir_all(cgroup)?;
            // A new cpuset accepts no process until it has processors and memory.
            for set in ["cpuset.cpus", "cpuset.mems"] {
                let above = Path::new(cgroup).with_file_name(set);
                if let (Ok(value), true) = (fs::read(above), Path::new(cgroup).join(set).exists()) {
                    fs::write(Path::new(cgroup).join(set), value)?;
                }
            }
        }
        // The shell moves itself into the cgroups, then becomes systemd-nspawn, which dies with
        // xtask.
        let script = r#"for c in $CGROUPS; do echo $$ > "$c/cgroup.procs" || exit 1; done
exec setsid setpriv --pdeathsig KILL systemd-nspawn "$@""#;
        let console = fs::File::create(self.folder.join("console.log"))?;
        let child = Command::new("sh")
            .args(["-c", script, "sh", "-q", "--register=no", "--keep-unit", "--boot", "--private-network"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--machine=dogwatch-lab"])
            .arg(format!("--directory={}", self.path("").display()))
            .env("CGROUPS", cgroups.join(" "))
            .stdin(Stdio::null())
            .stderr(console.try_clone()?)
            .stdout(console)
            .spawn()?;
        let nspawn = child.id().to_string();
        let mut pid1 = None;
        sh::wait_until(BOOT_LIMIT, || {
            pid1 = child_named(&nspawn, "systemd");
            pid1.is_some() || exited(&nspawn)
        });
        self.pid1 = pid1.with_context(|| self.console("the host did not start"))?;
        self.settled()?;
        let remount = format!(
            "for c in {CONTROLLERS}; do mount -o remount,bind,rw /sys/fs/cgroup/$c 2>/dev/null; done; true"
        );
        sh::output(&mut sh::command(&["nsenter", "-t", &self.pid1, "-m", "sh", "-c", &remount]))?;
        self.output(&["systemctl", "daemon-reexec"])?;
        self.settled()
    }

    /// Waits until systemd has finished starting units.
    fn settled(&self) -> Result<()> {
        let mut state = String::new();
        let up = sh::wait_until(BOOT_LIMIT, || {
            let asked = self.command(&["systemctl", "is-system-running"]).stdin(Stdio::null()).output();
            state =
                asked.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default();
            matches!(state.as_str(), "running" | "degraded")
        });
        if !up {
            bail!(self.console(&format!("the host is still {state:?} after {} s", BOOT_LIMIT.as_secs())));
        }
        Ok(())
    }

    /// Kills every process at once, like a power cut, and boots the host again from its disk.
    pub(crate) fn power_cut(&mut self) -> Result<()> {
        stop(&self.folder);
        self.mount()?;
        self.start()
    }

    /// A path of the host as a path of this machine.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.join("root").join(inside.trim_start_matches('/'))
    }

    /// A command that runs as root in all namespaces of the host.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = sh::command(&[
            "nsenter", "-t", &self.pid1, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "env", "-i",
        ]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"]).args(words);
        command
    }

    pub(crate) fn output(&self, words: &[&str]) -> Result<String> {
        sh::output(&mut self.command(words))
    }

    /// A program of this machine that runs in the network namespace of the host.
    pub(crate) fn in_network(&self, words: &[&str]) -> Command {
        let mut command = sh::command(&["nsenter", "-t", &self.pid1, "-n"]);
        command.args(words);
        command
    }

    /// A shell script on this machine, with the host's `$PID1` and `$FOLDER`, which goes away with
    /// the host.
    pub(crate) fn outside(&self, script: &str) -> Result<String> {
        let mut command = sh::command(&["sh", "-c", script]);
        sh::output(command.env("PID1", &self.pid1).env("FOLDER", &self.folder))
    }

    fn console(&self, what: &str) -> String {
        let console = fs::read_to_string(self.folder.join("console.log")).unwrap_or_default();
        let last: Vec<_> = console.lines().rev().take(5).collect();
        format!("{what}; its console ends: {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes what earlier hosts left on this machine.
pub(crate) fn clean() {
    for host in fs::read_dir(folder().join("hosts")).into_iter().flatten().flatten() {
        remove(&host.path());
    }
    for layer in fs::read_dir(folder().join("layers")).into_iter().flatten().flatten() {
        unmount(&layer.path().join("root"));
    }
}

fn remove(host: &Path) {
    stop(host);
    let _ = fs::remove_dir_all(host);
}

/// Kills the processes of the host and removes its mount and cgroups. Its disk stays.
///
/// Its processes are those in its cgroups: the host would outlive systemd-nspawn.
fn stop(host: &Path) {
    let cgroups = fs::read_to_string(host.join("cgroups")).unwrap_or_default();
    sh::wait_until(STOP_LIMIT, || {
        let processes: BTreeSet<_> =
            cgroups.lines().flat_map(|cgroup| processes(Path::new(cgroup))).collect();
        for pid in processes.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        processes.is_empty()
    });
    unmount(&host.join("root"));
    for cgroup in cgroups.lines() {
        sh::wait_until(Duration::from_secs(2), || remove_cgroup(Path::new(cgroup)).is_ok());
    }
}

/// Mounts an overlay at `folder/root`. The first of the lower layers is the topmost.
fn mount(folder: &Path, lower: &[PathBuf]) -> Result<()> {
    let at = |part: &str| folder.join(part).display().to_string();
    let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), at("up"), at("work"));
    sh::output(&mut sh::command(&["mount", "-t", "overlay", "-o", &layers, "dogwatch-lab", &at("root")]))
        .map(drop)
}

fn unmount(root: &Path) {
    let unmounted = sh::wait_until(Duration::from_secs(5), || {
        !is_mount(root) || sh::output(sh::command(&["umount", "-q"]).arg(root)).is_ok()
    });
    if !unmounted {
        let _ = sh::output(sh::command(&["umount", "--lazy"]).arg(root));
    }
}

/// Every process in a cgroup and below it.
fn processes(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|pid| pid.parse().ok());
    own.chain(folders(cgroup).iter().flat_map(|below| processes(below))).collect()
}

fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for below in folders(cgroup) {
        remove_cgroup(&below)?;
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The cgroup of the host in every hierarchy. It is below ours, so our limits apply to it.
fn cgroups(host: &str) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let name = format!("dogwatch-lab-{}-{host}", std::process::id());
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let mounts = match controllers {
                "" => vec!["unified".to_owned(), ".".to_owned()],
                controllers => vec![controllers.trim_start_matches("name=").to_owned()],
            };
            let mount = mounts
                .into_iter()
                .map(|mount| format!("/sys/fs/cgroup/{mount}"))
                .find(|mount| Path::new(mount).join("cgroup.procs").exists())?;
            Some(format!("{mount}{}/{name}", path.trim_end_matches('/')))
        })
        .collect()
}

fn is_mount(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = path.display().to_string();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path.as_str()))
}

/// The child of `parent` with that name.
fn child_named(parent: &str, name: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children
        .split_whitespace()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .map(ToOwned::to_owned)
}

/// Whether a process has exited; a zombie counts.
fn exited(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}
