//! The pages behind a link: for a phone at night, without scripts. Pure. Everything in them that is not ours is escaped.

use std::fmt::Write as _;

use dogwatch_wire::ctl;
use jiff::{Timestamp, tz::TimeZone};

use crate::notify::{mail::escaped, words};

/// Asks whether to acknowledge.
pub(super) fn confirm(incident: &ctl::Incident, who: &str, zone: &TimeZone, now: Timestamp) -> String {
    let since = words::clock_time(incident.opened_at, zone);
    let age = words::age(incident.opened_at, now);
    let mut body = format!(
        "<h1>#{} {}</h1>\n<p>since {} ({})</p>\n",
        incident.number,
        escaped(&words::line(&incident.title, 200)),
        escaped(&since),
        escaped(&age)
    );
    let firing: Vec<_> = incident.alerts.iter().filter(|alert| alert.resolved_at.is_none()).collect();
    if firing.len() > 1 {
        body.push_str("<ul>\n");
        for alert in firing.iter().take(10) {
            let name = words::name_of(&alert.labels);
            let line = format!("{} {name}: {}", alert.state.name(), words::line(&alert.summary, 160));
            body.push_str(&format_item(&line));
        }
        if firing.len() > 10 {
            body.push_str(&format_item(&format!("… and {} more", firing.len() - 10)));
        }
        body.push_str("</ul>\n");
    }
    let button = match &incident.ack {
        Some(ack) => {
            let by = words::line(&ack.author, 80);
            let _ = writeln!(body, "<p><b>{} is on it already.</b></p>", escaped(&by));
            "Take it over"
        }
        None => "Acknowledge",
    };
    let _ = writeln!(
        body,
        "<form method=\"post\"><button>{button}</button></form>\n\
         <p>As {}. Nobody else is woken while it is acknowledged; you still hear when it is over.</p>",
        escaped(&words::line(who, 100))
    );
    page("Acknowledge?", &body)
}

fn format_item(line: &str) -> String {
    format!("<li>{}</li>\n", escaped(line))
}

/// One thing said.
pub(super) fn said(head: &str, words: &str) -> String {
    page(head, &format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(head), escaped(words)))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<style>{STYLE}</style></head>\n\
         <body>\n{body}</body></html>\n",
        escaped(title)
    )
}

const STYLE: &str = "body{font:18px/1.4 sans-serif;max-width:32em;margin:1em auto;padding:0 1em;color:#eee;background:#111}\
h1{font-size:1.3em;overflow-wrap:anywhere}button{font:inherit;font-size:1.4em;width:100%;padding:.8em;border:0;\
border-radius:.4em;background:#1a7f37;color:#fff}";

#[cfg(test)]
mod tests {
    use dogwatch_wire::State;

    use super::*;

    #[test]
    fn the_page_says_what_is_wrong_and_has_one_button_and_no_script() {
        let opened_at: Timestamp = "2026-11-21T02:12:00Z".parse().unwrap();
        let mut incident = ctl::Incident {
            number: 4711,
            state: State::Critical,
            group: [].into(),
            route: String::new(),
            title: "CRITICAL web1/disk: <script>alert(1)</script>".into(),
            opened_at,
            resolved_at: None,
            alerts: Vec::new(),
            ack: None,
            told: Vec::new(),
            next_step: None,
            silenced_by: Vec::new(),
            withheld: Vec::new(),
        };
        let now = "2026-11-21T02:16:00Z".parse().unwrap();
        let shown = confirm(&incident, "ada@example.org", &TimeZone::UTC, now);
        assert!(shown.contains("#4711 CRITICAL web1/disk") && shown.contains("(4 min)"), "{shown}");
        assert!(!shown.contains("<script") && shown.matches("<button>").count() == 1, "{shown}");
        incident.ack = Some(ctl::AckInfo {
            author: "bob".into(),
            comment: String::new(),
            at: opened_at,
            sticky: false,
            expires_at: None,
        });
        let shown = confirm(&incident, "ada@example.org", &TimeZone::UTC, now);
        assert!(shown.contains("bob is on it already") && shown.contains("Take it over"), "{shown}");
    }
}
