//! alertd beside Debian's Alertmanager, in one run on one disk: ingest, lists, memory, restart, and
//! the time from a post to the receiver.
//!
//! Both are posted the same bodies over Alertmanager's API v2 by the same client, alertd on its
//! unix socket, Alertmanager on loopback TCP (each the only way it offers without TLS). Neither
//! notifies anybody while it is loaded: groups wait. alertd answers a post when it is on disk
//! (SQLite, `synchronous = FULL`), Alertmanager when it is in memory.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    now, percentile,
    table::{Budget, Cell, render},
};
use crate::{
    http,
    process::{Process, binary, debian_program, free_port},
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub alerts: u32,
    pub groups: u32,
    /// Alerts of one post.
    pub batch: u32,
    /// Posts under way at once.
    pub connections: u32,
    /// Alerts whose way to the receiver is timed.
    pub timed: u32,
    /// Groups of one alert each, all notified at once.
    pub told: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { alerts: 100_000, groups: 5_000, batch: 100, connections: 4, timed: 300, told: 20_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Router {
    Alertd,
    Alertmanager,
}

impl Router {
    fn name(self) -> &'static str {
        match self {
            Self::Alertd => "alertd",
            Self::Alertmanager => "alertmanager",
        }
    }
}

/// Posting all alerts once.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ingest {
    pub per_second: f64,
    /// CPU of the server.
    pub cpu_us_per_alert: f64,
    pub post_p50_ms: f64,
    pub post_p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub router: Router,
    /// Alerts that it did not know.
    pub new: Ingest,
    /// The same again: nothing has changed.
    pub repeated: Ingest,
    pub bytes_per_alert: f64,
    /// One commit to disk while new alerts came: the mean, and a bound that 99 of 100 kept. alertd
    /// only.
    pub commit_ms: Option<(f64, f64)>,
    /// Everything that fires, by group.
    pub list_ms: f64,
    pub listed: usize,
    /// From the start of the process after a `kill -9` to its first answer, with all alerts.
    pub restart_ms: Option<f64>,
    /// Notifications after that start.
    pub told_after_restart: usize,
    /// From the post to the receiver.
    pub handed_p50_ms: f64,
    pub handed_p99_ms: f64,
    /// From the post of groups of one alert each to the receiver's word for the last.
    pub told: Told,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Told {
    pub per_second: f64,
    /// CPU of the router, the post's included.
    pub cpu_us_per_alert: f64,
}

#[derive(Debug, Serialize)]
pub struct Bench {
    pub rows: Vec<Row>,
    pub budgets: Vec<Budget>,
}

pub fn run(plan: &Plan, folder: &Path, progress: &dyn Fn(&str)) -> Result<Bench> {
    let mut rows = vec![measure(Router::Alertd, plan, folder, progress)?];
    match debian_program("prometheus-alertmanager", "prometheus-alertmanager") {
        Some(_) => rows.push(measure(Router::Alertmanager, plan, folder, progress)?),
        None => progress("no Alertmanager beside it: apt-get install prometheus-alertmanager"),
    }
    let budgets = budgets(&rows, plan);
    Ok(Bench { rows, budgets })
}

fn measure(router: Router, plan: &Plan, folder: &Path, progress: &dyn Fn(&str)) -> Result<Row> {
    let name = router.name();
    let counter = Counter::listen()?;
    let mut server = Server::start(router, &folder.join(name), &counter, "1h")?;
    let before = server.process.resident_bytes();
    let bodies: Vec<_> = (0..plan.alerts / plan.batch).map(|number| body(plan, number)).collect();
    progress(&format!("{name}: {} alerts in {} groups, new", plan.alerts, plan.groups));
    let new = ingest(&server, plan, &bodies)?;
    let commit_ms = server.commit_ms();
    let grown = server.process.resident_bytes().saturating_sub(before);
    progress(&format!("{name}: the same again"));
    let repeated = ingest(&server, plan, &bodies)?;
    progress(&format!("{name}: lists"));
    let mut lists = Vec::new();
    let mut listed = 0;
    for _ in 0..3 {
        let start = now();
        let list = server.get("/api/v2/alerts/groups")?;
        lists.push(start.elapsed().as_secs_f64() * 1e3);
        listed = list.matches("\"fingerprint\"").count();
    }
    let mut restart_ms = None;
    let told_before = counter.count();
    if router == Router::Alertd {
        progress(&format!("{name}: killed and started again"));
        server.process.kill();
        let start = now();
        server.launch()?;
        restart_ms = Some(start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_secs(3));
    }
    let told_after_restart = counter.count() - told_before;
    drop(server);
    progress(&format!("{name}: {} alerts, one after the other, to a receiver", plan.timed));
    let (handed_p50_ms, handed_p99_ms) = handed(router, plan, &folder.join(format!("{name}-timed")))?;
    progress(&format!("{name}: {} groups told at once", plan.told));
    let told = tell_all(router, plan, &folder.join(format!("{name}-told")))?;
    Ok(Row {
        router,
        new,
        repeated,
        commit_ms,
        bytes_per_alert: number(grown) / f64::from(plan.alerts),
        list_ms: super::median(lists),
        listed,
        restart_ms,
        told_after_restart,
        handed_p50_ms,
        handed_p99_ms,
        told,
    })
}

fn ingest(server: &Server, plan: &Plan, bodies: &[Vec<u8>]) -> Result<Ingest> {
    let (cpu, start) = (server.process.cpu(), now());
    let next = Mutex::new(bodies.iter());
    let posts = thread::scope(|scope| {
        let post_all = || -> Result<Vec<f64>> {
            let mut stream = server.connect()?;
            let mut posts = Vec::new();
            loop {
                let body = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                let Some(body) = body else { return Ok(posts) };
                let start = now();
                stream.post("/api/v2/alerts", body)?;
                posts.push(start.elapsed().as_secs_f64() * 1e3);
            }
        };
        let threads: Vec<_> = (0..plan.connections).map(|_| scope.spawn(post_all)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    let (took, cpu) = (start.elapsed(), server.process.cpu().saturating_sub(cpu));
    let mut posts = posts.concat();
    posts.sort_by(f64::total_cmp);
    let alerts = f64::from(plan.alerts);
    Ok(Ingest {
        per_second: alerts / took.as_secs_f64(),
        cpu_us_per_alert: cpu.as_secs_f64() * 1e6 / alerts,
        post_p50_ms: percentile(&posts, 50.0),
        post_p99_ms: percentile(&posts, 99.0),
    })
}

/// Median and 99th percentile of the time from a post to its arrival at the receiver, ms.
fn handed(router: Router, plan: &Plan, folder: &Path) -> Result<(f64, f64)> {
    let counter = Counter::listen()?;
    let server = Server::start(router, folder, &counter, "0s")?;
    let mut stream = server.connect()?;
    let mut took = Vec::new();
    for number in 0..plan.timed {
        let host = format!("timed{number}");
        let posted = now();
        stream.post("/api/v2/alerts", format!("[{}]", alert(&host, number)).as_bytes())?;
        let limit = Duration::from_secs(10);
        let arrived = loop {
            if let Some(at) = counter.when(&host) {
                break at;
            }
            if posted.elapsed() > limit {
                bail!("{}: {host} did not arrive within {limit:?}\n{}", router.name(), server.process.log());
            }
            thread::sleep(Duration::from_micros(200));
        };
        took.push(arrived.saturating_duration_since(posted).as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok((percentile(&took, 50.0), percentile(&took, 99.0)))
}

/// Posts groups of one alert each, to be told at once, and waits until the receiver has all of
/// them.
fn tell_all(router: Router, plan: &Plan, folder: &Path) -> Result<Told> {
    let counter = Counter::listen()?;
    let server = Server::start(router, folder, &counter, "0s")?;
    let plan = Plan { alerts: plan.told, groups: plan.told, ..plan.clone() };
    let bodies: Vec<_> = (0..plan.alerts / plan.batch).map(|number| body(&plan, number)).collect();
    let (cpu, start) = (server.process.cpu(), now());
    ingest(&server, &plan, &bodies)?;
    let all = bodies.len() * plan.batch as usize;
    while counter.count() < all {
        if start.elapsed() > Duration::from_mins(5) {
            bail!("{}: {} of {all} groups were told within 5 min", router.name(), counter.count());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let (took, cpu) = (start.elapsed(), server.process.cpu().saturating_sub(cpu));
    let alerts = f64::from(plan.alerts);
    Ok(Told { per_second: alerts / took.as_secs_f64(), cpu_us_per_alert: cpu.as_secs_f64() * 1e6 / alerts })
}

/// One post: alerts of as many groups as it has.
fn body(plan: &Plan, number: u32) -> Vec<u8> {
    let alerts = (0..plan.batch).map(|place| {
        let id = number * plan.batch + place;
        alert(&format!("host{}", id % plan.groups), id)
    });
    format!("[{}]", alerts.collect::<Vec<_>>().join(",")).into_bytes()
}

fn alert(host: &str, id: u32) -> String {
    format!(
        r#"{{"labels":{{"alertname":"DiskFull","host":"{host}","instance":"{host}:9100","mountpoint":"/srv/{id}","severity":"critical","team":"storage"}},"annotations":{{"summary":"/srv/{id} on {host} is 97 % full","runbook_url":"https://runbooks.example/disk"}},"startsAt":"2026-01-01T00:00:00Z","endsAt":"2036-01-01T00:00:00Z","generatorURL":"http://prometheus.example/graph?g0.expr=disk"}}"#
    )
}

/// A router with one webhook receiver.
struct Server {
    router: Router,
    folder: PathBuf,
    /// Alertmanager's API; alertd's metrics.
    address: SocketAddr,
    process: Process,
}

impl Server {
    /// Its groups wait for `group_wait` before they notify.
    fn start(router: Router, folder: &Path, counter: &Counter, group_wait: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (dir, hook) = (folder.display(), counter.address);
        let config = match router {
            Router::Alertd => format!(
                "[alertd]\nsocket = \"{dir}/alertd.sock\"\nstate_dir = \"{dir}/state\"\nmetrics = \"{address}\"\n\
                 [[route]]\nreceiver = \"hook\"\ngroup_wait = \"{group_wait}\"\n\
                 [receiver.hook]\nrate = {{ burst = 1000000, every = \"1ms\" }}\n\
                 [receiver.hook.webhook]\nurl = \"http://{hook}/\"\n"
            ),
            Router::Alertmanager => format!(
                "route:\n  receiver: hook\n  group_by: [host]\n  group_wait: {group_wait}\n  group_interval: 1h\n\
                 receivers:\n- name: hook\n  webhook_configs:\n  - url: http://{hook}/\n"
            ),
        };
        fs::write(folder.join("config"), config)?;
        let process = spawn(router, folder, address)?;
        let server = Self { router, folder: folder.to_owned(), address, process };
        server.wait_for_answer()?;
        Ok(server)
    }

    fn launch(&mut self) -> Result<()> {
        self.process = spawn(self.router, &self.folder, self.address)?;
        self.wait_for_answer()
    }

    fn wait_for_answer(&self) -> Result<()> {
        let start = now();
        while self.get("/api/v2/status").is_err() {
            if start.elapsed() > Duration::from_mins(1) {
                bail!("{} does not answer:\n{}", self.router.name(), self.process.log());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Mean, and the least bound of the histogram that 99 of 100 commits kept, ms.
    fn commit_ms(&self) -> Option<(f64, f64)> {
        const NAME: &str = "alertd_commit_duration_seconds";
        let (_, page) = http::get(self.address.port(), "/metrics")?;
        let value = |suffix: &str| {
            let name = format!("{NAME}{suffix} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse::<f64>().ok())
        };
        let count = value("_count").filter(|count| *count > 0.0)?;
        let bucket = |line: &str| {
            let (bound, below) =
                line.strip_prefix(NAME)?.strip_prefix("_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()?, below.trim().parse::<f64>().ok()?))
        };
        let kept = page.lines().filter_map(bucket).find(|(_, below)| *below >= 0.99 * count);
        Some((value("_sum")? / count * 1e3, kept.map_or(f64::INFINITY, |(bound, _)| bound * 1e3)))
    }

    fn connect(&self) -> Result<Connection> {
        let patience = Some(Duration::from_mins(1));
        let stream: Box<dyn Both> = match self.router {
            Router::Alertd => {
                let stream = UnixStream::connect(self.folder.join("alertd.sock"))?;
                stream.set_read_timeout(patience)?;
                Box::new(stream)
            }
            Router::Alertmanager => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(patience)?;
                Box::new(stream)
            }
        };
        Ok(Connection(stream))
    }

    /// A whole answer's body.
    fn get(&self, path: &str) -> Result<String> {
        let mut connection = self.connect()?;
        write!(connection.0, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        connection.0.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
            bail!("{path}: {head}");
        }
        Ok(body.to_owned())
    }
}

fn spawn(router: Router, folder: &Path, address: SocketAddr) -> Result<Process> {
    let mut command = match router {
        Router::Alertd => {
            let mut command = Command::new(binary("alertd"));
            command.arg("--config").arg(folder.join("config")).env("DOGWATCH_LOG", "error");
            command
        }
        Router::Alertmanager => {
            let program = debian_program("prometheus-alertmanager", "prometheus-alertmanager")
                .context("not installed")?;
            let mut command = Command::new(program);
            command
                .arg(format!("--config.file={}", folder.join("config").display()))
                .arg(format!("--storage.path={}", folder.join("state").display()))
                .arg(format!("--web.listen-address={address}"))
                .args(["--cluster.listen-address=", "--log.level=error"]);
            command
        }
    };
    Ok(Process::start(router.name(), &mut command, folder))
}

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

struct Connection(Box<dyn Both>);

impl Connection {
    /// Posts and waits for a 2xx with a body of known length.
    fn post(&mut self, path: &str, body: &[u8]) -> Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4_096];
        let head_end = loop {
            let read = self.0.read(&mut buffer)?;
            if read == 0 {
                bail!("{path}: the connection was closed");
            }
            answer.extend_from_slice(&buffer[..read]);
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 2") {
            bail!("{path}: {}", String::from_utf8_lossy(&answer));
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let mut missing = (head_end + length.unwrap_or(0)).saturating_sub(answer.len());
        while missing > 0 {
            missing = missing.saturating_sub(self.0.read(&mut buffer)?);
        }
        Ok(())
    }
}

/// The receiver's server: records when it first got each host.
#[derive(Clone)]
struct Counter {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Counter {
    fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let counter = Self { address: listener.local_addr()?, heard: Arc::default() };
        let counting = counter.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counting = counting.clone();
                thread::spawn(move || counting.serve(stream));
            }
        });
        Ok(counter)
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16_384];
        loop {
            let end = loop {
                if let Some(end) = whole(&bytes) {
                    break end;
                }
                let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
                bytes.extend_from_slice(&buffer[..read]);
            };
            let at = now();
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let host =
                text.split("\"host\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            self.heard.lock().ok()?.push((host.to_owned(), at));
            bytes.drain(..end);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
        }
    }

    fn count(&self) -> usize {
        self.heard.lock().map(|heard| heard.len()).unwrap_or_default()
    }

    fn when(&self, host: &str) -> Option<Instant> {
        self.heard.lock().ok()?.iter().find(|(heard, _)| heard == host).map(|(_, at)| *at)
    }
}

/// Where the first request ends, if it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

fn budgets(rows: &[Row], plan: &Plan) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let Some(ours) = rows.iter().find(|row| row.router == Router::Alertd) else { return budgets };
    if let Some(theirs) = rows.iter().find(|row| row.router == Router::Alertmanager) {
        let ratio = |what: &str, ours: f64, theirs: f64| {
            let ratio = theirs / ours.max(f64::EPSILON);
            Budget::at_most(format!("{what}, Alertmanager's rate beside ours"), ratio, 1.0, "×")
        };
        budgets.push(ratio("durable ingest", ours.new.per_second, theirs.new.per_second));
        budgets.push(ratio("repeats", ours.repeated.per_second, theirs.repeated.per_second));
        let ratio = ours.list_ms / theirs.list_ms.max(f64::EPSILON);
        budgets.push(Budget::at_most(
            format!("list of {} groups beside Alertmanager's", plan.groups),
            ratio,
            1.0,
            "×",
        ));
    } else {
        budgets.push(Budget::not_measured("durable ingest beside Alertmanager", "it is not installed"));
    }
    let restart_s = ours.restart_ms.unwrap_or(f64::INFINITY) / 1e3;
    budgets.push(Budget::at_most(format!("restart with {} active alerts", plan.alerts), restart_s, 5.0, "s"));
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let told = ours.told_after_restart as f64;
    budgets.push(Budget::at_most("notifications sent by that restart", told, 0.0, ""));
    budgets.push(Budget::at_most("post → handed to the receiver, p99", ours.handed_p99_ms / 1e3, 1.0, "s"));
    budgets
}

/// The table for people.
pub fn print(bench: &Bench, plan: &Plan, colours: bool) -> String {
    let mut text = String::new();
    let Plan { alerts, groups, batch, connections, .. } = plan;
    let _ = writeln!(
        text,
        "{alerts} alerts in {groups} groups, posts of {batch} over {connections} connections; alertd answers from disk, \
         Alertmanager from memory\n"
    );
    let rows: Vec<_> = bench
        .rows
        .iter()
        .map(|row| {
            let restart = row.restart_ms.map_or_else(|| "forgets".into(), |ms| format!("{ms:.0} ms"));
            vec![
                Cell::new(row.router.name()),
                Cell::number(row.new.per_second, 0),
                Cell::number(row.new.cpu_us_per_alert, 1),
                Cell::new(format!("{:.1} / {:.1}", row.new.post_p50_ms, row.new.post_p99_ms)),
                Cell::number(row.repeated.per_second, 0),
                Cell::number(row.repeated.cpu_us_per_alert, 1),
                Cell::number(row.bytes_per_alert, 0),
                Cell::new(format!("{:.0} ms", row.list_ms)),
                Cell::number(f64::from(u32::try_from(row.listed).unwrap_or(u32::MAX)), 0),
                Cell::new(restart),
                Cell::new(format!("{:.1} / {:.1}", row.handed_p50_ms, row.handed_p99_ms)),
                Cell::number(row.told.per_second, 0),
                Cell::number(row.told.cpu_us_per_alert, 1),
            ]
        })
        .collect();
    text += &render(
        &[
            "router",
            "new/s",
            "CPU µs",
            "post p50/p99 ms",
            "again/s",
            "CPU µs",
            "B/alert",
            "list",
            "listed",
            "restart",
            "handed p50/p99 ms",
            "told/s",
            "CPU µs",
        ],
        &rows,
        colours,
    );
    for (mean, bound) in bench.rows.iter().filter_map(|row| row.commit_ms) {
        let _ = writeln!(text, "\nalertd's commits: {mean:.1} ms on average, 99 of 100 within {bound:.0} ms");
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]
fn number(value: u64) -> f64 {
    value as f64
}
