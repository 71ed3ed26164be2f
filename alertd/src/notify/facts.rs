//! What is known of an alert and how to go on, as rows that every receiver shows under the headline. Pure.

use dogwatch_alertd_core::rules::{
    notification::{Kind, Notification, NotifiedAlert},
    text,
};

use super::{held, perfdata, receiver::Sender, words};

/// Annotations of one alert that are shown.
const ANNOTATIONS_MAX: usize = 20;
/// Alerts in a short text; the rest is counted.
const SHORT_ALERTS_MAX: usize = 10;

/// Since when, the value against its limits, what the check's owner wrote (runbook, notes).
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

/// What else changed on the host, who is on it, how to ack, where the story is, why the reader is told.
pub(super) fn how_on(told: &Notification, sender: &Sender) -> Vec<(&'static str, String)> {
    let number = told.incident;
    let mut foot = Vec::new();
    if !told.lately.is_empty() {
        foot.push(("lately", words::lately(told, &sender.zone)));
    }
    if let Some(ack) = &told.ack {
        let at = text::clock_time(ack.at, &sender.zone);
        let comment = text::line(&ack.comment, 300);
        let said = if comment.is_empty() { String::new() } else { format!(": {comment}") };
        foot.push(("acked", format!("by {} at {at}{said}", text::line(&ack.author, 80))));
    }
    if number > 0 {
        let open = matches!(told.kind, Kind::Problem | Kind::Update | Kind::Reminder);
        if open && told.ack.is_none() {
            foot.push(("ack", format!("alertctl ack {number}   (on {})", text::line(&sender.host, 80))));
        }
        foot.push(("why", format!("alertctl why {number}")));
    } else {
        foot.push(("all", format!("alertctl status   (on {})", text::line(&sender.host, 80))));
    }
    foot.push(("sent", words::why_told(told)));
    foot
}

/// Plain lines for a phone, without the headline: the only alert's rows, or one line an alert; then how to go on.
pub(super) fn short_text(told: &Notification, sender: &Sender) -> String {
    let mut lines = Vec::new();
    let alerts: Vec<_> = told.firing.iter().chain(&told.resolved).collect();
    if let [only] = alerts[..] {
        lines.extend(rows(only, told, sender).into_iter().map(|(name, value)| format!("{name}: {value}")));
    } else {
        for alert in alerts.iter().take(SHORT_ALERTS_MAX) {
            let state = if alert.resolved_at.is_some() { "OK" } else { alert.state.name() };
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
