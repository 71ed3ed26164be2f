//! `dogwatch status`: the status of all services, worst first.

use std::{cmp::Reverse, fmt::Write as _, process::ExitCode};

use dogwatch_checks::State;
use dogwatch_daemon::duration::Span;
use jiff::Timestamp;

use super::{SocketArgument, fail, print};
use crate::{
    api::{ServiceStatus, Status},
    clock,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let status = match arguments.socket.client().get::<Status>("/v1/status").await {
        Ok(status) => status,
        Err(error) => return fail(&format!("{error}; is the agent running (systemctl status dogwatch)?")),
    };
    if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(json) => {
                print(format_args!("{json}\n"));
            }
            Err(error) => return fail(&error.to_string()),
        }
    } else {
        print(render(status, clock::wall()));
    }
    ExitCode::SUCCESS
}

/// The table. Columns are as wide as their content. The output is the last one, because it is the
/// longest.
fn render(mut status: Status, now: Timestamp) -> String {
    let mut text = String::new();
    for warning in &status.warnings {
        let _ = writeln!(text, "WARNING: {warning}");
    }
    status.services.sort_by_key(|service| (sort_key(service), service.service.clone()));
    let head = ["SERVICE", "STATE", "TYPE", "SINCE", "LAST", "NEXT", "OUTPUT"].map(str::to_owned);
    let rows: Vec<[String; 7]> =
        std::iter::once(head).chain(status.services.iter().map(|service| row(service, now))).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(service: &ServiceStatus, now: Timestamp) -> [String; 7] {
    let mut state = service.state.clone();
    if service.flapping {
        state.push_str(" flapping");
    }
    let attempt =
        format!("{} {}/{}", service.state_type.to_lowercase(), service.attempt, service.max_attempts);
    [
        service.service.clone(),
        state,
        attempt,
        service.since.map_or_else(|| "-".to_owned(), |at| distance(now, at)),
        service.last_run.map_or_else(|| "-".to_owned(), |at| format!("{} ago", distance(now, at))),
        service.next_run.map_or_else(|| "-".to_owned(), |at| format!("in {}", distance(at, now))),
        service.output.clone(),
    ]
}

/// In the two largest units.
fn distance(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = later.duration_since(earlier).as_secs().max(0).unsigned_abs();
    let rounded = match seconds {
        86_400.. => seconds - seconds % 3_600,
        3_600.. => seconds - seconds % 60,
        _ => seconds,
    };
    Span::secs(rounded).to_string()
}

/// Sorts problems by severity, then what is still pending, then what is OK.
fn sort_key(service: &ServiceStatus) -> Reverse<(u8, bool)> {
    match service.state.parse::<State>() {
        Ok(state) => Reverse((state.severity(), false)),
        Err(_) => Reverse((State::Ok.severity(), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SpoolStatus;

    #[test]
    fn the_worst_comes_first_and_every_column_is_aligned() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let service = |service: &str, state: &str, state_type: &str, output: &str| ServiceStatus {
            service: service.into(),
            check: service.into(),
            thing: None,
            kind: "plugin".into(),
            origin: "auto".into(),
            state: state.into(),
            state_type: state_type.into(),
            attempt: 2,
            max_attempts: 3,
            flapping: false,
            flapping_percent: 0.0,
            since: at(1_000_000 - 90_061),
            last_run: at(1_000_000 - 12),
            next_run: at(1_000_000 + 48),
            duration_s: Some(0.1),
            output: output.into(),
            detail: String::new(),
            perfdata: String::new(),
        };
        let pending = ServiceStatus {
            since: None,
            last_run: None,
            next_run: None,
            attempt: 1,
            ..service("backup", "PENDING", "HARD", "")
        };
        let status = Status {
            version: "0".into(),
            host: "web1".into(),
            agent: "a".into(),
            started_at: Timestamp::UNIX_EPOCH,
            warnings: vec!["cannot report to alertd; 2 events are waiting".into()],
            services: vec![
                service("load", "OK", "HARD", "load 0.1"),
                pending,
                service("swap", "WARNING", "HARD", "4% free"),
                service("web", "UNKNOWN", "HARD", "timed out"),
                service("disk", "CRITICAL", "SOFT", "/ is 97 % full"),
            ],
            blind: Vec::new(),
            spool: SpoolStatus::default(),
        };
        let expected = "\
WARNING: cannot report to alertd; 2 events are waiting
SERVICE  STATE     TYPE      SINCE  LAST     NEXT    OUTPUT
disk     CRITICAL  soft 2/3  1d1h   12s ago  in 48s  / is 97 % full
web      UNKNOWN   hard 2/3  1d1h   12s ago  in 48s  timed out
swap     WARNING   hard 2/3  1d1h   12s ago  in 48s  4% free
backup   PENDING   hard 1/3  -      -        -
load     OK        hard 2/3  1d1h   12s ago  in 48s  load 0.1
";
        assert_eq!(render(status, at(1_000_000).unwrap()), expected);
    }
}
