//! Real processes under test: started with their own directory, killed by pid when dropped.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

/// How long a test waits for anything before it gives up. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running process. Dropping it sends SIGKILL and reaps it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/NAME.log` (appended, so a restart keeps the story).
    ///
    /// # Panics
    /// If it cannot be started: a test has nothing to do then.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let out =
            fs::OpenOptions::new().create(true).append(true).open(&log).expect("the test folder is writable");
        let err = out.try_clone().expect("a descriptor is left");
        let child = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn().unwrap_or_else(|error| {
            panic!("{name}: {} does not start: {error}", command.get_program().display())
        });
        Self { name: name.to_owned(), child, log }
    }

    /// Writes one line to its standard input.
    pub fn say(&mut self, line: &str) {
        // It may have exited; the test notices when it reads the answer.
        let _ = self.child.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}"));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, signal);
        }
    }

    /// `kill -9`, reaped.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_for(&format!("{} to end\n{}", self.name, self.log()), || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.expect("awaited just now")
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU time of all its threads so far, from the scheduler (nanoseconds resolution).
    pub fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that was ever resident.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// A line of proc_pid_status(5).
    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process would not die of SIGTERM; SIGKILL ends it in any state.
        self.kill();
        if thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, tail(&self.log, 16 * 1024));
        }
    }
}

/// CPU time of a process: sum over `/proc/PID/task/*/schedstat`, first field (ns on a CPU).
pub fn cpu_of(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanoseconds = tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanoseconds)
}

fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(bytes);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| format!("(unreadable: {error})"))
}

/// Path of a program of this workspace, from the build of the running test.
///
/// # Panics
/// If it is not built, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    let exe = env::current_exe().expect("a running test has a path");
    let built = exe.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    built.unwrap_or_else(|| {
        panic!("{name} is not built: run `cargo build --workspace --bins` (`cargo xtask test` does)")
    })
}

/// Path of a program of Debian's, or `None` after saying loudly what is skipped.
///
/// # Panics
/// If it is missing and `DOGWATCH_TEST_STRICT=1` says that nothing may be skipped.
pub fn debian_program(name: &str, package: &str) -> Option<PathBuf> {
    let folders = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/lib/nagios/plugins",
    ];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed (Debian package {package})"));
    }
    found
}

/// Whether the test runs as root; says loudly what is skipped otherwise.
pub fn root_or_skip(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(&format!("{what} needs root"));
    }
    root
}

/// Prints that a test is skipped, so that it is not taken for a success.
///
/// # Panics
/// If `DOGWATCH_TEST_STRICT=1` says that nothing may be skipped.
pub fn skip(why: &str) {
    assert!(
        env::var_os("DOGWATCH_TEST_STRICT").is_none_or(|strict| strict != "1"),
        "not skipped, strict: {why}"
    );
    eprintln!("SKIPPED: {why}");
}

/// Polls until `condition` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited {PATIENCE:?} in vain for {what}");
}

/// Whether `condition` comes to hold within `limit`.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A loopback port that is free for UDP and TCP right now. No other test gets it, in this process
/// or in another one.
///
/// Ports lie below the range that the kernel takes for outgoing connections (ip(7),
/// `ip_local_port_range`). Whether one is free is read from the kernel's tables: binding it to find
/// out fails while a process that is just being started holds a copy of a socket.
///
/// # Panics
/// If the machine has none.
pub fn free_port() -> u16 {
    static OURS: Mutex<Ports> = Mutex::new(Ports { blocks: Vec::new(), left: Vec::new() });
    let taken = ports_in_use();
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match ours.left.pop() {
            Some(port) if !taken.contains(&port) => return port,
            Some(_) => {}
            None => ours.reserve_a_block(),
        }
    }
}

/// Ports that belong to this process: blocks whose lock files it holds until it ends.
struct Ports {
    blocks: Vec<File>,
    left: Vec<u16>,
}

impl Ports {
    const FIRST: u16 = 20_000;
    const BLOCK: u16 = 50;
    const BLOCKS: u16 = 240;

    fn reserve_a_block(&mut self) {
        let folder =
            env::temp_dir().join(format!("dogwatch-test-ports-{}", rustix::process::geteuid().as_raw()));
        fs::create_dir_all(&folder).expect("a folder for the locks can be made");
        let first = fastrand::u16(..Self::BLOCKS);
        let block = (0..Self::BLOCKS).map(|step| (first + step) % Self::BLOCKS).find_map(|block| {
            let file = File::create(folder.join(block.to_string())).ok()?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| (block, file))
        });
        let (block, lock) = block.expect("a block of ports is free");
        self.blocks.push(lock);
        let from = Self::FIRST + block * Self::BLOCK;
        self.left.extend(from..from + Self::BLOCK);
    }
}

/// Local ports of all sockets, from `/proc/net` (proc_net(5): `local_address` is `ADDRESS:PORT` in
/// hexadecimal).
fn ports_in_use() -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|name| {
        // A kernel without IPv6 has no table of it.
        fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default()
    });
    let port = |line: &str| {
        let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    tables.iter().flat_map(|table| table.lines().filter_map(port)).collect()
}
