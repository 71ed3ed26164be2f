//! `cargo xtask up`: all daemons in the foreground, as an ordinary user, under `./var`.

pub(crate) mod config;
pub(crate) mod part;
pub(crate) mod stage;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Child,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use dogwatch_daemon::signals::Signals;
use rustix::fs::{FlockOperation, flock};

use self::{
    part::{PARTS, Part},
    stage::Stage,
};
use crate::{clock, sh, upstream};

#[derive(Args)]
pub(crate) struct Options {
    /// DNS server to forward to, IP or IP:PORT; the default is the first in /etc/resolv.conf
    #[arg(long)]
    upstream: Option<String>,
    /// Directory for configs, sockets, state, logs and mail
    #[arg(long, default_value = "var")]
    dir: PathBuf,
    /// Port of the cache; the upstream uses PORT+1, the metrics pages PORT+47 to PORT+49
    #[arg(long, default_value_t = 5300)]
    port: u16,
}

/// Pause before a daemon that died is started again, like systemd's RestartSec.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(crate) fn run(options: &Options) -> Result<()> {
    let stage = Stage {
        dir: options.dir.clone(),
        port: options.port,
        upstream: match &options.upstream {
            Some(text) => Some(address(text)?),
            None => first_of_resolv_conf(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        },
        binaries: sh::target().join("debug"),
    };
    let top = sh::root().join(&stage.dir);
    fs::create_dir_all(&top).with_context(|| format!("cannot make {}", top.display()))?;
    let lock = fs::File::create(top.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another `cargo xtask up` is running in {}", stage.dir.display()))?;

    println!("building …");
    sh::run(
        sh::cargo(&["build", "-q", "--bin", "dogwatch", "--bin", "alertd", "--bin", "alertctl"])
            .args(sh::SHARED),
    )?;
    stage.is_free()?;
    config::prepare(&stage, &config::demo_checks())?;
    let _ = fs::remove_file(upstream::off_file(&top));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut troupe = Troupe { stage: &stage, children: Vec::new() };
        let watched = async {
            for part in PARTS {
                troupe.children.push((part, Some(stage.start(part)?)));
            }
            print!("{}", screen(&stage));
            loop {
                troupe.look().await?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let ended: Result<()> = tokio::select! {
            ended = watched => ended,
            _ = signals.next() => Ok(()),
        };
        println!("\nstopping …");
        troupe.stop();
        ended
    })
}

/// The running processes. `None` for one that is stopped on request (the upstream).
struct Troupe<'a> {
    stage: &'a Stage,
    children: Vec<(Part, Option<Child>)>,
}

impl Troupe<'_> {
    /// Restarts processes that died and prints it. The upstream stays down until it is started.
    async fn look(&mut self) -> Result<()> {
        let off = upstream::off_file(&sh::root().join(&self.stage.dir));
        for (part, child) in &mut self.children {
            let wanted = *part != Part::Upstream || !off.exists();
            match child {
                Some(running) if !wanted => {
                    let _ = running.kill();
                    let _ = running.wait();
                    *child = None;
                    println!("upstream: stopped; start it with `cargo xtask upstream start`");
                }
                Some(running) => {
                    let Some(status) = running.try_wait()? else { continue };
                    *child = None;
                    println!("{} died ({status}):\n{}", part.name(), self.stage.last_lines(*part));
                    if *part == Part::Upstream {
                        fs::write(&off, "")?;
                        println!("upstream: stays down; start it with `cargo xtask upstream start`");
                        continue;
                    }
                    tokio::time::sleep(RESTART_PAUSE).await;
                    *child = Some(self.stage.start(*part)?);
                    println!("{}: restarted", part.name());
                }
                None if wanted => {
                    *child = Some(self.stage.start(*part)?);
                    println!("{}: back", part.name());
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Sends SIGTERM to all, the agent first, and waits for each.
    fn stop(&mut self) {
        let from = clock::now();
        let mut all_obeyed = true;
        for (part, child) in self.children.iter_mut().rev() {
            if let Some(child) = child {
                stage::terminate(child);
                all_obeyed &= stage::wait_or_kill(child);
            }
            let _ = fs::remove_file(sh::root().join(self.stage.pid_file(*part)));
        }
        let how = if all_obeyed { "all stopped" } else { "stopped, not all by themselves" };
        println!("{how}, {}", clock::took(from));
    }
}

impl Drop for Troupe<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            if let Some(child) = child
                && matches!(child.try_wait(), Ok(None))
            {
                stage::stop(child);
            }
        }
    }
}

