//! `alertctl send`: raises or resolves an alert.

use dogwatch_alertd_core::rules::{external::Posted, matcher::Labels};
use dogwatch_wire::ctl;
use jiff::{SignedDuration, Timestamp};

use super::{
    Alertd, Answer, Failure,
    args::{Send, Severity},
    paint::View,
};
use crate::notify::Sender;

pub(super) async fn send(alertd: &Alertd<'_>, ask: Send, view: &View) -> Result<Answer, Failure> {
    let ok = ask.ok;
    let posted = to_posted(ask, view.now);
    let shown = |taken: &ctl::Posted| {
        let numbers: Vec<_> = taken.incidents.iter().map(|number| format!("#{number}")).collect();
        match (ok, numbers.as_slice()) {
            (true, []) => "accepted; this alert was not firing\n".to_owned(),
            (true, _) => format!("alert resolved; incident {}\n", numbers.join(", ")),
            (false, [only]) => {
                format!("alert sent; incident {only}; see: alertctl why {}\n", taken.incidents[0])
            }
            (false, _) => format!("alert sent; incidents {}; see: alertctl why N\n", numbers.join(", ")),
        }
    };
    alertd.post("/v1/alerts", &[posted], shown).await
}

fn to_posted(ask: Send, now: Timestamp) -> Posted {
    let severity = match ask.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Unknown => "unknown",
    };
    let mut labels: Labels = ask.labels.into_iter().collect();
    labels.insert("alertname".into(), ask.name);
    // As a label, a new severity would make a different alert.
    labels.remove("severity");
    labels.entry("host".into()).or_insert_with(|| Sender::of_this_host().host);
    let annotations =
        [("summary", ask.summary), ("runbook", ask.runbook), ("severity", Some(severity.into()))];
    let annotations = annotations.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let lasts = ask.lasts.map(|span| SignedDuration::try_from(span.0).unwrap_or(SignedDuration::MAX));
    let ends_at = lasts.map(|lasts| now.saturating_add(lasts).unwrap_or(Timestamp::MAX));
    Posted {
        labels,
        annotations: annotations.collect(),
        // An end that is not in the future resolves the alert.
        starts_at: ask.ok.then_some(now),
        ends_at: if ask.ok { Some(now) } else { ends_at },
        generator_url: String::new(),
    }
}
