//! CPU per cached DNS answer: dogwatch, Unbound and dnsmasq in one run, over loopback UDP.
//!
//! All servers forward to the same fake upstream, hold the same names and are asked in turns, round after round, so that
//! whatever else the machine does hits all alike. The figure is CPU time of the server's own threads (from the
//! scheduler, `/proc/PID/task/*/schedstat`) over answers received, at saturation by one client thread; an echo server
//! without DNS shows what the kernel's UDP path alone costs. Read the ratios; the microseconds are this machine's.

#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dogwatch_tests::{
    dns_client::ask_udp,
    dns_message::{A, query},
    process::{Process, binary, debian_program, free_port, holds_within},
    upstream,
};
use serde::Serialize;

/// CPU per cached answer of dogwatch dns, Unbound and dnsmasq, in one run.
#[derive(Parser)]
struct Options {
    /// The dogwatch binary; without it the one built beside this program.
    #[arg(long)]
    dogwatch: Option<PathBuf>,
    /// Names in the caches.
    #[arg(long, default_value_t = 10_000)]
    names: u32,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one round of one server.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// One JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// (internal) be the echo server
    #[arg(long, hide = true)]
    echo: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match options.echo {
        Some(address) => echo(address),
        None => bench(&options),
    }
}

/// One server in the race.
struct Runner {
    name: &'static str,
    process: Process,
    address: SocketAddr,
    rounds: Vec<Round>,
}

/// What one round of one server gave.
#[derive(Clone, Copy)]
struct Round {
    answers: u64,
    cpu: Duration,
    wall: Duration,
}

#[derive(Serialize)]
struct Row {
    server: &'static str,
    cpu_us_per_answer: f64,
    /// Against the echo in the same run.
    times_echo: f64,
    /// Against Unbound in the same run, where it ran.
    times_unbound: Option<f64>,
    answers_per_s: f64,
    resident_mib: f64,
}

fn bench(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let upstream_port = free_port();
    let upstream_address = SocketAddr::from(([127, 0, 0, 1], upstream_port));
    let mut command = Command::new(binary("fake-upstream"));
    let _upstream = Process::start("upstream", command.arg(upstream_address.to_string()), folder.path());

    let mut runners = start_servers(options, folder.path(), upstream_address)?;
    for runner in &runners {
        if runner.name != "echo" {
            progress(options, &format!("warming {}: {} names", runner.name, options.names));
            warm(runner, options.names)?;
        }
    }
    for round in 1..=options.rounds {
        progress(options, &format!("round {round} of {}", options.rounds));
        for runner in &mut runners {
            let cpu_before = runner.process.cpu();
            let (answers, wall) = flood(runner.address, options.names, Duration::from_secs(options.seconds))?;
            let cpu = runner.process.cpu().saturating_sub(cpu_before);
            runner.rounds.push(Round { answers, cpu, wall });
        }
    }
    print(options, &runners)
}

fn start_servers(options: &Options, folder: &Path, upstream: SocketAddr) -> Result<Vec<Runner>> {
    let mut runners = Vec::new();
    let mut start = |name: &'static str, port: u16, command: &mut Command, folder: &Path| {
        let process = Process::start(name, command, folder);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        runners.push(Runner { name, process, address, rounds: Vec::new() });
    };

    let port = free_port();
    let mut command = Command::new(std::env::current_exe()?);
    start("echo", port, command.args(["--echo", &format!("127.0.0.1:{port}")]), folder);

    let port = free_port();
    let config = folder.join("dns.toml");
    std::fs::write(&config, dogwatch_config(port, upstream, folder))?;
    let dogwatch = options.dogwatch.clone().unwrap_or_else(|| binary("dogwatch"));
    start("dogwatch", port, Command::new(dogwatch).arg("dns").arg("--config").arg(config), folder);

    if let Some(unbound) = debian_program("unbound", "unbound") {
        let port = free_port();
        let config = folder.join("unbound.conf");
        std::fs::write(&config, unbound_config(port, upstream, folder))?;
        start("unbound", port, Command::new(unbound).arg("-d").arg("-c").arg(config), folder);
    }
    if let Some(dnsmasq) = debian_program("dnsmasq", "dnsmasq-base") {
        let port = free_port();
        let mut command = Command::new(dnsmasq);
        command.args([
            "--keep-in-foreground",
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
        ]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--cache-size=20000"]);
        command.arg(format!("--port={port}")).arg(format!("--server={}#{}", upstream.ip(), upstream.port()));
        start(
            "dnsmasq",
            port,
            command.arg(format!("--pid-file={}", folder.join("dnsmasq.pid").display())),
            folder,
        );
    }
    Ok(runners)
}

fn dogwatch_config(port: u16, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "[dns]\nlisten = [\"127.0.0.1:{port}\"]\nupstreams = [\"{upstream}\"]\nstate_dir = \"{folder}/state\"\n\
         control_socket = \"{folder}/control.sock\"\nmetrics = \"127.0.0.1:0\"\n"
    )
}

