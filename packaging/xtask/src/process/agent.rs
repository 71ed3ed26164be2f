//! Instances of the agent, each with its own identity, state and metrics page.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::daemon::Daemon;
use crate::{sh, up::part::Part, up::stage::Stage};

const READY_LIMIT: Duration = Duration::from_secs(20);
const PAGE_LIMIT: Duration = Duration::from_secs(5);

/// A running agent.
pub(crate) struct Agent {
    pub(crate) daemon: Daemon,
    metrics: SocketAddr,
    socket: PathBuf,
}

/// A histogram of the metrics page.
#[derive(Debug, Default, Clone)]
pub(crate) struct Histogram {
    /// Upper bound in seconds and cumulative count.
    buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
}

impl Agent {
    /// Starts an agent that reports to the alertd of `stage`. `checks` follows its paths in the
    /// config.
    pub(crate) fn start(stage: &Stage, name: &str, auto_checks: bool, checks: &str) -> Result<Self> {
        let dir = sh::root().join(&stage.dir).join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let metrics = free_address()?;
        let path = |file: &str| dir.join(file).display().to_string();
        // A state_dir and a socket below the current directory keep the socket's path short.
        let socket = stage.dir.join(name).join("agent.sock");
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        fs::write(dir.join("machine-id"), format!("{:032x}\n", number(name)))?;
        let text = format!(
            "[agent]\nhost = \"{name}\"\nsocket = {}\nstate_dir = {:?}\nmetrics = \"{metrics}\"\n\
             machine_id_file = {:?}\nauto_checks = {auto_checks}\n\n\
             [alertd]\nsockets = [{}]\n\n[dns]\ncontrol = {}\n\n{checks}",
            quoted(&socket),
            path("state"),
            path("machine-id"),
            quoted(&stage.socket(Part::Alertd)),
            quoted(&stage.socket(Part::Dns)),
        );
        let config = dir.join("agent.toml");
        fs::write(&config, text)?;
        let mut command = sh::command(&[stage.binaries.join("dogwatch")]);
        command.args(["run", "--config"]).arg(&config);
        let mut daemon = Daemon::start(&mut command, &dir.join("log"))?;
        let socket = sh::root().join(socket);
        let answers = || !daemon.is_running() || UnixStream::connect(&socket).is_ok();
        if !sh::wait_until(READY_LIMIT, answers) || !daemon.is_running() {
            bail!("the agent {name} does not start: {}", daemon.last_lines());
        }
        Ok(Self { daemon, metrics, socket })
    }

    /// The text of its metrics page.
    pub(crate) fn page(&self) -> Result<String> {
        page(self.metrics)
    }

    /// Submits a result of a passive check, like `dogwatch submit`.
    pub(crate) fn submit(&self, service: &str, state: &str, text: &str) -> Result<()> {
        let body = json!({ "service": service, "state": state, "text": text }).to_string();
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PAGE_LIMIT))?;
        write!(
            stream,
            "POST /v1/submit HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let first = answer.lines().next().unwrap_or_default();
        ensure!(first.contains(" 20"), "{service}: the agent answers {answer}");
        Ok(())
    }

    /// How late checks started, since the agent's start.
    pub(crate) fn lag(&self) -> Result<Histogram> {
        Ok(Histogram::parse(&self.page()?, "dogwatch_check_start_lag_seconds"))
    }
}

impl Histogram {
    fn parse(text: &str, name: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some(rest) = series.strip_prefix(name) else { continue };
            let value = value.parse::<u64>().unwrap_or(0);
            if rest == "_count" {
                found.count = value;
            } else if let Some(bound) =
                rest.strip_prefix("_bucket{le=\"").and_then(|rest| rest.split('"').next())
            {
                found.buckets.push((bound.parse().unwrap_or(f64::INFINITY), value));
            }
        }
        found
    }

    /// What was recorded after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| {
            let same = before.buckets.iter().find(|(other, _)| other.total_cmp(&bound).is_eq());
            same.map_or(0, |(_, count)| *count)
        };
        let buckets = self.buckets.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        Self { buckets, count: self.count - before.count }
    }

    /// The bound of the bucket in which this share of the values ends.
    pub(crate) fn at_most(&self, percent: u64) -> Option<f64> {
        let enough = (self.count * percent).div_ceil(100).max(1);
        self.buckets.iter().find(|(_, count)| *count >= enough).map(|(bound, _)| *bound)
    }
}

/// The sum of all series of a metric, or one series with its labels.
pub(crate) fn total(page: &str, name: &str) -> f64 {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = rest.rsplit_once(' ')?.1;
        rest.starts_with([' ', '{']).then(|| value.parse::<f64>().ok())?
    };
    page.lines().filter_map(of).sum()
}

/// Different for different names.
fn number(name: &str) -> u128 {
    name.bytes().fold(1, |sum: u128, byte| sum.wrapping_mul(257).wrapping_add(byte.into()))
}

/// A port that nothing uses at this moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Reads `/metrics`.
pub(crate) fn page(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PAGE_LIMIT)?;
    stream.set_read_timeout(Some(PAGE_LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("http://{address}/metrics"))?;
    Ok(text)
}

/// The stripped program, as the package contains it.
pub(crate) fn installed_kib(stage: &Stage, program: &str) -> Result<u64> {
    let to: PathBuf = sh::root().join(&stage.dir).join(Path::new("stripped"));
    let mut command = sh::command(&["strip", "--strip-unneeded", "-o"]);
    sh::run(command.arg(&to).arg(stage.binaries.join(program)))?;
    Ok(fs::metadata(&to)?.len() / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE lag histogram
lag_bucket{le=\"0.001\"} 90
lag_bucket{le=\"0.5\"} 99
lag_bucket{le=\"+Inf\"} 100
lag_sum 1.5
lag_count 100
";

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let lag = Histogram::parse(PAGE, "lag");
        assert_eq!(
            (lag.at_most(50), lag.at_most(99), lag.at_most(100)),
            (Some(0.001), Some(0.5), Some(f64::INFINITY))
        );
        assert_eq!(lag.since(&lag).count, 0);
        assert_eq!(Histogram::default().at_most(99), None);
    }
}
