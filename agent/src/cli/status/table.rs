//! All services: a summary line, warnings, and a table. Problems come first, the things of a check
//! together.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    fmt::Write as _,
};

use dogwatch_checks::State;
use jiff::Timestamp;

use super::{
    confirmed, distance,
    layout::{Layout, cut},
};
use crate::api::{ServiceStatus, Status};

pub(super) fn render(status: &Status, now: Timestamp, layout: Layout) -> String {
    let mut text = String::new();
    for line in layout.wrapped(&summary(status), 0) {
        let _ = writeln!(text, "{line}");
    }
    for warning in &status.warnings {
        for (at, line) in layout.wrapped(warning, LABEL.len()).iter().enumerate() {
            let label = if at == 0 { layout.painted(LABEL, "WARNING") } else { " ".repeat(LABEL.len()) };
            let _ = writeln!(text, "{label}{line}");
        }
    }
    if !status.services.is_empty() {
        text.push('\n');
        table(&mut text, &sorted(&status.services), now, layout);
    }
    text
}

const LABEL: &str = "WARNING: ";

/// `web1: 1 CRITICAL, 2 WARNING, 31 OK; agent 0.1.0, alertd reached`
fn summary(status: &Status) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for service in &status.services {
        *counts.entry(service.state.as_str()).or_default() += 1;
    }
    let counts: Vec<_> = ["CRITICAL", "UNKNOWN", "WARNING", "PENDING", "OK"]
        .iter()
        .filter_map(|state| Some(format!("{} {state}", counts.get(state)?)))
        .collect();
    let counts = if counts.is_empty() { "no services".to_owned() } else { counts.join(", ") };
    let alertd = match (status.spool.alertd_failures, status.spool.events) {
        (0, _) => "alertd reached".to_owned(),
        (_, 1) => "cannot reach alertd, 1 event queued".to_owned(),
        (_, events) => format!("cannot reach alertd, {events} events queued"),
    };
    format!("{}: {counts}; agent {}, {alertd}", status.host, status.version)
}

/// What is not OK first, by the worst state of its check; within a check, worst first.
fn sorted(services: &[ServiceStatus]) -> Vec<&ServiceStatus> {
    let mut worst: BTreeMap<&str, u8> = BTreeMap::new();
    for service in services {
        let worst = worst.entry(&service.check).or_default();
        *worst = (*worst).max(severity(service));
    }
    let key = |service: &ServiceStatus| {
        let own = severity(service);
        let block = if own == 0 { 0 } else { worst.get(service.check.as_str()).copied().unwrap_or(own) };
        Reverse(block)
    };
    let mut sorted: Vec<_> = services.iter().collect();
    sorted.sort_by(|a, b| {
        let by_block = key(a).cmp(&key(b)).then_with(|| a.check.cmp(&b.check));
        by_block.then_with(|| severity(b).cmp(&severity(a))).then_with(|| natural(&a.service, &b.service))
    });
    sorted
}

/// `disk9` before `disk10`.
fn natural(a: &str, b: &str) -> Ordering {
    let key = |text: &str| {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        (text[..digits].to_owned(), text[digits..].parse::<u64>().ok(), text.to_owned())
    };
    key(a).cmp(&key(b))
}

/// 0 is OK, 1 is a service without a result.
fn severity(service: &ServiceStatus) -> u8 {
    match service.state.parse::<State>() {
        Ok(State::Ok) => 0,
        Ok(state) => 1 + state.severity(),
        Err(_) => 1,
    }
}

const HEAD: [&str; COLUMNS] = ["SERVICE", "STATE", "TYPE", "SINCE", "LAST", "NEXT"];
const COLUMNS: usize = 6;
const OUTPUT: &str = "OUTPUT";

fn cells(service: &ServiceStatus, now: Timestamp) -> [String; COLUMNS] {
    let mut state = service.state.clone();
    if service.flapping {
        state.push_str(" flapping");
    }
    [
        service.service.clone(),
        state,
        confirmed(service),
        service.since.map_or_else(|| "-".to_owned(), |at| distance(now, at)),
        service.last_run.map_or_else(|| "-".to_owned(), |at| format!("{} ago", distance(now, at))),
        service.next_run.map_or_else(|| "-".to_owned(), |at| format!("in {}", distance(at, now))),
    ]
}

