//! `health`: a table for people, exit codes as of a Nagios plugin. Showing is pure.

use std::fmt::Write;

use dogwatch_alertd_core::rules::text::line;
use dogwatch_wire::{State, ctl::Health};

use super::{
    Alertd, Answer, Exit, Failure,
    paint::{Colour, Table},
    show::{TEXT_CHARS_MAX, View},
};

pub(super) async fn ask(alertd: &Alertd<'_>, view: &View) -> Result<Answer, Failure> {
    let mut state = State::Critical;
    let shown = |health: &Health| {
        state = health.state;
        show(health, view)
    };
    match alertd.get("/v1/health", shown).await {
        Ok(answer) => Ok(Answer { exit: Exit::Health(state), ..answer }),
        // Whoever cannot be asked is not well.
        Err(failure) => Err(Failure {
            words: format!("CRITICAL: {}", failure.words),
            exit: Exit::Health(State::Critical),
        }),
    }
}

/// First what is wrong, in one line as plugins say it; then each check.
fn show(health: &Health, view: &View) -> String {
    let wrong = health.checks.iter().filter(|check| check.state != State::Ok);
    let wrong: Vec<_> = wrong.map(|check| line(&check.text, TEXT_CHARS_MAX)).collect();
    let summary = if wrong.is_empty() { "alertd is well".into() } else { wrong.join("; ") };
    let mut out = String::new();
    let state = view.paint.text(health.state.name(), Colour::of(health.state));
    let _ = writeln!(out, "{state}: {}\n", line(&summary, 4 * TEXT_CHARS_MAX));
    let mut table = Table::with_head(&["STATE", "WHAT", ""]);
    for check in &health.checks {
        let stops = if check.stops_ping { " [no ping to the dead-man]" } else { "" };
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
                check("store", State::Ok, "everything decided is on the disk", false),
                check("receivers", State::Critical, "pager fails: 503\u{1b}[2J\nx", false),
                check("auditor", State::Critical, "a timer is overdue", true),
            ],
        };
        let view = View { now: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC, paint: Paint::Plain };
        let expected = "CRITICAL: pager fails: 503[2J x; a timer is overdue\n\n  \
                        STATE     WHAT\n  \
                        OK        store      everything decided is on the disk\n  \
                        CRITICAL  receivers  pager fails: 503[2J x\n  \
                        CRITICAL  auditor    a timer is overdue [no ping to the dead-man]\n";
        assert_eq!(show(&health, &view), expected);
    }

    #[test]
    fn the_exit_codes_are_a_plugins() {
        let code = |state| Exit::Health(state).code();
        assert_eq!([State::Ok, State::Warning, State::Critical].map(code), [0, 1, 2]);
    }
}
