//! `alertctl replay`: compares what was sent with what another config would have sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
    time::Duration,
};

use dogwatch_alertd_core::rules::text::line;
use dogwatch_wire::ctl::{Alert, Recorded, Sent, Status};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Alertd, Answer, Exit, Failure, config,
    paint::{Colour, NAME_CHARS_MAX, TEXT_CHARS_MAX, Table, View},
    pretty,
};
use crate::replay::{self, Story};

#[derive(Debug, Serialize)]
struct Compared {
    since: Timestamp,
    transitions: usize,
    sent: Vec<Sent>,
    would_be: Vec<Sent>,
}

pub(super) async fn ask(
    alertd: &Alertd<'_>,
    named: &Path,
    back: Duration,
    list: bool,
    view: &View,
) -> Result<Answer, Failure> {
    let rules = match config::rules(named) {
        Ok(rules) => rules,
        Err(problems) => return Ok(config::refused(&problems, alertd.json)),
    };
    let back = SignedDuration::try_from(back).unwrap_or(SignedDuration::MAX);
    let since = view.now.saturating_sub(back).unwrap_or(Timestamp::MIN);
    let status: Status = alertd.read("/v1/status").await?;
    let mut story = Story { from: since, until: view.now, ..Story::default() };
    let mut sent = Vec::new();
    let mut after = 0;
    loop {
        let page: Recorded = alertd.read(&format!("/v1/replay?since={since}&after={after}")).await?;
        story.entries.extend(page.entries);
        sent.extend(page.sent);
        story.silences.extend(page.silences.iter().filter_map(|one| serde_json::from_str(one).ok()));
        story.downtimes.extend(page.downtimes.iter().filter_map(|one| serde_json::from_str(one).ok()));
        story.overrides.extend(page.overrides.iter().filter_map(|one| serde_json::from_str(one).ok()));
        let Some(next) = page.more_after else { break };
        after = next;
    }
    let moved = story.entries.iter().filter_map(|entry| entry.detail.as_ref()?.alert.as_ref());
    let moved: BTreeSet<_> = moved.map(|alert| alert.labels.clone()).collect();
    let own = |alert: &Alert| alert.labels.contains_key("receiver") || alert.labels.contains_key("schedule");
    let all = status.incidents.into_iter().flat_map(|incident| incident.alerts);
    let still = |alert: &Alert| alert.resolved_at.is_none() && !own(alert) && !moved.contains(&alert.labels);
    story.firing = all.filter(still).collect();
    let transitions = story.entries.len();
    let would_be = replay::replay(rules, &story);
    let compared = Compared { since, transitions, sent, would_be };
    let text = if alertd.json { pretty(&compared) } else { shown(&compared, list, view) };
    Ok(Answer { text, exit: Exit::Done })
}

fn shown(compared: &Compared, list: bool, view: &View) -> String {
    let mut receivers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for sent in &compared.sent {
        receivers.entry(&sent.receiver).or_default().0 += 1;
    }
    for sent in &compared.would_be {
        receivers.entry(&sent.receiver).or_default().1 += 1;
    }
    let mut out = String::new();
    let mut table = Table::with_head(&["RECEIVER", "SENT", "NEW CONFIG", "BY KIND"]);
    for (receiver, (sent, would_be)) in &receivers {
        let colour = if sent == would_be { Colour::None } else { Colour::Yellow };
        let cells = vec![
            (line(receiver, NAME_CHARS_MAX), Colour::Bold),
            (sent.to_string(), Colour::None),
            (would_be.to_string(), colour),
            (kinds(&compared.would_be, receiver), Colour::None),
        ];
        table.row(cells, String::new());
    }
    table.write(&mut out, view.paint);
    if list {
        out.push('\n');
        for sent in &compared.would_be {
            let receiver = line(&sent.receiver, NAME_CHARS_MAX);
            let title = line(&sent.title, TEXT_CHARS_MAX);
            let _ =
                writeln!(out, "{}  {receiver}: {} {title} [{}]", view.clock(sent.at), sent.kind, sent.reason);
        }
    }
    let (sent, would_be) = (compared.sent.len(), compared.would_be.len());
    let _ = writeln!(
        out,
        "since {}: {} state changes and acks, {sent} notifications sent, {would_be} with the new config",
        view.clock(compared.since),
        compared.transitions
    );
    out
}

/// `3 problem, 1 recovery`.
fn kinds(sent: &[Sent], receiver: &str) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for sent in sent.iter().filter(|sent| sent.receiver == receiver) {
        *kinds.entry(&sent.kind).or_default() += 1;
    }
    let kinds: Vec<_> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    line(&kinds.join(", "), TEXT_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::ctl::paint::Paint;

    #[test]
    fn what_was_sent_stands_beside_what_would_be() {
        let at: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let sent = |receiver: &str, kind: &str| Sent {
            at,
            receiver: receiver.into(),
            kind: kind.into(),
            reason: "first_notification".into(),
            title: "CRITICAL web1/disk: full".into(),
        };
        let compared = Compared {
            since: at,
            transitions: 4,
            sent: vec![sent("mail", "problem"), sent("mail", "recovery")],
            would_be: vec![sent("pager", "problem")],
        };
        let view = View { now: at, zone: TimeZone::UTC, paint: Paint::Plain };
        let expected = "  \
  RECEIVER  SENT  NEW CONFIG  BY KIND
  mail      2     0
  pager     0     1           1 problem

03:00:00  pager: problem CRITICAL web1/disk: full [first_notification]
since 03:00:00: 4 state changes and acks, 2 notifications sent, 1 with the new config
";
        assert_eq!(shown(&compared, true, &view), expected);
    }
}
