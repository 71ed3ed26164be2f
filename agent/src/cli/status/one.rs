//! Everything about a service.

use std::{collections::BTreeMap, fmt::Write as _};

use dogwatch_checks::perfdata;
use jiff::Timestamp;

use super::{confirmed, distance, layout::Layout};
use crate::api::ServiceStatus;

/// One block for each service. Services of the same check differ in their labels.
pub(super) fn render(
    services: &[ServiceStatus],
    labels: impl Fn(&ServiceStatus) -> BTreeMap<String, String>,
    now: Timestamp,
    layout: Layout,
) -> String {
    let blocks = services.iter().map(|service| block(service, &labels(service), now, layout));
    blocks.collect::<Vec<_>>().join("\n")
}

fn block(
    service: &ServiceStatus,
    labels: &BTreeMap<String, String>,
    now: Timestamp,
    layout: Layout,
) -> String {
    let mut text = format!("{}: {}", service.service, layout.painted(&service.state, &service.state));
    let confirmed = confirmed(service);
    if !confirmed.is_empty() {
        let _ = write!(text, " ({confirmed})");
    }
    if service.flapping {
        let _ = write!(text, ", flapping ({:.0} % of recent results differ)", service.flapping_percent);
    }
    text.push('\n');

    let mut row = |label: &str, lines: &[String]| {
        for (at, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
            let label = if at == 0 { label } else { "" };
            let _ = writeln!(text, "{:INDENT$}{label:<LABEL_WIDTH$}{line}", "");
        }
    };
    let wrapped = |text: &str| layout.wrapped(text, INDENT + LABEL_WIDTH);
    row("output", &wrapped(&service.output));
    // A table in the detail stays a table.
    row("detail", &service.detail.lines().map(str::to_owned).collect::<Vec<_>>());
    let parsed = perfdata::parse(&service.perfdata);
    let values = parsed.items.iter().map(ToString::to_string).chain(parsed.unparsable);
    row("perfdata", &values.collect::<Vec<_>>());
    if let Some(since) = service.since {
        row("since", &[format!("{since:.0} ({})", distance(now, since))]);
    }
    if let Some(last) = service.last_run {
        let took = service.duration_s.map(|seconds| format!(", took {seconds:.3} s")).unwrap_or_default();
        row("last run", &[format!("{} ago{took}", distance(now, last))]);
    }
    if let Some(next) = service.next_run {
        row("next run", &[format!("in {}", distance(next, now))]);
    }
    row("check", &[format!("{} (kind {}), from {}", service.check, service.kind, service.origin)]);
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    row("labels", &wrapped(&labels.join(", ")));
    text
}

const INDENT: usize = 2;
const LABEL_WIDTH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::testing::{NOW, at, service};

    #[test]
    fn everything_is_shown_and_what_is_missing_is_left_out() {
        let disk = ServiceStatus {
            detail: "one\n  two".into(),
            perfdata: "/var=97%;90;95;0;100 'a b'=1 nonsense".into(),
            flapping: true,
            flapping_percent: 41.6,
            ..service("disk", "/var", "CRITICAL", "97 % full (limit 95 %), 1.2 GiB free, full in 25 minutes")
        };
        let pending =
            ServiceStatus { since: None, last_run: None, next_run: None, ..service("x", "", "PENDING", "") };
        let labels = |service: &ServiceStatus| {
            let team = ("team".to_owned(), "storage".to_owned());
            BTreeMap::from_iter((service.check == "disk").then_some(team))
        };
        let expected = "\
disk /var: CRITICAL (hard 3/3), flapping (42 % of recent results differ)
  output    97 % full (limit 95 %), 1.2 GiB
            free, full in 25 minutes
  detail    one
              two
  perfdata  /var=97%;90;95;0;100
            'a b'=1
            nonsense
  since     1970-01-11T12:45:39Z (1d1h)
  last run  12s ago, took 0.100 s
  next run  in 48s
  check     disk (kind plugin), from auto
  labels    team=\"storage\"

x: PENDING
  check     x (kind plugin), from auto
";
        let layout = Layout { width: Some(48), colour: false };
        assert_eq!(render(&[disk, pending], labels, at(NOW), layout), expected);
    }
}
