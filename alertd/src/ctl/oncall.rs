//! `alertctl oncall` and `alertctl override`.

use std::fmt::Write;

use dogwatch_alertd_core::{
    LOOK_AHEAD,
    rules::{
        moment::later,
        schedule::NOBODY,
        text::{self, line},
    },
};
use dogwatch_wire::ctl::{NewOverride, OnCall, OnCallSchedule, Override, Shift};
use hyper::Method;
use jiff::Timestamp;

use super::{
    Alertd, Answer, Failure, args,
    paint::{Colour, Table},
    paint::{NAME_CHARS_MAX, TEXT_CHARS_MAX, View},
};

pub(super) async fn ask(alertd: &Alertd<'_>, ask: &args::OnCall, view: &View) -> Result<Answer, Failure> {
    let at = ask.at.map_or(view.now, |at| at.moment(view.now, &view.zone));
    let until = later(at, LOOK_AHEAD);
    let week = ask.week;
    let target = format!("/v1/oncall?at={at}&until={until}");
    alertd.get(&target, |found: &OnCall| if week { shifts(found, view) } else { now(found, view) }).await
}

pub(super) async fn override_(
    alertd: &Alertd<'_>,
    ask: args::Override,
    view: &View,
) -> Result<Answer, Failure> {
    match ask.command {
        Some(args::OverrideCommand::List) => {
            alertd.get("/v1/overrides", |list: &Vec<Override>| overrides(list, view)).await
        }
        Some(args::OverrideCommand::End { number }) => {
            let target = format!("/v1/overrides/{number}");
            let shown = |ended: &Override| format!("override {number} ended: {}\n", words_of(ended, view));
            alertd.call(Method::DELETE, &target, None::<&()>, shown).await
        }
        None => {
            let moment = |at: super::when::When| at.moment(view.now, &view.zone);
            let body = NewOverride {
                schedule: ask.schedule.unwrap_or_default(),
                user: ask.user.unwrap_or_default(),
                from: ask.from.map(moment),
                until: ask.until.map_or(Timestamp::MIN, moment),
                comment: ask.comment.unwrap_or_default(),
            };
            alertd.post("/v1/overrides", &body, |made| overridden(made, view)).await
        }
    }
}

fn now(found: &OnCall, view: &View) -> String {
    if found.schedules.is_empty() {
        return "no schedules in the config\n".into();
    }
    let mut out = heading(found, view);
    let mut table = Table::with_head(&["SCHEDULE", "ON CALL", "UNTIL", "NEXT", "RECEIVERS"]);
    for schedule in &found.schedules {
        let until = schedule.until.map_or_else(|| "-".into(), |at| moment(at, view));
        let then = schedule
            .next
            .as_ref()
            .map_or_else(|| ("-".into(), Colour::None), |next| who(next.user.as_deref()));
        let told_by = match &schedule.user {
            Some(_) => schedule.receivers.join(", "),
            None => format!("{} (catch_all)", found.catch_all),
        };
        let cells = vec![
            (line(&schedule.name, NAME_CHARS_MAX), Colour::Bold),
            who(schedule.user.as_deref()),
            (until, Colour::None),
            then,
            (line(&told_by, TEXT_CHARS_MAX), Colour::None),
        ];
        table.row(cells, notes(schedule, view));
    }
    table.write(&mut out, view.paint);
    out
}

/// The time, unless it is now.
fn heading(found: &OnCall, view: &View) -> String {
    if found.at == view.now {
        String::new()
    } else {
        format!("at {}:\n", text::clock_time(found.at, &view.zone))
    }
}

fn notes(schedule: &OnCallSchedule, view: &View) -> String {
    let mut notes = Vec::new();
    if schedule.overridden {
        notes.push("set by an override".to_owned());
    }
    if let Some(gap) = schedule.gaps.first() {
        let more = match schedule.gaps.len() - 1 {
            0 => String::new(),
            more => format!(", and {} this week", text::plural(more, "more gap")),
        };
        let text = format!("nobody on call {} to {}{more}", day(gap.from, view), day(gap.until, view));
        notes.push(view.paint.text(&text, Colour::Red));
    }
    notes.join("; ")
}

fn shifts(found: &OnCall, view: &View) -> String {
    if found.schedules.is_empty() {
        return now(found, view);
    }
    let mut out = heading(found, view);
    for schedule in &found.schedules {
        let zone = &schedule.time_zone;
        let _ = writeln!(
            out,
            "{} ({})",
            view.bold(&line(&schedule.name, NAME_CHARS_MAX)),
            line(zone, NAME_CHARS_MAX)
        );
        let mut table = Table::with_head(&["FROM", "UNTIL", "DURATION", "ON CALL"]);
        for shift in &schedule.shifts {
            let mut cells: Vec<_> =
                [day(shift.from, view), day(shift.until, view), text::age(shift.from, shift.until)]
                    .into_iter()
                    .map(|text| (text, Colour::None))
                    .collect();
            let meant = shift.user.is_none() && !is_gap(schedule, shift);
            cells.push(if meant { (NOBODY.into(), Colour::Dim) } else { who(shift.user.as_deref()) });
            table.row(cells, String::new());
        }
        table.write(&mut out, view.paint);
        if !schedule.gaps.is_empty() {
            let catch_all = line(&found.catch_all, NAME_CHARS_MAX);
            let text = format!("while nobody is on call, {catch_all} is notified (catch_all)");
            let _ = writeln!(out, "  {}", view.paint.text(&text, Colour::Red));
        }
        out.push('\n');
    }
    out
}

