//! How long a restart takes, and what a name costs: dogwatch with 100,000 and 1,000,000 names,
//! stopped and killed, then started with a dead upstream.
//!
//! Seen from outside: the time from the start of the process to its first answer to a name that
//! only the snapshot knows, less the same of a start with nothing to load. Then a sample of the
//! names is asked; each must be there.

use std::{fmt::Write as _, fs, io, net::UdpSocket, path::Path, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    client::walk,
    median,
    names::question,
    now,
    peers::{Peer, Server},
    table::{Budget, Cell, render},
    upstream::{Mode, Upstream},
};
use crate::process::free_port;

#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// Start of the process to its first answer with nothing to load, and its CPU time by then.
    pub empty_start_ms: f64,
    pub empty_start_cpu_ms: f64,
    pub rows: Vec<Row>,
    pub budgets: Vec<Budget>,
}

/// One size of cache.
#[derive(Debug, Serialize)]
pub struct Row {
    pub names: u32,
    /// Resident memory per name above the empty program's, when they were all learnt from the
    /// upstream.
    pub memory_bytes_per_name: f64,
    pub resident_mib: f64,
    /// While they were learnt: files are merged beside the cache.
    pub peak_mib: f64,
    pub file_bytes_per_name: f64,
    pub stopped: Restart,
    pub killed: Restart,
}

/// A start with something to load; medians over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Restart {
    /// Start of the process to the first answer, less that of an empty start.
    pub load_ms: f64,
    /// CPU time of the process at its first answer, likewise: what the load takes on a machine that
    /// does nothing else.
    pub load_cpu_ms: f64,
    pub resident_mib: f64,
    /// Of the names asked afterwards, so many were answered right.
    pub right_percent: f64,
}

/// Runs it for each of `sizes`, each start `rounds` times.
pub fn run(sizes: &[u32], rounds: u32, folder: &Path, progress: &dyn Fn(&str)) -> Result<Snapshot> {
    progress("starts with nothing to load");
    let mut starts = Vec::new();
    for round in 0..rounds.max(3) {
        let upstream = Upstream::start(free_port(), 0)?;
        let folder = folder.join(format!("empty{round}"));
        let mut server = Server::start(Peer::Dogwatch, &folder, false, upstream.address, 1_000, None)?;
        // A first start may wait for the disk; the others are starts of a program that has just
        // run.
        server.kill();
        let _ = fs::remove_dir_all(server.setup.dir.join("state"));
        server.run()?;
        starts.push(Start::of(&server)?);
    }
    let empty = Start::median(&starts);
    let mut rows = Vec::new();
    for &names in sizes {
        rows.push(measure(names, rounds, empty, &folder.join(names.to_string()), progress)?);
    }
    let budgets = rows.iter().flat_map(budgets).collect();
    Ok(Snapshot { empty_start_ms: empty.wall_ms, empty_start_cpu_ms: empty.cpu_ms, rows, budgets })
}

fn measure(
    names: u32,
    rounds: u32,
    empty_start: Start,
    folder: &Path,
    progress: &dyn Fn(&str),
) -> Result<Row> {
    progress(&format!("{names} names: learning them"));
    let upstream = Upstream::start(free_port(), 0)?;
    let mut server = Server::start(Peer::Dogwatch, folder, false, upstream.address, 2 * names, None)?;
    let empty = server.resident_bytes();
    let seen = walk(server.address(), 0..names, TTL_S, Duration::from_mins(5))?;
    if seen.right != names {
        bail!("not all {names} names were learnt: {seen:?}\n{}", server.log());
    }
    // A merge that is under way is no memory of names.
    std::thread::sleep(MERGED);
    let (filled, peak) = (server.resident_bytes(), server.peak_bytes());
    upstream.set(Mode::Blackhole);
    progress(&format!("{names} names: stopped and started again"));
    let stopped = restarts(&mut server, names, rounds, empty_start, Server::stop)?;
    let file_bytes = size_of_folder(&server.setup.dir.join("state"))?;
    progress(&format!("{names} names: killed and started again"));
    let killed = restarts(&mut server, names, rounds, empty_start, Server::kill)?;
    Ok(Row {
        names,
        memory_bytes_per_name: number(filled.saturating_sub(empty)) / f64::from(names),
        resident_mib: mib(filled),
        peak_mib: mib(peak),
        file_bytes_per_name: number(file_bytes) / f64::from(names),
        stopped,
        killed,
    })
}

