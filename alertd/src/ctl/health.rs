//! `alertctl health`: a summary line and a table, with the exit codes of a Nagios plugin.

use std::fmt::Write;

use dogwatch_alertd_core::rules::text::line;
use dogwatch_wire::{State, ctl::Health};

use super::{
    Alertd, Answer, Exit, Failure,
    paint::{Colour, Table},
    paint::{TEXT_CHARS_MAX, View},
};

pub(super) async fn ask(alertd: &Alertd<'_>, view: &View) -> Result<Answer, Failure> {
    let mut state = State::Critical;
    let shown = |health: &Health| {
        state = health.state;
        show(health, view)
    };
    match alertd.get("/v1/health", shown).await {
        Ok(answer) => Ok(Answer { exit: Exit::Health(state), ..answer }),
        // If alertd does not answer, it is not working.
        Err(failure) => Err(Failure {
            words: format!("CRITICAL: {}", failure.words),
            exit: Exit::Health(State::Critical),
        }),
    }
}

/// The first line is a plugin's: the state and everything that is wrong. A table of all checks
/// follows.
fn show(health: &Health, view: &View) -> String {
    let wrong = health.checks.iter().filter(|check| check.state != State::Ok);
    let wrong: Vec<_> = wrong.map(|check| line(&check.text, TEXT_CHARS_MAX)).collect();
    let summary = if wrong.is_empty() { "alertd is working".into() } else { wrong.join("; ") };
    let mut out = String::new();
    let state = view.paint.text(health.state.name(), Colour::of(health.state));
    let _ = writeln!(out, "{state}: {}\n", line(&summary, 4 * TEXT_CHARS_MAX));
    let mut table = Table::with_head(&["STATE", "CHECK", "RESULT"]);
    for check in &health.checks {
        let stops = if check.stops_ping { " [no pings to the dead man's switch]" } else { "" };
        let cells = vec![
            (check.state.name().to_owned(), Colour::of(check.state)),
            (line(&check.name, 40), Colour::Bold),
            (line(&check.text, TEXT_CHARS_MAX) + stops, Colour::None),
        ];
        table.row(cells, String::new());
    }
    table.write(&mut out, view.paint);
    out
}

#[cfg(test)]
mod tests {
    use dogwatch_wire::ctl::HealthCheck;
    use jiff::{Timestamp, tz::TimeZone};

    use super::{super::paint::Paint, *};

    #[test]
    fn what_is_wrong_comes_first_in_one_line_and_nothing_said_moves_the_cursor() {
        let check = |name: &str, state, text: &str, stops_ping| HealthCheck {
            name: name.into(),
            state,
            text: text.into(),
            stops_ping,
        };
        let health = Health {
            version: "1".into(),
            at: Timestamp::UNIX_EPOCH,
            state: State::Critical,
            checks: vec![
                check("store", State::Ok, "all changes are on disk", false),
                check("receivers", State::Critical, "pager fails: 503\u{1b}[2J\nx", false),
                check("auditor", State::Critical, "a timer is overdue", true),
            ],
        };
        let view = View { now: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC, paint: Paint::Plain };
        let expected = "CRITICAL: pager fails: 503[2J x; a timer is overdue\n\n  \
                        STATE     CHECK      RESULT\n  \
                        OK        store      all changes are on disk\n  \
                        CRITICAL  receivers  pager fails: 503[2J x\n  \
                        CRITICAL  auditor    a timer is overdue [no pings to the dead man's switch]\n";
        assert_eq!(show(&health, &view), expected);
    }

    #[test]
    fn the_exit_codes_are_a_plugins() {
        let code = |state| Exit::Health(state).code();
        assert_eq!([State::Ok, State::Warning, State::Critical].map(code), [0, 1, 2]);
    }
}
