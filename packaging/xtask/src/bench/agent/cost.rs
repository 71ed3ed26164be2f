//! CPU time of one run of a check, natively and as a plugin of monitoring-plugins.
//!
//! For each kind and form, two agents run the same checks at different intervals. The difference of
//! their CPU time, divided by the difference of their runs, is the cost of one run: what the agent
//! does at rest cancels out. It includes the scheduler, the status, the metrics and the history.

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

use super::checks::{self, Kind};
use crate::{
    process::{agent::Agent, usage},
    up::stage::Stage,
};

const KINDS: [Kind; 4] = [Kind::Load, Kind::Disk, Kind::Procs, Kind::Tcp];
const NATIVE_CHECKS: usize = 100;
const PLUGIN_CHECKS: usize = 5;
const OFTEN: &str = "1s";
const SELDOM: &str = "10s";
/// Until every check has run once.
const WARM: Duration = Duration::from_secs(11);

/// What one kind of check costs.
#[derive(Serialize)]
pub(in crate::bench) struct Cost {
    pub(super) check: &'static str,
    native_us: f64,
    plugin_us: f64,
    /// Plugin by native.
    pub(super) ratio: f64,
}

/// Whether the plugins are installed.
pub(super) fn has_plugins(target: SocketAddr) -> bool {
    KINDS.iter().all(|kind| Path::new(&kind.plugin(target)[0]).exists())
}

pub(super) fn measure(stage: &Stage, target: SocketAddr, span: Duration) -> Result<Vec<Cost>> {
    let mut pairs = Vec::new();
    for (at, kind) in KINDS.into_iter().enumerate() {
        for plugins in [false, true] {
            let count = if plugins { PLUGIN_CHECKS } else { NATIVE_CHECKS };
            let start = |every: &str| {
                let name = format!("{}{at}-{every}", if plugins { "plugin" } else { "native" });
                let text = checks::config(count, every, plugins, target, |_| kind);
                Agent::start(stage, &name, false, &text)
            };
            pairs.push((kind, [start(OFTEN)?, start(SELDOM)?]));
        }
    }
    thread::sleep(WARM);
    let look = |agent: &Agent| -> Result<(Duration, u64)> {
        Ok((usage::cpu(agent.daemon.pid()).context("an agent has ended")?, agent.lag()?.count))
    };
    let before = pairs.iter().map(|(_, [often, seldom])| Ok([look(often)?, look(seldom)?]));
    let before = before.collect::<Result<Vec<_>>>()?;
    thread::sleep(span);
    let mut costs = Vec::new();
    for ((_, [often, seldom]), before) in pairs.iter().zip(before) {
        let now = [look(often)?, look(seldom)?];
        let used = |at: usize| (now[at].0.saturating_sub(before[at].0)).as_secs_f64() * 1e6;
        let runs = |at: usize| now[at].1 - before[at].1;
        costs.push((used(0) - used(1)).max(0.0) / number(runs(0).saturating_sub(runs(1)).max(1)));
    }
    let costs = KINDS.iter().zip(costs.chunks(2)).map(|(kind, pair)| Cost {
        check: kind.name(),
        native_us: pair[0],
        plugin_us: pair[1],
        ratio: pair[1] / pair[0].max(0.1),
    });
    Ok(costs.collect())
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn number(runs: u64) -> f64 {
    runs as f64
}

pub(super) fn print_table(costs: &[Cost]) {
    println!("\nCPU time of one run, in the agent and as a plugin that the agent starts");
    println!("{:<8} {:>10} {:>10} {:>8}", "check", "native µs", "plugin µs", "ratio");
    for cost in costs {
        println!("{:<8} {:>10.0} {:>10.0} {:>7.0}×", cost.check, cost.native_us, cost.plugin_us, cost.ratio);
    }
}