/// Columns are as wide as their content. If too little is left for the output, the columns for the
/// last and next run are left out, and then the output goes below.
fn table(text: &mut String, services: &[&ServiceStatus], now: Timestamp, layout: Layout) {
    let rows: Vec<_> = services.iter().map(|service| cells(service, now)).collect();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let widest = cells.max().unwrap_or_default();
        // A column without content, such as TYPE if all is well, has no head.
        if widest == 0 { 0 } else { widest.max(HEAD[column].len()) }
    });
    let up_to =
        |columns: usize| widths[..columns].iter().filter(|width| **width > 0).map(|width| width + 2).sum();
    let fits = |columns: &usize| layout.width.is_none_or(|width| up_to(*columns) + OUTPUT_WIDTH_MIN <= width);
    let columns = [COLUMNS, SHORT].into_iter().find(fits);
    let shown = columns.unwrap_or(SHORT);
    let below = columns.is_none();
    let indent = if below { INDENT } else { up_to(shown) };

    let mut line = |cells: &[String], state: &str, output: &[String]| {
        let mut row = String::new();
        for (column, cell) in cells[..shown].iter().enumerate().filter(|(column, _)| widths[*column] > 0) {
            let padding = " ".repeat(widths[column] + 2 - cell.chars().count().min(widths[column]));
            let cell = if column == STATE { layout.painted(cell, state) } else { cell.clone() };
            row.push_str(&cell);
            row.push_str(&padding);
        }
        let mut output = output.iter();
        if !below {
            row.push_str(output.next().map_or("", String::as_str));
        }
        let _ = writeln!(text, "{}", row.trim_end());
        for more in output.filter(|more| !more.is_empty()) {
            let _ = writeln!(text, "{}{more}", " ".repeat(indent));
        }
    };
    let head = if below { String::new() } else { OUTPUT.to_owned() };
    line(&HEAD.map(str::to_owned), "", &[head]);
    for (service, cells) in services.iter().zip(&rows) {
        let output = match layout.width {
            Some(width) if severity(service) == 0 => {
                vec![cut(&service.output, width.saturating_sub(indent))]
            }
            _ => layout.wrapped(&service.output, indent),
        };
        line(cells, &service.state, &output);
    }
}

