//! The pages behind the links, for phones, without scripts. All values are escaped. Pure.

use std::fmt::Write as _;

use dogwatch_alertd_core::{
    ToldOpen,
    rules::text::{self, escaped},
};
use dogwatch_wire::ctl;
use jiff::{Timestamp, tz::TimeZone};

/// Shows an incident and asks whether to acknowledge it.
pub(super) fn confirm(incident: &ctl::Incident, who: &str, zone: &TimeZone, now: Timestamp) -> String {
    let since = text::clock_time(incident.opened_at, zone);
    let age = text::age(incident.opened_at, now);
    let mut body = format!(
        "<h1>#{} {}</h1>\n<p>since {} ({})</p>\n",
        incident.number,
        escaped(&text::line(&incident.title, 200)),
        escaped(&since),
        escaped(&age)
    );
    let firing: Vec<_> = incident.alerts.iter().filter(|alert| alert.resolved_at.is_none()).collect();
    if firing.len() > 1 {
        body.push_str("<ul>\n");
        for alert in firing.iter().take(10) {
            let name = text::name_of(&alert.labels);
            let line = format!("{} {name}: {}", alert.state.name(), text::line(&alert.summary, 160));
            body.push_str(&format_item(&line));
        }
        if firing.len() > 10 {
            body.push_str(&format_item(&format!("… and {} more", firing.len() - 10)));
        }
        body.push_str("</ul>\n");
    }
    let button = match &incident.ack {
        Some(ack) => {
            let by = text::line(&ack.author, 80);
            let _ = writeln!(body, "<p><b>Already acknowledged by {}.</b></p>", escaped(&by));
            "Take over"
        }
        None => "Acknowledge",
    };
    let _ = writeln!(
        body,
        "<form method=\"post\"><button>{button}</button></form>\n\
         <p>You acknowledge as {}. This stops the escalation. You will still be notified \
         when the incident is resolved.</p>",
        escaped(&text::line(who, 100))
    );
    page("Acknowledge?", &body)
}

fn format_item(line: &str) -> String {
    format!("<li>{}</li>\n", escaped(line))
}

/// Lists the open incidents that a receiver was notified of. `link` makes the link to acknowledge
/// one, from its number and the number of links already used for it.
pub(super) fn list(
    told: &ToldOpen,
    receiver: &str,
    link: impl Fn(u64, usize) -> String,
    zone: &TimeZone,
    now: Timestamp,
) -> String {
    let receiver = escaped(&text::line(receiver, 100));
    if told.open == 0 {
        let body = format!(
            "<h1>No open incidents</h1>\n<p>Everything that {receiver} was notified of is resolved.</p>\n"
        );
        return page("No open incidents", &body);
    }
    let at = escaped(&text::clock_time(now, zone));
    let (open, acked) = (told.open, told.acked);
    let mut body = format!(
        "<h1>{open} open, {acked} acknowledged</h1>\n\
         <p>Incidents that {receiver} was notified of, as of {at}</p>\n<ul>\n"
    );
    for (incident, used) in &told.shown {
        let title = format!("#{} {}", incident.number, escaped(&text::line(&incident.title, 160)));
        let age = escaped(&text::age(incident.opened_at, now));
        let _ = if let Some(ack) = &incident.ack {
            let author = escaped(&text::line(&ack.author, 80));
            writeln!(body, "<li>{title} {age} <b>acknowledged by {author}</b></li>")
        } else {
            let link = escaped(&link(incident.number, *used));
            writeln!(body, "<li><a href=\"{link}\">{title}</a> {age}</li>")
        };
    }
    body.push_str("</ul>\n");
    if told.open > told.shown.len() {
        let more = told.open - told.shown.len();
        let _ = writeln!(body, "<p>… and {more} more; run <code>alertctl status</code></p>");
    }
    page("Open incidents", &body)
}

/// A page with one message.
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
border-radius:.4em;background:#1a7f37;color:#fff}a{color:#8cf}li{margin:.6em 0;overflow-wrap:anywhere}";

#[cfg(test)]
mod tests {
    use dogwatch_wire::State;

    use super::*;

    fn incident(opened_at: Timestamp) -> ctl::Incident {
        ctl::Incident {
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
        }
    }

    #[test]
    fn the_list_links_to_unacknowledged_incidents_and_counts_the_rest() {
        let opened_at: Timestamp = "2026-11-21T02:12:00Z".parse().unwrap();
        let mut told = ToldOpen { open: 3, acked: 1, shown: vec![(incident(opened_at), 0); 2] };
        told.shown[1].0.number = 12;
        told.shown[1].0.ack = Some(ctl::AckInfo {
            author: "<bob>".into(),
            comment: String::new(),
            at: opened_at,
            sticky: false,
            expires_at: None,
        });
        let now = "2026-11-21T02:16:00Z".parse().unwrap();
        let show = |told: &ToldOpen| {
            list(told, "ops", |number, used| format!("../ack/t{number}.{used}"), &TimeZone::UTC, now)
        };
        let shown = show(&told);
        assert!(shown.contains("3 open, 1 acknowledged") && shown.contains("and 1 more"), "{shown}");
        assert!(shown.contains("<a href=\"../ack/t4711.0\">#4711 CRITICAL web1/disk"), "{shown}");
        assert!(!shown.contains("ack/t12"), "acknowledged incidents have no link: {shown}");
        assert!(
            shown.contains("<b>acknowledged by &lt;bob&gt;</b>") && !shown.contains("<script"),
            "{shown}"
        );
        told = ToldOpen { open: 0, acked: 0, shown: Vec::new() };
        assert!(show(&told).contains("Everything that ops was notified of is resolved"), "{}", show(&told));
    }

    #[test]
    fn the_page_shows_the_problem_and_one_button_without_scripts() {
        let opened_at: Timestamp = "2026-11-21T02:12:00Z".parse().unwrap();
        let mut incident = incident(opened_at);
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
        assert!(shown.contains("Already acknowledged by bob") && shown.contains("Take over"), "{shown}");
    }
}