fn unbound_config(port: u16, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "server:\n interface: 127.0.0.1\n port: {port}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n\
         directory: \"{folder}\"\n pidfile: \"{folder}/unbound.pid\"\n use-syslog: no\n num-threads: 1\n\
         do-not-query-localhost: no\n module-config: \"iterator\"\n msg-cache-size: 64m\n rrset-cache-size: 64m\n\
         local-zone: \"test.\" nodefault\nremote-control:\n control-enable: no\n\
         forward-zone:\n name: \".\"\n forward-addr: {}@{}\n",
        upstream.ip(),
        upstream.port()
    )
}

/// Asks every name until it is answered right, so that the rounds meet only cached answers.
fn warm(runner: &Runner, names: u32) -> Result<()> {
    let first = upstream::name(0, TTL_S);
    if !holds_within(Duration::from_secs(20), || ask_udp(runner.address, &first, A).is_ok()) {
        bail!("{} does not answer:\n{}", runner.name, runner.process.log());
    }
    let socket = client(runner.address)?;
    let mut buffer = [0; 512];
    for number in 0..names {
        let message = query(id(number), &upstream::name(number, TTL_S), A, true);
        for attempt in 0.. {
            socket.send(&message)?;
            match socket.recv(&mut buffer) {
                Ok(length)
                    if buffer[..2] == message[..2]
                        && buffer[3].trailing_zeros() >= 4
                        && length > message.len() =>
                {
                    break;
                }
                _ if attempt < 20 => {}
                _ => bail!(
                    "{} does not learn {}:\n{}",
                    runner.name,
                    upstream::name(number, TTL_S),
                    runner.process.log()
                ),
            }
        }
    }
    Ok(())
}

/// Keeps [`WINDOW`] questions under way until `length` is over; returns the answers received and the time it took.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn flood(address: SocketAddr, names: u32, length: Duration) -> Result<(u64, Duration)> {
    let socket = client(address)?;
    let messages: Vec<_> =
        (0..names).map(|number| query(id(number), &upstream::name(number, TTL_S), A, true)).collect();
    let mut buffer = [0; 512];
    let (mut next, mut answers, mut under_way) = (0, 0, 0);
    let start = Instant::now();
    while start.elapsed() < length {
        // Refill in bursts, as answers come in bursts: then client and server sleep and wake less often.
        while under_way < WINDOW {
            socket.send(&messages[next % messages.len()])?;
            // A stride that is coprime to any count of names we use visits all of them, in no helpful order.
            next += 7_919;
            under_way += 1;
        }
        while under_way > WINDOW / 2 {
            if socket.recv(&mut buffer).is_ok() {
                answers += 1;
                under_way -= 1;
            } else {
                // Lost in a full socket buffer: start a new window.
                under_way = 0;
            }
        }
    }
    let wall = start.elapsed();
    Ok((answers, wall))
}

fn client(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

fn print(options: &Options, runners: &[Runner]) -> Result<()> {
    // The median round: a neighbour's burst spoils one, not all.
    let cost = |runner: &Runner| {
        let mut rounds: Vec<_> = runner
            .rounds
            .iter()
            .map(|round| round.cpu.as_secs_f64() * 1e6 / round.answers.max(1) as f64)
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    };
    let of = |name: &str| runners.iter().find(|runner| runner.name == name).map(cost);
    let echo = of("echo").context("the echo server always runs")?;
    let unbound = of("unbound");
    let rows: Vec<_> = runners
        .iter()
        .map(|runner| {
            let answers: u64 = runner.rounds.iter().map(|round| round.answers).sum();
            let wall: Duration = runner.rounds.iter().map(|round| round.wall).sum();
            Row {
                server: runner.name,
                cpu_us_per_answer: cost(runner),
                times_echo: cost(runner) / echo,
                times_unbound: unbound.map(|unbound| cost(runner) / unbound),
                answers_per_s: answers as f64 / wall.as_secs_f64(),
                resident_mib: runner.process.resident_bytes() as f64 / 1_048_576.0,
            }
        })
        .collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "cached DNS answers over loopback UDP, {} names, median of {} rounds",
        options.names, options.rounds
    );
    println!(
        "{:<10} {:>14} {:>8} {:>11} {:>12} {:>9}",
        "server", "CPU µs/answer", "× echo", "× Unbound", "answers/s", "RSS MiB"
    );
    for row in rows {
        let times_unbound = row.times_unbound.map_or_else(|| "-".into(), |times| format!("{times:.2}"));
        println!(
            "{:<10} {:>14.2} {:>8.2} {:>11} {:>12.0} {:>9.1}",
            row.server,
            row.cpu_us_per_answer,
            row.times_echo,
            times_unbound,
            row.answers_per_s,
            row.resident_mib
        );
    }
    Ok(())
}

fn echo(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}

fn progress(options: &Options, what: &str) {
    if !options.json {
        eprintln!("  {what}");
    }
}

fn id(number: u32) -> u16 {
    (number % 65_521) as u16
}

/// Long enough to outlive the run.
const TTL_S: u32 = 3_600;
/// Questions under way: enough that the server never waits for the client, few enough for default socket buffers.
const WINDOW: usize = 64;
