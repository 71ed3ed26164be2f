//! `alertctl audit`: who changed what, from where, and which requests were refused.

use std::fmt::Write;

use dogwatch_alertd_core::rules::text::line;
use dogwatch_wire::ctl::HistoryEntry;
use jiff::{SignedDuration, Timestamp};

use super::{
    Alertd, Answer, Failure,
    args::History,
    paint::Colour,
    paint::{NAME_CHARS_MAX, TEXT_CHARS_MAX, View},
};

pub(super) async fn audit(alertd: &Alertd<'_>, ask: History, view: &View) -> Result<Answer, Failure> {
    let back = SignedDuration::try_from(ask.since.0).unwrap_or(SignedDuration::MAX);
    let since = view.now.saturating_sub(back).unwrap_or(Timestamp::MIN);
    let target = format!("/v1/audit?since={since}&limit={}", ask.limit);
    alertd.get(&target, |entries: &Vec<HistoryEntry>| log(entries, view)).await
}

/// `22:00:12  token:ops (192.0.2.7)  silenced  silence 3: host="web1"`.
fn log(entries: &[HistoryEntry], view: &View) -> String {
    let mut out = String::new();
    if entries.is_empty() {
        out.push_str("no audit entries in this period\n");
    }
    for entry in entries {
        let who = line(entry.author.as_deref().unwrap_or("-"), NAME_CHARS_MAX);
        let from = entry.from.as_ref().map(|from| format!(" ({})", line(from, NAME_CHARS_MAX)));
        let colour = if entry.kind == "refused" { Colour::Red } else { Colour::Bold };
        let kind = view.paint.text(&super::show::kind_words(&entry.kind), colour);
        let incident = entry.incident.map(|number| format!(" #{number}")).unwrap_or_default();
        let text = line(&entry.text, TEXT_CHARS_MAX);
        let text =
            format!("{}  {who}{}  {kind}{incident}  {text}", view.clock(entry.at), from.unwrap_or_default());
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::ctl::paint::Paint;

    #[test]
    fn a_line_says_who_from_where_and_what() {
        let at: Timestamp = "2026-11-21T22:00:12Z".parse().unwrap();
        let view = View { now: at, zone: TimeZone::UTC, paint: Paint::Plain };
        let entry = HistoryEntry {
            at,
            incident: Some(4),
            kind: "acked".into(),
            reason: "acked".into(),
            author: Some("token:ops\u{1b}[2J".into()),
            from: Some("192.0.2.7".into()),
            text: "looking".into(),
            detail: None,
        };
        let shown = log(&[entry], &view);
        assert!(shown.ends_with("token:ops[2J (192.0.2.7)  acknowledged #4  looking\n"), "{shown:?}");
    }
}