fn restarts(
    server: &mut Server,
    names: u32,
    rounds: u32,
    empty_start: Start,
    end: fn(&mut Server),
) -> Result<Restart> {
    let (mut starts, mut resident, mut right_percent) = (Vec::new(), Vec::new(), f64::INFINITY);
    for _ in 0..rounds.max(1) {
        end(server);
        server.run()?;
        starts.push(Start::of(server)?);
        resident.push(mib(server.resident_bytes()));
        // A stretch of a thousand in each of ten places.
        let mut right = 0;
        let sample = (names / 10).min(1_000);
        for place in 0..10 {
            let from = names / 10 * place;
            right += walk(server.address(), from..from + sample, TTL_S, Duration::from_secs(20))?.right;
        }
        right_percent = f64::min(right_percent, f64::from(right) / f64::from(sample * 10) * 100.0);
    }
    let start = Start::median(&starts);
    Ok(Restart {
        load_ms: (start.wall_ms - empty_start.wall_ms).max(0.0),
        load_cpu_ms: (start.cpu_ms - empty_start.cpu_ms).max(0.0),
        resident_mib: median(resident),
        right_percent,
    })
}

/// Longer than the files of a million names take to be merged.
const MERGED: Duration = Duration::from_secs(5);

/// How long a process that was just started took to its first answer.
#[derive(Debug, Clone, Copy)]
struct Start {
    wall_ms: f64,
    cpu_ms: f64,
}

impl Start {
    fn of(server: &Server) -> Result<Self> {
        let wall_ms = first_answer(server)?.as_secs_f64() * 1e3;
        Ok(Self { wall_ms, cpu_ms: server.cpu().as_secs_f64() * 1e3 })
    }

    fn median(starts: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(starts.iter().map(figure));
        Self { wall_ms: of(|start| start.wall_ms), cpu_ms: of(|start| start.cpu_ms) }
    }
}

/// Asks name 0 each quarter of a millisecond until it is answered.
fn first_answer(server: &Server) -> Result<Duration> {
    let start = now();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server.address())?;
    socket.set_read_timeout(Some(Duration::from_micros(250)))?;
    let mut buffer = [0; 512];
    while start.elapsed() < Duration::from_mins(1) {
        // "Port unreachable" comes at once: the wait then is ours.
        let sent = socket.send(&question(1, 0, TTL_S));
        match sent.and_then(|_| socket.recv(&mut buffer)) {
            Ok(_) => return Ok(start.elapsed()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::thread::sleep(Duration::from_micros(250));
            }
            Err(_) => {}
        }
    }
    bail!("{} does not answer after its start:\n{}", server.peer.name(), server.log())
}

fn size_of_folder(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn budgets(row: &Row) -> Vec<Budget> {
    let name = |what: &str| format!("{} names: {what}", row.names);
    let mut budgets = Vec::new();
    if row.names == 100_000 {
        let load = |what: &str, restart: Restart| Budget::at_most(name(what), restart.load_ms, 50.0, "ms");
        budgets.push(load("loaded before listening, stopped", row.stopped));
        budgets.push(load("loaded before listening, killed", row.killed));
    }
    if row.names == 1_000_000 {
        budgets.push(Budget::at_most(name("memory per A record"), row.memory_bytes_per_name, 150.0, "B"));
    }
    let right = f64::min(row.stopped.right_percent, row.killed.right_percent);
    budgets.push(Budget {
        what: name("right after the start, upstream dead"),
        limit: "100 %".into(),
        measured: format!("{right:.2} %"),
        met: Some(right >= 100.0),
    });
    budgets
}

/// The table for people.
pub fn print(snapshot: &Snapshot, colours: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "restart with a full cache, from the start of the process to its first answer, less the {:.0} ms of an empty start\n",
        snapshot.empty_start_ms
    );
    let load = |row: &Row, restart: Restart| {
        let cell = Cell::new(format!("{:.0} ms", restart.load_ms));
        if row.names == 100_000 { cell.target(restart.load_ms <= 50.0) } else { cell }
    };
    let per_name = |row: &Row| {
        let cell = Cell::number(row.memory_bytes_per_name, 0);
        if row.names == 1_000_000 { cell.target(row.memory_bytes_per_name <= 150.0) } else { cell }
    };
    let rows: Vec<_> = snapshot
        .rows
        .iter()
        .map(|row| {
            vec![
                Cell::new(row.names.to_string()),
                load(row, row.stopped),
                load(row, row.killed),
                Cell::new(format!("{:.0} / {:.0} ms", row.stopped.load_cpu_ms, row.killed.load_cpu_ms)),
                Cell::number(f64::min(row.stopped.right_percent, row.killed.right_percent), 2),
                per_name(row),
                Cell::number(row.file_bytes_per_name, 0),
                Cell::number(row.resident_mib, 1),
                Cell::number(row.peak_mib, 1),
                Cell::number(row.stopped.resident_mib, 1),
            ]
        })
        .collect();
    text += &render(
        &[
            "names",
            "after SIGTERM",
            "after kill -9",
            "CPU of both",
            "right %",
            "memory B/name",
            "file B/name",
            "MiB learnt",
            "MiB peak",
            "MiB loaded",
        ],
        &rows,
        colours,
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]
fn number(value: u64) -> f64 {
    value as f64
}

fn mib(bytes: u64) -> f64 {
    number(bytes) / 1_048_576.0
}

/// Nothing expires during the run.
const TTL_S: u32 = 86_400;
