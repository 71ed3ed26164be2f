//! `dogwatch status`: all services, problems first; `dogwatch status SERVICE`: everything about
//! one.
//!
//! On a terminal, lines fit its width and states have colours, unless `NO_COLOR` is set. A program
//! that reads the output gets each service on one line, with nothing cut.

mod layout;
mod one;
mod table;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use dogwatch_checks::{Host, Pattern};
use dogwatch_daemon::{config::closest, duration::Span};
use jiff::Timestamp;

use super::{SocketArgument, fail, print};
use crate::{
    api::{ServiceStatus, Status},
    clock, config,
};
use layout::Layout;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show everything about this service, or about all services of this check. `*` matches any
    /// text
    service: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let client = match arguments.socket.client() {
        Ok(client) => client,
        Err(message) => return fail(&message),
    };
    let mut status = match client.get::<Status>("/v1/status").await {
        Ok(status) => status,
        Err(error) => return fail(&format!("{error}; is the agent running (systemctl status dogwatch)?")),
    };
    if let Some(wanted) = &arguments.service {
        match select(&status.services, wanted) {
            Ok(selected) => status.services = selected,
            Err(message) => return fail(&message),
        }
    }
    if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(json) => {
                print(format_args!("{json}\n"));
            }
            Err(error) => return fail(&error.to_string()),
        }
    } else if arguments.service.is_some() {
        let labels = |service: &ServiceStatus| labels(&arguments.socket, service);
        print(one::render(&status.services, labels, clock::wall(), Layout::of_stdout()));
    } else {
        print(table::render(&status, clock::wall(), Layout::of_stdout()));
    }
    ExitCode::SUCCESS
}

/// The services with this name, or of the check with this name, or that match the pattern.
fn select(services: &[ServiceStatus], wanted: &str) -> Result<Vec<ServiceStatus>, String> {
    let pattern = Pattern::new(wanted);
    let by_name = |service: &&ServiceStatus| pattern.matches(&service.service);
    let by_check = |service: &&ServiceStatus| service.check == wanted;
    let mut selected: Vec<_> = services.iter().filter(by_name).cloned().collect();
    if selected.is_empty() {
        selected = services.iter().filter(by_check).cloned().collect();
    }
    if !selected.is_empty() {
        return Ok(selected);
    }
    let names = services.iter().map(|service| service.service.as_str());
    Err(match closest(wanted, names) {
        Some(meant) => format!("no service {wanted:?}; did you mean {meant:?}?"),
        None => format!("no service {wanted:?}; `dogwatch status` lists all services"),
    })
}

/// The labels in the config; none if this user may not read it.
fn labels(socket: &SocketArgument, service: &ServiceStatus) -> BTreeMap<String, String> {
    let loaded = config::load(&socket.config.config, &Host::live()).ok();
    let check = loaded.as_ref().and_then(|loaded| loaded.checks.get(service.check.as_str()));
    let settings = check.and_then(|check| check.settings(service.thing.as_deref()));
    settings.map(|settings| settings.labels.clone()).unwrap_or_default()
}

/// `soft 1/3`, or `soft 40s of 10m` if a problem must last. Nothing for OK, which needs no
/// confirmation.
fn confirmed(service: &ServiceStatus) -> String {
    let kind = service.state_type.to_lowercase();
    let span = |seconds: f64| Span(Duration::from_secs_f64(seconds.clamp(0.0, 1e9).floor()));
    match (service.state.as_str(), service.must_last_s) {
        ("OK" | "PENDING", _) => String::new(),
        (_, Some(must)) if kind == "soft" && must > 0.0 => {
            format!("soft {} of {}", span(service.lasted_s.unwrap_or_default()), span(must))
        }
        // After a restart nothing is known of a problem that must last, until its next result.
        (_, None) if service.attempt <= service.max_attempts => {
            format!("{kind} {}/{}", service.attempt, service.max_attempts)
        }
        _ => kind,
    }
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

#[cfg(test)]
mod testing {
    use super::*;

    pub(super) const NOW: i64 = 1_000_000;

    pub(super) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(super) fn service(check: &str, thing: &str, state: &str, output: &str) -> ServiceStatus {
        ServiceStatus {
            service: format!("{check} {thing}").trim_end().into(),
            check: check.into(),
            thing: (!thing.is_empty()).then(|| thing.into()),
            kind: "plugin".into(),
            origin: "auto".into(),
            state: state.into(),
            state_type: "HARD".into(),
            attempt: 3,
            max_attempts: 3,
            must_last_s: None,
            lasted_s: None,
            flapping: false,
            flapping_percent: 0.0,
            since: Some(at(NOW - 90_061)),
            last_run: Some(at(NOW - 12)),
            next_run: Some(at(NOW + 48)),
            duration_s: Some(0.1),
            output: output.into(),
            detail: String::new(),
            perfdata: String::new(),
        }
    }

    #[test]
    fn a_soft_problem_says_what_makes_it_hard() {
        let said = |state: &str, kind: &str, attempt, must_last_s, lasted_s| {
            let service = service("load", "", state, "");
            confirmed(&ServiceStatus { state_type: kind.into(), attempt, must_last_s, lasted_s, ..service })
        };
        assert_eq!(said("WARNING", "SOFT", 2, None, None), "soft 2/3");
        assert_eq!(said("WARNING", "SOFT", 158, Some(600.0), Some(40.7)), "soft 40s of 10m");
        assert_eq!(said("WARNING", "HARD", 3, Some(600.0), Some(700.0)), "hard");
        assert_eq!(said("CRITICAL", "HARD", 3, Some(0.0), Some(0.0)), "hard");
        assert_eq!(said("WARNING", "SOFT", 158, None, None), "soft", "after a restart");
        assert_eq!(said("OK", "HARD", 3, Some(600.0), None), "");
    }

    #[test]
    fn a_service_is_found_by_its_name_its_check_or_a_pattern() {
        let services = [
            service("disk", "/", "OK", ""),
            service("disk", "/var", "OK", ""),
            service("diskstats", "", "OK", ""),
        ];
        let found = |wanted: &str| {
            select(&services, wanted)
                .map(|found| found.into_iter().map(|one| one.service).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(found("disk /"), Ok("disk /".into()));
        assert_eq!(found("disk"), Ok("disk /, disk /var".into()));
        assert_eq!(found("disk*"), Ok("disk /, disk /var, diskstats".into()));
        assert_eq!(found("disk /vra"), Err("no service \"disk /vra\"; did you mean \"disk /var\"?".into()));
        assert_eq!(found("x"), Err("no service \"x\"; `dogwatch status` lists all services".into()));
    }
}
