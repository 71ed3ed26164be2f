//! Both runs as a table, as curves and as one line of scores each.

use std::fmt::{self, Write as _};

use super::{Plan, Run};
use crate::plot::{self, Panel, Series, draw};

/// For people.
pub struct Report<'a>(pub Plan, pub &'a [&'a Run]);

const PLOT_SECONDS: usize = 120;
const PLOT_ROWS: u32 = 10;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plan, runs) = self;
        let Some(capacity) = runs.first().map(|run| run.capacity) else { return Ok(()) };
        writeln!(
            f,
            "{} hosts × {} names, {} queries/s each, TTL {}–{} s; upstream silent for {} min, then back with room for {capacity:.0} queries/s",
            plan.hosts,
            plan.names,
            plan.queries_per_second,
            plan.ttl_s.0,
            plan.ttl_s.1,
            plan.outage.as_secs() / 60
        )?;
        writeln!(f, "\nqueries a second at the upstream, by second since its return (lost; longest queue):")?;
        write!(f, "{:>9}", "second")?;
        for run in *runs {
            write!(f, " {:>30}", run.cache)?;
        }
        writeln!(f)?;
        for (from, to) in [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 5),
            (5, 10),
            (10, 20),
            (20, 30),
            (30, 60),
            (60, 120),
            (120, 300),
            (300, 600),
        ] {
            write!(f, "{:>9}", if to == from + 1 { from.to_string() } else { format!("{from}–{}", to - 1) })?;
            for run in *runs {
                let Some(heard) = run.heard.get(from..to) else { break };
                let mean = heard.iter().sum::<u32>() / u32::try_from(to - from).unwrap_or(1);
                let lost: u32 = run.lost[from..to].iter().sum();
                let queue = run.queue_ms[from..to].iter().max().copied().unwrap_or(0);
                write!(f, " {:>30}", format!("{mean} ({lost} lost; {queue} ms)"))?;
            }
            writeln!(f)?;
        }
        let top = runs.iter().map(|run| run.peak()).max().unwrap_or(1).max(1);
        for run in *runs {
            writeln!(f, "\n{}: queries/s, one column a second; ─ capacity, · normal", run.cache)?;
            f.write_str(&columns(run, top))?;
        }
        writeln!(f)?;
        let after =
            |seconds: Option<u64>| seconds.map_or("not within the run".into(), |s| format!("after {s} s"));
        for run in *runs {
            writeln!(
                f,
                "score {:<9} normal {:.0}/s  peak {}/s = {:.2}× capacity ({:.2}× normal)  {} s over capacity  lost {}  longest queue {} ms  hot names fresh: 90 % {}, 99 % {}",
                run.cache,
                run.normal,
                run.peak(),
                run.peak_of_capacity(),
                f64::from(run.peak()) / run.normal,
                run.seconds_over(),
                run.lost_total(),
                run.queue_ms_max(),
                after(run.hot_fresh_s[0]),
                after(run.hot_fresh_s[1]),
            )?;
        }
        Ok(())
    }
}

fn columns(run: &Run, top: u32) -> String {
    let mut text = String::new();
    for row in (1..=PLOT_ROWS).rev() {
        let (low, high) = (top * (row - 1) / PLOT_ROWS, top * row / PLOT_ROWS);
        let within = |level: f64| level > f64::from(low) && level <= f64::from(high);
        let ground = if within(run.capacity) {
            '─'
        } else if within(run.normal) {
            '·'
        } else {
            ' '
        };
        let _ = write!(text, "{high:>8} ");
        for &heard in run.heard.iter().take(PLOT_SECONDS) {
            text.push(if heard > low { '█' } else { ground });
        }
        text.push('\n');
    }
    text
}

/// The curves as a picture for a browser: what came back, and the same once more where ours can be
/// read.
pub fn svg(plan: Plan, runs: [&Run; 2]) -> String {
    let [naive, governed] = runs;
    let minutes = naive.heard.len().min(governed.heard.len());
    let minutes = f64::from(u32::try_from(minutes).unwrap_or(0)) / 60.0;
    let curve = |run: &Run| {
        let points = (0_u32..).zip(&run.heard);
        points.map(|(second, &heard)| ((f64::from(second) + 0.5) / 60.0, f64::from(heard))).collect()
    };
    let level = |value: f64| vec![(0.0, value), (minutes, value)];
    let lines = || {
        vec![
            Series { name: "naive refresh", colour: plot::PLAIN, points: curve(naive) },
            Series { name: "dogwatch", colour: plot::OURS, points: curve(governed) },
            Series { name: "capacity", colour: CAPACITY, points: level(naive.capacity) },
            Series { name: "normal", colour: NORMAL, points: level(naive.normal) },
        ]
    };
    let panels = [
        Panel {
            title: "queries a second at the upstream, since its return",
            unit: "",
            highest: rounded_up(f64::from(naive.peak().max(governed.peak()))),
            series: lines(),
        },
        Panel {
            title: "the same, up to what it can answer",
            unit: "",
            highest: rounded_up(naive.capacity),
            series: lines().split_off(1),
        },
    ];
    let title = format!(
        "{} hosts × {} names come back to an upstream with room for twice their normal load",
        plan.hosts, plan.names
    );
    draw(&title, minutes, &panels, &[])
}

const CAPACITY: &str = "#b0413e";
const NORMAL: &str = "#6f7f95";

/// To the next number that four lines divide well.
fn rounded_up(value: f64) -> f64 {
    let step = 10_f64.powf(value.max(1.0).log10().floor()) / 2.5;
    (value * 1.05 / step).ceil() * step
}
