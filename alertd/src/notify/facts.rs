//! The rows below the headline, the same for every receiver: facts about an alert, and what to do.
//! Pure.

use dogwatch_alertd_core::rules::{
    notification::{Kind, Notification, NotifiedAlert},
    text,
};

use super::{held, perfdata, sender::Sender, words};

/// Annotations shown for one alert.
const ANNOTATIONS_MAX: usize = 20;
/// Alerts in a short text; the rest are counted.
const SHORT_ALERTS_MAX: usize = 10;

/// Since when, the values with their limits, and the annotations (runbook, notes).
pub(super) fn rows(alert: &NotifiedAlert, told: &Notification, sender: &Sender) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push((text::line(name, 40), value));
        }
    };
    let until = alert.resolved_at.unwrap_or(told.created_at);
    let since = text::clock_time(alert.since, &sender.zone);
    match alert.resolved_at {
        None => row("since", format!("{since} ({})", text::age(alert.since, until))),
        Some(at) => {
            row("was", format!("{since} to {}", text::clock_time(at, &sender.zone)));
            row("lasted", text::age(alert.since, until));
        }
    }
    row("value", perfdata::in_words(&alert.perfdata, 500));
    for (name, value) in alert.annotations.iter().take(ANNOTATIONS_MAX) {
        row(name, text::line(value, 500));
    }
    rows
}

/// Recent changes on the host, the acknowledgement or how to acknowledge, how to see more, and why
/// the reader was notified.
pub(super) fn how_on(told: &Notification, sender: &Sender) -> Vec<(&'static str, String)> {
    let number = told.incident;
    let mut foot = Vec::new();
    if !told.lately.is_empty() {
        foot.push(("recently", words::lately(told, &sender.zone)));
    }
    if let Some(ack) = &told.ack {
        let at = text::clock_time(ack.at, &sender.zone);
        let comment = text::line(&ack.comment, 300);
        let said = if comment.is_empty() { String::new() } else { format!(": {comment}") };
        foot.push(("acknowledged", format!("by {} at {at}{said}", text::line(&ack.author, 80))));
    }
    if number > 0 {
        let open = matches!(told.kind, Kind::Problem | Kind::Update | Kind::Reminder);
        if open && told.ack.is_none() {
            foot.push((
                "acknowledge",
                format!("alertctl ack {number}   (on {})", text::line(&sender.host, 80)),
            ));
        }
        foot.push(("details", format!("alertctl why {number}")));
    } else {
        foot.push(("overview", format!("alertctl status   (on {})", text::line(&sender.host, 80))));
    }
    foot.push(("reason", words::why_told(told)));
    foot
}

/// Plain text for a phone, without the headline: the rows of a single alert, or one line per alert;
/// then what to do.
pub(super) fn short_text(told: &Notification, sender: &Sender) -> String {
    let mut lines = Vec::new();
    let alerts: Vec<_> = told.firing.iter().chain(&told.resolved).collect();
    if let [only] = alerts[..] {
        lines.extend(rows(only, told, sender).into_iter().map(|(name, value)| format!("{name}: {value}")));
    } else {
        for alert in alerts.iter().take(SHORT_ALERTS_MAX) {
            let state = alert.state_words();
            let (name, summary) = (words::alert_name(alert), text::line(&alert.summary, 160));
            lines.push(format!("{state} {name}: {summary}"));
        }
        if alerts.len() > SHORT_ALERTS_MAX {
            let more = alerts.len() - SHORT_ALERTS_MAX;
            lines.push(format!("… and {}", text::plural(more, "more alert")));
        }
    }
    if !told.digest.is_empty() {
        lines.extend(held::lines(told, &sender.zone, SHORT_ALERTS_MAX));
    }
    lines.extend(how_on(told, sender).into_iter().map(|(name, value)| format!("{name}: {value}")));
    lines.join("\n")
}
