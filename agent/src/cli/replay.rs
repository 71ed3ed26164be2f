//! `dogwatch replay SERVICE --warn 90%`: what other limits would have announced, from the history
//! on this host.

use std::{fmt::Write as _, process::ExitCode};

use dogwatch_checks::{
    space,
    threshold::{Range, Thresholds},
};
use dogwatch_daemon::duration::Span;
use jiff::tz::TimeZone;

use super::{ConfigArgument, fail, graph, print};
use crate::{
    history::layout::Entry,
    plot,
    replay::{self, Problem},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Service, for example "disk /var"
    service: String,
    /// Value to judge, if the service has several
    label: Option<String>,
    /// WARNING range of the recorded value ("90", "10:", "@5:7"), or space ("90% used", "10% free",
    /// "5GiB free"). A percentage alone is of the greatest possible value: 90% is 90% used
    #[arg(long, value_name = "RANGE")]
    warn: Option<String>,
    /// CRITICAL range
    #[arg(long, value_name = "RANGE")]
    crit: Option<String>,
    /// How long a problem must last to be announced
    #[arg(long = "for", value_name = "DURATION", default_value = "0s")]
    lasting: Span,
    /// How far back, up to 400d
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    since: Span,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match replayed(arguments) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(message) => fail(&message),
    }
}

fn replayed(arguments: &Arguments) -> Result<String, String> {
    if arguments.warn.is_none() && arguments.crit.is_none() {
        return Err("give a limit to try: --warn RANGE, --crit RANGE, or both".to_owned());
    }
    let (from, to) = graph::period(arguments.since)?;
    let reader = graph::open(&arguments.config)?;
    let entry = match graph::choose(&reader, &arguments.service, arguments.label.as_deref())?[..] {
        [entry] => entry,
        ref several => {
            let labels: Vec<_> = several.iter().map(|entry| entry.key.label.as_str()).collect();
            return Err(format!(
                "{} has several values; name one of {}",
                arguments.service,
                labels.join(", ")
            ));
        }
    };
    let limit = |text: &Option<String>| text.as_deref().map(|text| range(text, entry)).transpose();
    let limits = Thresholds { warn: limit(&arguments.warn)?, crit: limit(&arguments.crit)? };
    let points = reader.points(&entry.key, from, to);
    let Some((first, last)) = points.first().zip(points.last()) else {
        return Err(format!("no values of {} in the last {}", arguments.service, arguments.since));
    };
    let problems = replay::replay(&points, limits, arguments.lasting.0);
    let known = Span::secs((last.at + last.step - first.at).max(0).unsigned_abs());
    let now = last.at + last.step;
    if arguments.json {
        let rows: Vec<_> = problems
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "state": problem.state.name(), "from": problem.from, "until": problem.until,
                    "duration_s": problem.duration(now).as_secs(), "peak": problem.peak,
                })
            })
            .collect();
        let step = first.step;
        return Ok(format!("{}\n", serde_json::json!({"problems": rows, "resolution_s": step})));
    }
    let text = render(&problems, entry, now, known, first.step);
    Ok(format!("{text}{}", meant(arguments, limits, entry)))
}

/// A range in the unit of the series, or a limit of space as in the config. `90%` of a value that
/// is not a percentage is 90 % of its greatest possible value.
fn range(text: &str, entry: &Entry) -> Result<Range, String> {
    let is_space = ["used", "free", "iB", "B"].iter().any(|end| text.trim_end().ends_with(end));
    if let (true, Some(max)) = (is_space, entry.max) {
        return space::used_range(text, max);
    }
    let number = text.replace('%', "");
    let range: Range = number.parse().map_err(|error| {
        let space = if entry.max.is_some() { ", or space like \"90% used\" or \"5GiB free\"" } else { "" };
        format!("{error}{space}")
    })?;
    if !text.contains('%') || entry.unit == "%" {
        return Ok(range);
    }
    match entry.max {
        Some(max) => Ok(range.scaled(max / 100.0)),
        None => Err(format!("{} has no greatest value, so {text:?} of it means nothing", entry.key.service)),
    }
}

/// What was judged: the recorded value is not always what the limits in the config are about.
fn meant(arguments: &Arguments, limits: Thresholds, entry: &Entry) -> String {
    let told = [("warn", &arguments.warn, limits.warn), ("crit", &arguments.crit, limits.crit)];
    let one = |(name, text, range): (&str, &Option<String>, Option<Range>)| {
        let (text, range) = (text.as_deref()?, range?);
        let means = match range.to_string().parse() {
            Ok(end) => format!("above {}", plot::value(end, &entry.unit)),
            Err(_) => format!("by the range {range}"),
        };
        Some(format!("--{name} {text:?} was judged as {} {means}", entry.key.label))
    };
    let told: Vec<_> = told.into_iter().filter_map(one).collect();
    if told.is_empty() { String::new() } else { format!("({})\n", told.join("; ")) }
}

fn render(problems: &[Problem], entry: &Entry, now: i64, known: Span, step: i64) -> String {
    let zone = TimeZone::system();
    let count = |short: u64| problems.iter().filter(|p| p.duration(now).as_secs() <= short).count();
    let resolution = step.unsigned_abs();
    let mut text = match problems.len() {
        0 => format!("no problem in {known} of values\n"),
        1 => format!("1 problem in {known} of values"),
        n => format!("{n} problems in {known} of values"),
    };
    if !problems.is_empty() {
        let short = resolution.max(300);
        let _ = writeln!(text, ", {} of at most {}", count(short), Span::secs(short));
    }
    for problem in problems {
        let end = if problem.until.is_some() { "" } else { ", still" };
        let _ = writeln!(
            text,
            "  {}  {:<8}  for {}{end}, up to {}",
            plot::clock(problem.from, 2 * 86_400, &zone),
            problem.state.name(),
            Span::secs(problem.duration(now).as_secs()),
            plot::value(f64::from(problem.peak), &entry.unit),
        );
    }
    let _ = writeln!(text, "(one value every {}; shorter problems look that long)", Span::secs(resolution));
    text
}
