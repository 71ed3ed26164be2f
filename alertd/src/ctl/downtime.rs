//! `alertctl downtime`: schedules, lists and cancels downtimes of hosts and services.

use std::fmt::Write;

use dogwatch_alertd_core::rules::text::{self, line, plural};
use dogwatch_wire::ctl::{Downtime, NewDowntime};
use hyper::Method;

use super::{
    Alertd, Answer, Failure, args,
    paint::{Colour, Table},
    paint::{NAME_CHARS_MAX, TEXT_CHARS_MAX, View},
    when::When,
};

pub(super) async fn downtime(
    alertd: &Alertd<'_>,
    ask: args::Downtime,
    view: &View,
) -> Result<Answer, Failure> {
    match ask.command {
        Some(args::DowntimeCommand::List) => {
            alertd.get("/v1/downtimes", |list: &Vec<Downtime>| downtimes(list, view)).await
        }
        Some(args::DowntimeCommand::Cancel { number }) => {
            let target = format!("/v1/downtimes/{number}");
            let shown = |ended: &Downtime| format!("downtime {number} of {} cancelled\n", place(ended));
            alertd.call(Method::DELETE, &target, None::<&()>, shown).await
        }
        None => {
            let moment = |at: When| at.moment(view.now, &view.zone);
            let body = NewDowntime {
                host: ask.host.unwrap_or_default(),
                service: ask.service,
                comment: ask.comment.unwrap_or_default(),
                starts_at: ask.from.map(moment),
                ends_at: ask.until.map(moment),
                duration_s: ask.window.map_or(0, |span| span.0.as_secs()),
                flexible_s: ask.duration.map(|span| span.0.as_secs()),
                period: ask.during,
            };
            alertd.post("/v1/downtimes", &body, |made| announced(made, view)).await
        }
    }
}

fn place(downtime: &Downtime) -> String {
    let service = downtime.service.as_ref().map(|service| format!("/{service}")).unwrap_or_default();
    line(&format!("{}{service}", downtime.host), NAME_CHARS_MAX)
}

/// `30m from the first problem`, `during nights`, or nothing for a fixed downtime.
fn shape(downtime: &Downtime) -> String {
    match (downtime.flexible_s, &downtime.period) {
        (Some(seconds), _) => {
            let lasts = dogwatch_daemon::duration::Span::secs(seconds);
            format!("{lasts} from the first problem")
        }
        (None, Some(period)) => format!("during {}", line(period, NAME_CHARS_MAX)),
        (None, None) => String::new(),
    }
}

fn announced(downtime: &Downtime, view: &View) -> String {
    let clock = |at| text::clock_time(at, &view.zone);
    let mut out = format!("downtime {} of {}", downtime.number, place(downtime));
    let shape = shape(downtime);
    if !shape.is_empty() {
        let _ = write!(out, ", {shape}");
    }
    let covers = plural(usize::try_from(downtime.covers).unwrap_or(usize::MAX), "firing alert");
    let _ = writeln!(out, " (covers {covers} now)");
    if downtime.starts_at > view.now {
        let _ = writeln!(out, "from {}", clock(downtime.starts_at));
    }
    let number = downtime.number;
    let _ = writeln!(
        out,
        "until {}; to cancel it: alertctl downtime cancel {number}",
        clock(downtime.until.unwrap_or(downtime.ends_at))
    );
    out
}

/// The downtimes as a table.
pub(super) fn downtimes(downtimes: &[Downtime], view: &View) -> String {
    if downtimes.is_empty() {
        return "no downtimes\n".into();
    }
    let mut out = String::new();
    let mut table = Table::with_head(&["#", "STATE", "ENDS", "BY", "WHERE", "FIRING", "TYPE"]);
    for downtime in downtimes {
        let active = downtime.state == "active";
        let state = match downtime.state.as_str() {
            "pending" => format!("starts {}", view.until(downtime.starts_at)),
            state => line(state, NAME_CHARS_MAX),
        };
        let cells = vec![
            (downtime.number.to_string(), Colour::Bold),
            (state, if active { Colour::Yellow } else { Colour::Dim }),
            (view.until(downtime.until.unwrap_or(downtime.ends_at)), Colour::None),
            (line(&downtime.author, NAME_CHARS_MAX), Colour::None),
            (place(downtime), Colour::None),
            (downtime.covers.to_string(), Colour::None),
            (shape(downtime), Colour::None),
        ];
        table.row(cells, line(&downtime.comment, TEXT_CHARS_MAX));
    }
    table.write(&mut out, view.paint);
    out
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;
    use crate::ctl::paint::Paint;

    fn at(time: &str) -> Timestamp {
        format!("2026-11-21T{time}:00Z").parse().unwrap()
    }

    fn flexible() -> Downtime {
        Downtime {
            number: 4,
            host: "web1".into(),
            service: Some("disk".into()),
            author: "ada".into(),
            comment: "ticket 88\u{1b}[2J".into(),
            starts_at: at("22:00"),
            ends_at: at("23:00"),
            flexible_s: Some(1_800),
            began_at: None,
            period: None,
            state: "pending".into(),
            until: None,
            covers: 1,
        }
    }

    #[test]
    fn a_downtime_says_where_how_long_and_how_to_take_it_back() {
        let view = View { now: at("21:00"), zone: TimeZone::UTC, paint: Paint::Plain };
        assert_eq!(
            announced(&flexible(), &view),
            "downtime 4 of web1/disk, 30m from the first problem (covers 1 firing alert now)\n\
             from 22:00 Sat 21 Nov 2026 UTC\n\
             until 23:00 Sat 21 Nov 2026 UTC; to cancel it: alertctl downtime cancel 4\n"
        );
        let table = downtimes(&[flexible()], &view);
        assert!(
            table.contains("starts in 1 h 0 min  in 2 h 0 min  ada  web1/disk  1       30m from the first"),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'), "{table:?}");
    }
}
