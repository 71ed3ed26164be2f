//! `dogwatch graph SERVICE`: the values of a service over time, from the history on this host.

use std::{io, path::PathBuf, process::ExitCode};

use dogwatch_checks::Host;
use dogwatch_daemon::{config::closest, duration::Span};
use jiff::tz::TimeZone;

use super::{ConfigArgument, complain, fail, print};
use crate::{
    clock, config,
    history::{
        Point,
        file::Reader,
        layout::{self, Entry},
    },
    plot::{self, Plot},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Service, for example "disk /var". Without it: list all series
    service: Option<String>,
    /// Value to draw, if the service has several [default: all]
    label: Option<String>,
    /// How far back, up to 400d
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    since: Span,
    /// Write an SVG file instead
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the points as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (from, to) = match period(arguments.since) {
        Ok(period) => period,
        Err(message) => return fail(&message),
    };
    let reader = match open(&arguments.config) {
        Ok(reader) => reader,
        Err(message) => return fail(&message),
    };
    let Some(service) = &arguments.service else { return list(&reader, arguments.json) };
    let chosen = match choose(&reader, service, arguments.label.as_deref()) {
        Ok(chosen) => chosen,
        Err(message) => return fail(&message),
    };
    let series: Vec<_> = chosen.iter().map(|entry| (*entry, reader.points(&entry.key, from, to))).collect();
    if arguments.json {
        print(format_args!("{}\n", json(&series)));
        return ExitCode::SUCCESS;
    }
    let zone = TimeZone::system();
    let titles: Vec<_> = series.iter().map(|(entry, points)| title(entry, points)).collect();
    let plots = series.iter().zip(&titles).map(|((entry, points), title)| Plot {
        title,
        unit: &entry.unit,
        points,
        from,
        to,
    });
    let Some(path) = &arguments.svg else {
        for plot in plots {
            print(format_args!("{}\n", plot.braille(columns(), 8, &zone)));
        }
        return ExitCode::SUCCESS;
    };
    if series.len() > 1 {
        let labels: Vec<_> = series.iter().map(|(entry, _)| entry.key.label.as_str()).collect();
        return fail(&format!("an SVG has one value; name one of {}", labels.join(", ")));
    }
    for plot in plots {
        if let Err(error) = std::fs::write(path, plot.svg(&zone)) {
            return fail(&format!("cannot write {}: {error}", path.display()));
        }
    }
    ExitCode::SUCCESS
}

/// The last `since`, in seconds since 1970; no more than the history keeps.
pub(super) fn period(since: Span) -> Result<(i64, i64), String> {
    let kept = Span::secs(layout::LONG.span().unsigned_abs());
    if since.0.as_secs() < layout::FINE.step.unsigned_abs() {
        return Err(format!("--since {since} is too short; the history has one value every minute"));
    }
    if since > kept {
        complain(format_args!("dogwatch: the history goes back {kept}; --since {since} shows no more\n"));
    }
    let to = clock::wall().as_second();
    Ok((to - i64::try_from(since.min(kept).0.as_secs()).unwrap_or(0), to))
}

/// Opens the history of the configured agent.
pub(super) fn open(argument: &ConfigArgument) -> Result<Reader, String> {
    let config = config::load(&argument.config, &Host::live())
        .map_err(|problems| format!("invalid config:\n{problems}"))?;
    let dir = &config.agent.state_dir;
    Reader::open(dir).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound if config.agent.history => "; it appears when the agent runs",
            io::ErrorKind::NotFound => "; the config says history = false",
            io::ErrorKind::PermissionDenied => "; run this as root or as a member of the group dogwatch",
            _ => "",
        };
        format!("cannot read the history in {}: {error}{hint}", dir.display())
    })
}

/// The series of a service.
pub(super) fn choose<'a>(
    reader: &'a Reader,
    service: &str,
    label: Option<&str>,
) -> Result<Vec<&'a Entry>, String> {
    let all = reader.series();
    let of_service: Vec<&Entry> = all.iter().copied().filter(|entry| entry.key.service == service).collect();
    if of_service.is_empty() {
        let hint = closest(service, all.iter().map(|entry| entry.key.service.as_str()));
        let hint = hint.map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
        return Err(format!("no values of service {service:?}{hint}; `dogwatch graph` lists all"));
    }
    let Some(label) = label else { return Ok(of_service) };
    let chosen: Vec<_> = of_service.iter().copied().filter(|entry| entry.key.label == label).collect();
    if chosen.is_empty() {
        let known: Vec<_> = of_service.iter().map(|entry| entry.key.label.as_str()).collect();
        return Err(format!("{service} has no value {label:?}; it has {}", known.join(", ")));
    }
    Ok(chosen)
}

fn title(entry: &Entry, points: &[Point]) -> String {
    let name = if entry.key.service.ends_with(&entry.key.label) {
        entry.key.service.clone()
    } else {
        format!("{}, {}", entry.key.service, entry.key.label)
    };
    let Some(last) = points.last() else { return name };
    let low = points.iter().map(|point| point.min).fold(f32::INFINITY, f32::min);
    let high = points.iter().map(|point| point.max).fold(f32::NEG_INFINITY, f32::max);
    let said = |number: f32| plot::value(f64::from(number), &entry.unit);
    let of = entry.max.map(|max| format!(" of {}", plot::value(max, &entry.unit))).unwrap_or_default();
    format!("{name}: now {}{of}, {} to {}", said(last.avg), said(low), said(high))
}

fn list(reader: &Reader, as_json: bool) -> ExitCode {
    let all = reader.series();
    if as_json {
        let rows: Vec<_> = all
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "service": entry.key.service, "label": entry.key.label, "unit": entry.unit,
                    "since": entry.since,
                })
            })
            .collect();
        print(format_args!("{}\n", serde_json::Value::from(rows)));
        return ExitCode::SUCCESS;
    }
    let widest = all.iter().map(|entry| entry.key.service.chars().count()).max().unwrap_or(0).max(7);
    print(format_args!("{:<widest$}  VALUE\n", "SERVICE"));
    for entry in all {
        print(format_args!("{:<widest$}  {}\n", entry.key.service, entry.key.label));
    }
    ExitCode::SUCCESS
}

fn json(series: &[(&Entry, Vec<Point>)]) -> serde_json::Value {
    let series = series.iter().map(|(entry, points)| {
        let points: Vec<_> = points
            .iter()
            .map(|point| serde_json::json!([point.at, point.step, point.min, point.avg, point.max]))
            .collect();
        serde_json::json!({
            "service": entry.key.service, "label": entry.key.label, "unit": entry.unit,
            "columns": ["at", "step_s", "min", "avg", "max"], "points": points,
        })
    });
    series.collect()
}

/// Width of the terminal; 80 if there is none.
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| usize::from(size.ws_col)).clamp(40, 200)
}
