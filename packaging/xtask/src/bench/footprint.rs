//! Resident memory and CPU time of the three daemons, with 50 native checks every 30 s.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::Budget;
use crate::{
    clock, sh,
    up::{
        config::{self, Checks},
        part::{PARTS, Part},
        stage::{self, Stage},
    },
};

const CHECKS: usize = 50;
const INTERVAL_S: u64 = 30;
/// Different from the ports of `up`, which may be running.
const PORT: u16 = 5400;

/// The figures of one daemon.
#[derive(Serialize)]
pub(super) struct Cost {
    daemon: &'static str,
    resident_kib: u64,
    resident_budget_kib: Option<u64>,
    /// Percent of one core.
    cpu_percent: f64,
    cpu_budget_percent: Option<f64>,
}

/// Runs them for `duration` after a warm-up.
pub(super) fn measure(duration: Duration) -> Result<Vec<Cost>> {
    let dir = PathBuf::from("target/bench/footprint");
    let _ = fs::remove_dir_all(sh::root().join(&dir));
    let stage = Stage { dir, port: PORT, upstream: None, binaries: sh::target().join("release") };
    stage.is_free()?;
    config::prepare(&stage, &Checks { auto: false, text: checks(&stage) })?;
    let mut running = Running(Vec::new());
    for part in PARTS {
        running.0.push((part, stage.start(part)?));
    }
    let warm = Duration::from_secs(INTERVAL_S + 5);
    eprintln!("warming up for {} s, then measuring for {} s …", warm.as_secs(), duration.as_secs());
    thread::sleep(warm);
    let daemons: Vec<_> = running
        .0
        .iter()
        .filter(|(part, _)| *part != Part::Upstream)
        .map(|(part, child)| (*part, child.id()))
        .collect();
    let before = daemons.iter().map(|(_, pid)| cpu(*pid)).collect::<Result<Vec<_>>>()?;
    let from = clock::now();
    thread::sleep(duration);
    let wall = clock::now().duration_since(from);
    let mut costs = Vec::new();
    for ((part, pid), before) in daemons.iter().zip(before) {
        let used = cpu(*pid)?.saturating_sub(before);
        let (resident_budget_kib, cpu_budget_percent) = budget(*part);
        costs.push(Cost {
            daemon: part.name(),
            resident_kib: resident_kib(*pid)?,
            resident_budget_kib,
            cpu_percent: used.as_secs_f64() / wall.as_secs_f64() * 100.0,
            cpu_budget_percent,
        });
    }
    Ok(costs)
}

/// Budgets: resident KiB and percent of a core.
fn budget(part: Part) -> (Option<u64>, Option<f64>) {
    match part {
        Part::Agent => (Some(12 * 1024), Some(0.1)),
        Part::Dns => (Some(10 * 1024), None),
        Part::Alertd | Part::Upstream => (None, None),
    }
}

fn checks(stage: &Stage) -> String {
    let upstream = stage.relay();
    let kinds = [
        "kind = \"load\"".to_owned(),
        "kind = \"memory\"".to_owned(),
        "kind = \"disk\"".to_owned(),
        format!("kind = \"tcp\"\nhost = \"{}\"\nport = {}", upstream.ip(), upstream.port()),
        "kind = \"swap\"".to_owned(),
    ];
    let mut text = format!("[defaults]\ninterval = \"{INTERVAL_S}s\"\nretry_interval = \"{INTERVAL_S}s\"\n");
    for number in 0..CHECKS {
        text += &["\n[check.bench-", &number.to_string(), "]\n", &kinds[number % kinds.len()], "\n"].concat();
    }
    text
}

/// CPU time of all threads of a process, as the scheduler counts it.
fn cpu(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    let tasks =
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ran = text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        sum += Duration::from_nanos(ran);
    }
    Ok(sum)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let Some(kib) = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()) else {
        bail!("/proc/{pid}/status names no VmRSS");
    };
    Ok(kib)
}

#[expect(clippy::cast_precision_loss, reason = "memory in MiB for people")]
pub(super) fn print_table(costs: &[Cost]) {
    println!("{CHECKS} native checks every {INTERVAL_S} s");
    println!("{:<14} {:>10} {:>10}   {:>8} {:>8}", "daemon", "resident", "budget", "CPU", "budget");
    for cost in costs {
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        let resident_missed = cost.resident_budget_kib.is_some_and(|budget| cost.resident_kib > budget);
        let cpu_missed = cost.cpu_budget_percent.is_some_and(|budget| cost.cpu_percent > budget);
        let missed = if resident_missed || cpu_missed { "  MISSED" } else { "" };
        println!(
            "{:<14} {:>10} {:>10}   {:>7.3}% {:>8}{missed}",
            cost.daemon,
            mib(cost.resident_kib),
            cost.resident_budget_kib.map_or("-".into(), mib),
            cost.cpu_percent,
            cost.cpu_budget_percent.map_or("-".into(), |budget| format!("{budget}%")),
        );
    }
}

/// The figures with their budgets.
#[expect(clippy::cast_precision_loss, reason = "memory in MiB for people")]
pub(super) fn budgets(costs: &[Cost]) -> Vec<Budget> {
    let mut budgets = Vec::new();
    for cost in costs {
        if let Some(most) = cost.resident_budget_kib {
            let (measured, most) = (cost.resident_kib as f64 / 1024.0, most as f64 / 1024.0);
            budgets.push(Budget::at_most(&format!("{}: resident", cost.daemon), measured, most, "MiB"));
        }
        if let Some(most) = cost.cpu_budget_percent {
            budgets.push(Budget::at_most(
                &format!("{}: CPU", cost.daemon),
                cost.cpu_percent,
                most,
                "% of a core",
            ));
        }
    }
    budgets
}

/// The processes of the measurement; stopped when dropped.
struct Running(Vec<(Part, std::process::Child)>);

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in self.0.iter_mut().rev() {
            stage::stop(child);
        }
    }
}