fn screen(stage: &Stage) -> String {
    let dir = stage.dir.display();
    let behind = stage.upstream.map_or("nothing (no server in /etc/resolv.conf)".into(), |to| to.to_string());
    let mut lines = vec![String::from("\ndogwatch is up. Ctrl-C stops all of it.\n")];
    let rows = [
        ("alertd", format!("{}", stage.socket(Part::Alertd).display()), Part::Alertd),
        ("dogwatch run", format!("{}", stage.socket(Part::Agent).display()), Part::Agent),
        ("dogwatch dns", format!("{} udp and tcp", stage.dns()), Part::Dns),
    ];
    for (name, place, part) in rows {
        let (metrics, log) = (stage.metrics(part), stage.log(part));
        lines.push(format!("  {name:<13} {place:<26} http://{metrics}/metrics  {}", log.display()));
    }
    lines.push(format!(
        "  {:<13} {:<26} forwards to {behind}; answers *.demo.test itself",
        "upstream",
        stage.relay().to_string()
    ));
    lines.push(format!("  {:<13} {dir}/mail/new", "your mail"));
    lines.push("\nFive things to try in another terminal, at the top of the checkout:\n".into());
    let steps = [
        ("break a check", format!("{dir}/bin/dogwatch submit demo CRITICAL 'somebody pulled the plug'")),
        ("read the page", format!("cat {dir}/mail/new/*")),
        (
            "acknowledge it",
            format!("{dir}/bin/alertctl ack 1 'on my way'   (the number in the page's subject)"),
        ),
        ("watch a name", "cargo xtask ask --watch www.demo.test   (leave it running)".into()),
        (
            "kill the upstream",
            "cargo xtask upstream stop   (the name goes on; a page says what is wrong)".into(),
        ),
    ];
    for (number, (what, how)) in (1..).zip(steps) {
        lines.push(format!("  {number}. {what:<21} {how}"));
    }
    lines.push(format!(
        "\nAnd back: cargo xtask upstream start; {dir}/bin/dogwatch submit demo OK mended; {dir}/bin/alertctl status\n"
    ));
    lines.join("\n") + "\n"
}

/// `192.0.2.1` or `192.0.2.1:5353`.
fn address(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok((ip, 53).into()),
        Err(_) => bail!("--upstream {text:?} is not an address: write IP or IP:PORT"),
    }
}

fn first_of_resolv_conf(text: &str) -> Option<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).map(|ip| (ip, 53).into()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_is_the_first_usable_server_of_resolv_conf() {
        let text =
            "# nameserver 192.0.2.9\nsearch example.org\nnameserver fe80::1%eth0\nnameserver\t192.0.2.1\n";
        assert_eq!(first_of_resolv_conf(text), Some("192.0.2.1:53".parse().unwrap()));
        assert_eq!(first_of_resolv_conf("search example.org\n"), None);
    }

    #[test]
    fn an_upstream_may_be_given_with_or_without_its_port() {
        assert_eq!(address("192.0.2.1").unwrap(), "192.0.2.1:53".parse().unwrap());
        assert_eq!(address("[2001:db8::1]:5353").unwrap(), "[2001:db8::1]:5353".parse().unwrap());
        assert!(address("dns.example.org").is_err());
    }
}