fn is_gap(schedule: &OnCallSchedule, shift: &Shift) -> bool {
    schedule.gaps.iter().any(|gap| gap.from < shift.until && shift.from < gap.until)
}

fn who(user: Option<&str>) -> (String, Colour) {
    match user {
        Some(user) => (line(user, NAME_CHARS_MAX), Colour::Green),
        None => (NOBODY.into(), Colour::Red),
    }
}

/// `Mon 24 Nov 09:00`.
fn day(at: Timestamp, view: &View) -> String {
    at.to_zoned(view.zone.clone()).strftime("%a %d %b %H:%M").to_string()
}

fn moment(at: Timestamp, view: &View) -> String {
    format!("{} ({})", day(at, view), view.until(at))
}

fn overrides(list: &[Override], view: &View) -> String {
    if list.is_empty() {
        return "no overrides\n".into();
    }
    let mut table = Table::with_head(&["#", "SCHEDULE", "ON CALL", "FROM", "UNTIL", "BY"]);
    for one in list {
        let author =
            one.author.as_ref().map_or_else(|| "the config".into(), |author| line(author, NAME_CHARS_MAX));
        let cells = vec![
            (one.number.map_or_else(|| "-".into(), |number| number.to_string()), Colour::Bold),
            (line(&one.schedule, NAME_CHARS_MAX), Colour::None),
            who(one.user.as_deref()),
            (day(one.from, view), Colour::None),
            (day(one.until, view), Colour::None),
            (author, Colour::None),
        ];
        table.row(cells, line(&one.comment, TEXT_CHARS_MAX));
    }
    let mut out = String::new();
    table.write(&mut out, view.paint);
    out
}

fn words_of(one: &Override, view: &View) -> String {
    let user = one.user.as_deref().unwrap_or(NOBODY);
    format!(
        "{} on call for {} from {} until {}",
        line(user, NAME_CHARS_MAX),
        line(&one.schedule, NAME_CHARS_MAX),
        day(one.from, view),
        day(one.until, view)
    )
}

fn overridden(made: &Override, view: &View) -> String {
    let number = made.number.unwrap_or_default();
    format!("override {number}: {}\nto end it now: alertctl override end {number}\n", words_of(made, view))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::ctl::paint::Paint;

    #[test]
    fn a_tired_person_sees_who_until_when_and_where_nobody_is() {
        let shift = |user: Option<&str>, from, until| Shift {
            user: user.map(Into::into),
            from: at(from),
            until: at(until),
        };
        let found = OnCall {
            at: at("2026-11-21T03:16:00Z"),
            until: at("2026-11-28T03:16:00Z"),
            schedules: vec![OnCallSchedule {
                name: "primary".into(),
                time_zone: "Europe/Berlin".into(),
                user: Some("ann".into()),
                receivers: vec!["ann-pager".into(), "mail/ann".into()],
                overridden: true,
                until: Some(at("2026-11-23T08:00:00Z")),
                next: Some(shift(None, "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z")),
                shifts: vec![
                    shift(Some("ann"), "2026-11-21T03:16:00Z", "2026-11-23T08:00:00Z"),
                    shift(None, "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z"),
                    shift(Some("ben\u{1b}[2J"), "2026-11-23T10:00:00Z", "2026-11-28T03:16:00Z"),
                ],
                gaps: vec![shift(None, "2026-11-23T08:00:00Z", "2026-11-23T10:00:00Z")],
            }],
            catch_all: "ops".into(),
        };
        assert_eq!(
            now(&found, &view()),
            "  SCHEDULE  ON CALL  UNTIL                          NEXT    RECEIVERS\n\
             \x20 primary   ann      Mon 23 Nov 08:00 (in 2 d 4 h)  nobody  ann-pager, mail/ann\n\
             \x20           set by an override; nobody on call Mon 23 Nov 08:00 to Mon 23 Nov 10:00\n"
        );
        let week = shifts(&found, &view());
        assert!(week.starts_with("primary (Europe/Berlin)\n  FROM"), "{week}");
        assert!(week.contains("Mon 23 Nov 08:00  Mon 23 Nov 10:00  2 h 0 min  nobody\n"), "{week}");
        assert!(week.contains("ops is notified (catch_all)") && !week.contains('\u{1b}'), "{week}");
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn view() -> View {
        View { now: at("2026-11-21T03:16:00Z"), zone: TimeZone::UTC, paint: Paint::Plain }
    }
}