/// Without the last and next run.
const SHORT: usize = 4;
const STATE: usize = 1;
const OUTPUT_WIDTH_MIN: usize = 30;
const INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::SpoolStatus,
        cli::status::testing::{NOW, at, service},
    };

    const PIPE: Layout = Layout { width: None, colour: false };

    fn status(services: Vec<ServiceStatus>) -> Status {
        Status {
            version: "0.1.0".into(),
            host: "web1".into(),
            agent: "a".into(),
            started_at: Timestamp::UNIX_EPOCH,
            warnings: Vec::new(),
            services,
            blind: Vec::new(),
            spool: SpoolStatus::default(),
        }
    }

    fn shown(status: &Status, layout: Layout) -> String {
        render(status, at(NOW), layout)
    }

    fn example() -> Status {
        let soft = |service| ServiceStatus { state_type: "SOFT".into(), attempt: 1, ..service };
        let pending = ServiceStatus {
            since: None,
            last_run: None,
            next_run: None,
            ..service("backup", "", "PENDING", "")
        };
        let full = "97 % full (limit 95 %), 1.2 GiB free; grows by 3 GiB per hour, full in 25 minutes";
        status(vec![
            service("load", "", "OK", "0.1 per core over 5 minutes, 0.2 over 1 minute, 0.05 over 15"),
            service("disk", "/", "OK", "40 % full"),
            pending,
            soft(service("swap", "", "WARNING", "4 % free")),
            service("web", "", "UNKNOWN", "timed out"),
            service("disk", "/srv", "WARNING", "91 % full"),
            service("disk", "/var", "CRITICAL", full),
        ])
    }

    #[test]
    fn problems_come_first_and_the_things_of_a_check_together() {
        let mut status = example();
        status.warnings.push("cannot report to alertd; 2 events queued".into());
        (status.spool.alertd_failures, status.spool.events) = (3, 2);
        let expected = "\
web1: 1 CRITICAL, 1 UNKNOWN, 2 WARNING, 1 PENDING, 2 OK; agent 0.1.0, cannot reach alertd, 2 events queued
WARNING: cannot report to alertd; 2 events queued

SERVICE    STATE     TYPE      SINCE  LAST     NEXT    OUTPUT
disk /var  CRITICAL  hard 3/3  1d1h   12s ago  in 48s  97 % full (limit 95 %), 1.2 GiB free; grows by 3 GiB per hour, full in 25 minutes
disk /srv  WARNING   hard 3/3  1d1h   12s ago  in 48s  91 % full
web        UNKNOWN   hard 3/3  1d1h   12s ago  in 48s  timed out
swap       WARNING   soft 1/3  1d1h   12s ago  in 48s  4 % free
backup     PENDING             -      -        -
disk /     OK                  1d1h   12s ago  in 48s  40 % full
load       OK                  1d1h   12s ago  in 48s  0.1 per core over 5 minutes, 0.2 over 1 minute, 0.05 over 15
";
        assert_eq!(shown(&status, PIPE), expected);
    }

    #[test]
    fn eighty_columns_are_enough() {
        let expected = "\
web1: 1 CRITICAL, 1 UNKNOWN, 2 WARNING, 1 PENDING, 2 OK; agent 0.1.0, alertd
reached

SERVICE    STATE     TYPE      SINCE  OUTPUT
disk /var  CRITICAL  hard 3/3  1d1h   97 % full (limit 95 %), 1.2 GiB free;
                                      grows by 3 GiB per hour, full in 25
                                      minutes
disk /srv  WARNING   hard 3/3  1d1h   91 % full
web        UNKNOWN   hard 3/3  1d1h   timed out
swap       WARNING   soft 1/3  1d1h   4 % free
backup     PENDING             -
disk /     OK                  1d1h   40 % full
load       OK                  1d1h   0.1 per core over 5 minutes, 0.2 over 1…
";
        assert_eq!(shown(&example(), Layout { width: Some(80), colour: false }), expected);
    }

    #[test]
    fn long_names_put_the_output_below() {
        let name = "getty-with-a-very-long-name-indeed@tty1.service";
        let status = status(vec![service("systemd", name, "CRITICAL", "failed with exit code 1")]);
        let expected = format!(
            "web1: 1 CRITICAL; agent 0.1.0, alertd reached\n\n\
             SERVICE{}  STATE     TYPE      SINCE\nsystemd {name}  CRITICAL  hard 3/3  1d1h\n    failed with exit code 1\n",
            " ".repeat("systemd ".len() + name.len() - "SERVICE".len())
        );
        assert_eq!(shown(&status, Layout { width: Some(80), colour: false }), expected);
    }

    #[test]
    fn if_all_is_well_there_is_no_type() {
        let status = status(vec![service("load", "", "OK", "0.1")]);
        let expected = "web1: 1 OK; agent 0.1.0, alertd reached\n\n\
                        SERVICE  STATE  SINCE  LAST     NEXT    OUTPUT\n\
                        load     OK     1d1h   12s ago  in 48s  0.1\n";
        assert_eq!(shown(&status, PIPE), expected);
    }

    #[test]
    fn colour_changes_no_column() {
        let coloured = shown(&example(), Layout { width: Some(80), colour: true });
        assert!(coloured.contains("disk /var  \x1b[1;31mCRITICAL\x1b[0m  hard 3/3"), "{coloured}");
        let plain = shown(&example(), Layout { width: Some(80), colour: false });
        assert_eq!(dogwatch_checks::output::clean(&coloured), plain);
    }

    #[test]
    fn numbers_are_sorted_as_numbers() {
        let mut names = ["sda10", "sda9", "sda", "sdb1"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["sda", "sda9", "sda10", "sdb1"]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            names in proptest::collection::vec("[a-z]{1,20}", 1..5),
            output in "[a-z ]{0,200}",
            warning in "[a-z ]{0,200}",
            width in 60_usize..200,
        ) {
            let states = ["OK", "CRITICAL", "PENDING"].iter().cycle();
            let services = names.iter().zip(states).map(|(name, state)| service(name, "", state, &output));
            let mut status = status(services.collect());
            status.warnings.push(warning);
            let text = shown(&status, Layout { width: Some(width), colour: false });
            for line in text.lines() {
                prop_assert!(line.chars().count() <= width, "{line:?}");
            }
        }
    }
}
