//! Formats alertd's responses as text for a terminal. Pure: time and time zone are arguments.
//!
//! Text from plugins, labels and comments is made harmless first ([`text::line`]), so that it
//! cannot move the cursor or change colours.

use std::{collections::BTreeMap, fmt::Write};

use dogwatch_alertd_core::rules::text::{self, line, plural};
use dogwatch_wire::ctl::{
    AckInfo, Alert, HistoryEntry, Incident, NextStep, NotificationInfo, Silence, Status, Why, Withheld,
};

use super::paint::{Colour, NAME_CHARS_MAX, TEXT_CHARS_MAX, Table, View};

pub(super) fn status(status: &Status, view: &View) -> String {
    let mut out = String::new();
    for warning in &status.warnings {
        let warning = line(warning, TEXT_CHARS_MAX);
        let _ = writeln!(out, "{} {warning}", view.paint.text("warning:", Colour::Red));
    }
    if status.incidents.is_empty() {
        let _ = writeln!(out, "{}", view.paint.text("no open incidents", Colour::Green));
    } else {
        let mut table = Table::with_head(&["#", "STATE", "AGE", "WHERE", "ACK", "NOTIFIED", "NEXT"]);
        for incident in &status.incidents {
            let title = line(&incident.title, TEXT_CHARS_MAX);
            table.row(incident_cells(incident, view), title + &withheld_count(incident));
        }
        table.write(&mut out, view.paint);
    }
    out.push('\n');
    agents(status, view, &mut out);
    let active: Vec<_> = status.downtimes.iter().filter(|d| d.state == "active").cloned().collect();
    if !active.is_empty() {
        let _ = writeln!(out, "{} in effect:", plural(active.len(), "downtime"));
        out.push_str(&super::downtime::downtimes(&active, view));
    }
    if status.silences > 0 {
        let count = plural(status.silences, "silence");
        let _ = writeln!(out, "{count} in effect; to see them: alertctl silence list");
    }
    let _ = writeln!(out, "{}", outbox(status, view));
    let _ = writeln!(out, "alertd {} up {}", line(&status.version, 40), view.age(status.started_at));
    out
}

fn incident_cells(incident: &Incident, view: &View) -> Vec<(String, Colour)> {
    let plain = |text: String| (text, Colour::None);
    let ack = match &incident.ack {
        Some(ack) => (line(&ack.author, NAME_CHARS_MAX), Colour::Green),
        None => plain("-".into()),
    };
    vec![
        (incident.number.to_string(), Colour::Bold),
        (incident.state.name().into(), Colour::of(incident.state)),
        plain(view.age(incident.opened_at)),
        plain(place(incident)),
        ack,
        plain(names(&incident.told)),
        plain(next(incident, view)),
    ]
}

/// `web1/disk` for one alert, the group and a count for more.
fn place(incident: &Incident) -> String {
    match incident.alerts.as_slice() {
        [only] => name(only),
        alerts => format!("{} ({})", group(&incident.group), plural(alerts.len(), "alert")),
    }
}

fn name(alert: &Alert) -> String {
    text::name_of(&alert.labels)
}

fn group(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { "all".into() } else { line(&pairs.join(", "), NAME_CHARS_MAX * 2) }
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nobody".into() } else { line(&names.join(", "), NAME_CHARS_MAX * 2) }
}

fn next(incident: &Incident, view: &View) -> String {
    if !incident.silenced_by.is_empty() {
        return format!("silenced by silence {}", numbers(&incident.silenced_by));
    }
    if let Some(words) = all_withheld(incident, view) {
        return words;
    }
    match (&incident.next_step, &incident.ack) {
        (Some(NextStep { targets, at, .. }), _) => format!("{} {}", names(targets), view.until(*at)),
        (None, Some(_)) => "acknowledged".into(),
        (None, None) => "-".into(),
    }
}

fn firing(incident: &Incident) -> usize {
    incident.alerts.iter().filter(|alert| alert.resolved_at.is_none()).count()
}

/// Why there is no next step, if all firing alerts of the incident are suppressed.
fn all_withheld(incident: &Incident, view: &View) -> Option<String> {
    let withheld = incident.withheld.first().filter(|_| incident.withheld.len() >= firing(incident))?;
    Some(withheld_words(withheld, view))
}

/// ` (2 of 3 alerts suppressed; see alertctl why 4711)`.
fn withheld_count(incident: &Incident) -> String {
    let (withheld, firing) = (incident.withheld.len(), firing(incident));
    if withheld == 0 || withheld >= firing {
        return String::new();
    }
    format!(" ({withheld} of {firing} alerts suppressed; see alertctl why {})", incident.number)
}

/// `host down: silent agent on web1, until 03:14:00`.
fn withheld_words(withheld: &Withheld, view: &View) -> String {
    let until = withheld.until.map(|at| format!(", until {}", view.clock(at))).unwrap_or_default();
    let reason = line(&withheld.reason, NAME_CHARS_MAX).replace('_', " ");
    format!("{reason}: {}{until}", line(&withheld.by, NAME_CHARS_MAX))
}

fn numbers(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn agents(status: &Status, view: &View, out: &mut String) {
    let silent: Vec<_> = status.agents.iter().filter(|agent| agent.silent).collect();
    let services: u32 = status.agents.iter().map(|agent| agent.services).fold(0, u32::saturating_add);
    let counts = format!(
        "{}, {}",
        plural(status.agents.len(), "agent"),
        plural(usize::try_from(services).unwrap_or(usize::MAX), "service")
    );
    if silent.is_empty() {
        let _ = writeln!(out, "{counts}");
        return;
    }
    let words = format!("{} silent:", plural(silent.len(), "agent"));
    let _ = writeln!(out, "{counts}; {}", view.paint.text(&words, Colour::Red));
    let mut table = Table::with_head(&["HOST", "LAST HEARTBEAT", "VERSION", "SERVICES"]);
    for agent in silent {
        let cells = [
            line(&agent.host, NAME_CHARS_MAX),
            format!("{} ago", view.age(agent.last_heard_at)),
            line(&agent.version, 40),
            agent.services.to_string(),
        ];
        table.row(cells.into_iter().map(|text| (text, Colour::None)).collect(), String::new());
    }
    table.write(out, view.paint);
}

fn outbox(status: &Status, view: &View) -> String {
    let outbox = &status.outbox;
    let waiting = outbox.queued + outbox.leased;
    let oldest = outbox.oldest_at.filter(|_| waiting > 0);
    let oldest = oldest.map(|at| format!(" (oldest: {})", view.age(at))).unwrap_or_default();
    let failed = format!("{} failed", outbox.failed);
    let colour = if outbox.failed > 0 { Colour::Red } else { Colour::None };
    format!("notifications: {waiting} waiting{oldest}, {}", view.paint.text(&failed, colour))
}

pub(super) fn acked(incident: &Incident, view: &View) -> String {
    let title = line(&incident.title, TEXT_CHARS_MAX);
    let number = incident.number;
    if let Some(ack) = &incident.ack {
        return format!("#{number} acknowledged {}\n{title}\n", ack_words(ack, view));
    }
    let next = incident.next_step.as_ref();
    let next = next.map(|next| format!("; next: {} {}", names(&next.targets), view.until(next.at)));
    format!("#{number} is not acknowledged{}\n{title}\n", next.unwrap_or_default())
}

/// `by ada at 03:14:00 until 05:14:00, sticky: looking`.
fn ack_words(ack: &AckInfo, view: &View) -> String {
    let mut words = format!("by {} at {}", line(&ack.author, NAME_CHARS_MAX), view.clock(ack.at));
    if let Some(at) = ack.expires_at {
        let _ = write!(words, " until {}", view.clock(at));
    }
    if ack.sticky {
        words.push_str(", sticky");
    }
    if !ack.comment.is_empty() {
        let _ = write!(words, ": {}", line(&ack.comment, TEXT_CHARS_MAX));
    }
    words
}

pub(super) fn why(why: &Why, view: &View) -> String {
    let incident = &why.incident;
    let mut out = String::new();
    // The title already begins with the state.
    let title = view.paint.text(&line(&incident.title, TEXT_CHARS_MAX), Colour::of(incident.state));
    let _ = writeln!(out, "{} {title}", view.bold(&format!("#{}", incident.number)));
    for (name, value) in facts(why, view) {
        let _ = writeln!(out, "  {name:<12} {value}");
    }
    let _ = writeln!(out, "\n{}", view.bold("alerts"));
    for alert in &incident.alerts {
        alert_lines(alert, view, &mut out);
    }
    let _ = writeln!(out, "\n{}", view.bold("history"));
    // Oldest first, so that it reads from top to bottom.
    let mut decisions: Vec<_> = why.decisions.iter().collect();
    decisions.sort_by_key(|entry| entry.at);
    for entry in decisions {
        let _ = writeln!(out, "  {}", entry_line(entry, view));
    }
    let _ = writeln!(out, "\n{}", view.bold("notifications"));
    if why.notifications.is_empty() {
        let _ = writeln!(out, "  none");
    }
    let mut notifications: Vec<_> = why.notifications.iter().collect();
    notifications.sort_by_key(|told| told.created_at);
    for told in notifications {
        let _ = writeln!(out, "  {}", told_line(told, view));
    }
    out
}

fn facts(why: &Why, view: &View) -> Vec<(&'static str, String)> {
    let incident = &why.incident;
    let opened = text::clock_time(incident.opened_at, &view.zone);
    let mut facts = vec![match incident.resolved_at {
        None => ("open", format!("since {opened} ({})", view.age(incident.opened_at))),
        Some(at) => (
            "resolved",
            format!("at {}, open since {opened} ({})", view.clock(at), text::age(incident.opened_at, at)),
        ),
    }];
    facts.push(("group", group(&incident.group)));
    facts.push(("route", route(why)));
    facts.push(("notified", names(&incident.told)));
    if let Some(ack) = &incident.ack {
        facts.push(("acknowledged", ack_words(ack, view)));
    }
    if let Some(next) = &incident.next_step {
        let (step, targets) = (next.step, names(&next.targets));
        facts.push(("next", format!("step {step}: {targets} {}, unless acknowledged", view.until(next.at))));
    }
    if !incident.silenced_by.is_empty() {
        facts.push(("silenced", format!("by silence {}", numbers(&incident.silenced_by))));
    }
    for withheld in &incident.withheld {
        let words = withheld_words(withheld, view);
        facts.push(("suppressed", format!("{}: {words}", line(&withheld.alert, NAME_CHARS_MAX))));
    }
    facts
}

/// `everything > {team="db"}`, the outermost route first.
fn route(why: &Why) -> String {
    why.route_path.iter().map(|step| line(step, TEXT_CHARS_MAX)).collect::<Vec<_>>().join(" > ")
}

fn alert_lines(alert: &Alert, view: &View, out: &mut String) {
    let state = view.paint.text(alert.state.name(), Colour::of(alert.state));
    let when = match alert.resolved_at {
        None => format!("for {}", view.age(alert.since)),
        Some(at) => format!("resolved {} ago", view.age(at)),
    };
    let flapping = if alert.flapping { ", flapping" } else { "" };
    let summary = line(&alert.summary, TEXT_CHARS_MAX);
    let _ = writeln!(out, "  {} {state} {when}{flapping}: {summary}", name(alert));
    for text in text::block(&alert.detail, 20) {
        let _ = writeln!(out, "      {text}");
    }
    for (name, value) in &alert.annotations {
        let _ = writeln!(out, "    {}: {}", line(name, NAME_CHARS_MAX), line(value, TEXT_CHARS_MAX));
    }
}

/// `03:12:01  opened       OK to CRITICAL [reported]`, or
/// `03:15:00  acknowledged by ada: looking [acked]`.
fn entry_line(entry: &HistoryEntry, view: &View) -> String {
    let reason = view.paint.text(&format!("[{}]", line(&entry.reason, NAME_CHARS_MAX)), Colour::Dim);
    let (kind, text) = (kind_words(&entry.kind), line(&entry.text, TEXT_CHARS_MAX));
    let what = match &entry.author {
        None => format!("{kind:<12} {text}"),
        Some(author) if text.is_empty() => format!("{kind} by {}", line(author, NAME_CHARS_MAX)),
        Some(author) => format!("{kind} by {}: {text}", line(author, NAME_CHARS_MAX)),
    };
    format!("{}  {what} {reason}", view.clock(entry.at))
}

/// The kind of a history entry in words: `downtime cancelled`.
pub(super) fn kind_words(kind: &str) -> String {
    match kind {
        "acked" => "acknowledged".into(),
        "unacked" => "ack ended".into(),
        "withheld" => "suppressed".into(),
        "released" => "no longer suppressed".into(),
        kind => line(&kind.replace('_', " "), NAME_CHARS_MAX),
    }
}

/// `03:12:31  oncall: problem accepted at 03:12:32 after 2 attempts, "queued as 17"
/// [escalation_step]`.
fn told_line(told: &NotificationInfo, view: &View) -> String {
    let colour = match told.state.as_str() {
        "accepted" | "delivered" => Colour::Green,
        "failed" => Colour::Red,
        _ => Colour::Yellow,
    };
    let state = view.paint.text(&line(&told.state, NAME_CHARS_MAX), colour);
    let mut text = format!(
        "{}  {}: {} {state}",
        view.clock(told.created_at),
        line(&told.receiver, NAME_CHARS_MAX),
        line(&told.kind, NAME_CHARS_MAX)
    );
    if let Some(digest) = told.in_digest {
        let _ = write!(text, " in digest {digest}");
    }
    if let Some(at) = told.settled_at {
        let _ = write!(text, " at {}", view.clock(at));
    }
    if told.in_digest.is_none() && told.attempts != 1 {
        let _ = write!(text, " after {}", attempts(told.attempts));
    }
    if let Some(id) = &told.provider_id {
        let _ = write!(text, ", {:?}", line(id, TEXT_CHARS_MAX));
    }
    if let Some(error) = &told.last_error {
        let _ = write!(text, ", last error: {}", line(error, TEXT_CHARS_MAX));
    }
    let reason = view.paint.text(&format!("[{}]", line(&told.reason, NAME_CHARS_MAX)), Colour::Dim);
    format!("{text} {reason}")
}

fn attempts(n: u32) -> String {
    plural(usize::try_from(n).unwrap_or(usize::MAX), "attempt")
}

pub(super) fn history(entries: &[HistoryEntry], view: &View) -> String {
    let mut out = String::new();
    if entries.is_empty() {
        out.push_str("no history in this period\n");
    }
    for entry in entries {
        let number = entry.incident.map_or_else(|| "-".into(), |number| format!("#{number}"));
        let _ = writeln!(out, "{number:<7} {}", entry_line(entry, view));
    }
    out
}

pub(super) fn silences(silences: &[Silence], view: &View) -> String {
    if silences.is_empty() {
        return "no silences\n".into();
    }
    let mut out = String::new();
    let mut table = Table::with_head(&["#", "STATE", "ENDS", "BY", "FIRING", "MATCHERS"]);
    for silence in silences {
        let colour = if silence.active { Colour::Yellow } else { Colour::Dim };
        let state = match silence.state.as_str() {
            "pending" => format!("starts {}", view.until(silence.starts_at)),
            state => line(state, NAME_CHARS_MAX),
        };
        let ends = if silence.ends_at > view.now {
            view.until(silence.ends_at)
        } else {
            format!("{} ago", view.age(silence.ends_at))
        };
        let cells = vec![
            (silence.number.to_string(), Colour::Bold),
            (state, colour),
            (ends, Colour::None),
            (line(&silence.author, NAME_CHARS_MAX), Colour::None),
            (silence.matches.to_string(), Colour::None),
            (matchers(silence), Colour::None),
        ];
        table.row(cells, line(&silence.comment, TEXT_CHARS_MAX));
    }
    table.write(&mut out, view.paint);
    out
}

/// `host="web1" service=~"disk.*" during nights`.
fn matchers(silence: &Silence) -> String {
    let what = if silence.matchers.is_empty() { "everything".into() } else { silence.matchers.join(" ") };
    let during = silence.period.as_ref().map(|period| format!(" during {period}")).unwrap_or_default();
    line(&(what + &during), TEXT_CHARS_MAX)
}

pub(super) fn silenced(silence: &Silence, dry_run: bool, view: &View) -> String {
    let count = |n: u64, noun| plural(usize::try_from(n).unwrap_or(usize::MAX), noun);
    let reach = format!("{} on {}", count(silence.matches, "firing alert"), count(silence.hosts, "host"));
    let what = matchers(silence);
    let mut out = if dry_run {
        format!("{what} matches {reach} now\n")
    } else {
        format!("silence {}: {what} (matches {reach} now)\n", silence.number)
    };
    if dry_run {
        for alert in &silence.alerts {
            let _ = writeln!(out, "  {}", line(alert, TEXT_CHARS_MAX));
        }
        if silence.matches > silence.alerts.len() as u64 {
            let _ = writeln!(out, "  and {} more", silence.matches - silence.alerts.len() as u64);
        }
        if let Some(broad) = &silence.broad {
            let _ = writeln!(out, "refused without --broad: {}", line(broad, TEXT_CHARS_MAX));
        }
        return out;
    }
    if silence.starts_at > view.now {
        let _ = writeln!(out, "from {}", text::clock_time(silence.starts_at, &view.zone));
    }
    let until = text::clock_time(silence.ends_at, &view.zone);
    let number = silence.number;
    let _ = writeln!(out, "until {until}; to end it now: alertctl silence end {number}");
    out
}

pub(super) fn silence_ended(silence: &Silence) -> String {
    format!("silence {} ended: {}\n", silence.number, matchers(silence))
}

pub(super) fn tested(told: &NotificationInfo, view: &View) -> String {
    format!("{}\n", told_line(told, view))
}

#[cfg(test)]
mod tests {
    use dogwatch_wire::{
        State,
        ctl::{AgentStatus, OutboxStatus},
    };
    use jiff::{Timestamp, tz::TimeZone};

    use super::{super::paint::Paint, *};

    #[test]
    fn the_status_says_what_is_wrong_who_knows_and_what_comes_next() {
        let silent = AgentStatus {
            agent: "a2".into(),
            host: "db1".into(),
            version: "0.1.0".into(),
            services: 3,
            last_heard_at: at("03:10"),
            silent: true,
        };
        let alive = AgentStatus { host: "web1".into(), silent: false, ..silent.clone() };
        let shown = Status {
            version: "0.1.0".into(),
            started_at: at("00:16"),
            incidents: vec![incident()],
            agents: vec![alive, silent],
            downtimes: Vec::new(),
            silences: 2,
            outbox: OutboxStatus { queued: 1, leased: 1, failed: 0, oldest_at: Some(at("03:15")), held: 0 },
            warnings: vec!["receiver \"pager\" failed 3 times".into()],
        };
        assert_eq!(
            status(&shown, &view()),
            "warning: receiver \"pager\" failed 3 times\n\
             \x20 #     STATE     AGE    WHERE      ACK  NOTIFIED  NEXT\n\
             \x20 4711  CRITICAL  4 min  web1/disk  -    oncall    pager in 1 min\n\
             \x20       CRITICAL web1/disk: /var 96% used\n\
             \n\
             2 agents, 6 services; 1 agent silent:\n\
             \x20 HOST  LAST HEARTBEAT  VERSION  SERVICES\n\
             \x20 db1   6 min ago       0.1.0    3\n\
             2 silences in effect; to see them: alertctl silence list\n\
             notifications: 2 waiting (oldest: 1 min), 0 failed\n\
             alertd 0.1.0 up 3 h 0 min\n"
        );
    }

    #[test]
    fn why_tells_the_story_from_its_beginning() {
        let mut shown = incident();
        shown.ack = Some(AckInfo {
            author: "ada".into(),
            comment: "looking".into(),
            at: at("03:15"),
            sticky: false,
            expires_at: Some(at("05:15")),
        });
        let entry = |time: &str, kind: &str, reason: &str, author: Option<&str>, text: &str| HistoryEntry {
            at: at(time),
            incident: Some(4711),
            kind: kind.into(),
            reason: reason.into(),
            author: author.map(Into::into),
            from: None,
            text: text.into(),
            detail: None,
        };
        let shown = Why {
            incident: shown,
            route_path: vec!["everything".into(), "{service=\"disk\"}".into()],
            decisions: vec![
                entry("03:15", "acked", "by_hand", Some("ada"), "looking"),
                entry("03:12", "opened", "reported", None, "OK to CRITICAL"),
            ],
            notifications: vec![NotificationInfo {
                id: "n-1".into(),
                receiver: "oncall".into(),
                kind: "problem".into(),
                reason: "first_notification".into(),
                state: "accepted".into(),
                created_at: at("03:12"),
                attempts: 2,
                last_error: Some("mx: 451 greylisted".into()),
                provider_id: Some("queued as 17".into()),
                settled_at: Some(at("03:13")),
                in_digest: None,
            }],
        };
        assert_eq!(
            why(&shown, &view()),
            "#4711 CRITICAL web1/disk: /var 96% used\n\
             \x20 open         since 03:12 Sat 21 Nov 2026 UTC (4 min)\n\
             \x20 group        service=disk\n\
             \x20 route        everything > {service=\"disk\"}\n\
             \x20 notified     oncall\n\
             \x20 acknowledged by ada at 03:15:00 until 05:15:00: looking\n\
             \x20 next         step 2: pager in 1 min, unless acknowledged\n\
             \n\
             alerts\n\
             \x20 web1/disk CRITICAL for 4 min: /var 96% used\n\
             \x20   runbook: https://wiki.example/disk\n\
             \n\
             history\n\
             \x20 03:12:00  opened       OK to CRITICAL [reported]\n\
             \x20 03:15:00  acknowledged by ada: looking [by_hand]\n\
             \n\
             notifications\n\
             \x20 03:12:00  oncall: problem accepted at 03:13:00 after 2 attempts, \"queued as 17\", last error: mx: 451 greylisted [first_notification]\n"
        );
    }

    #[test]
    fn nothing_that_a_plugin_says_reaches_the_terminal_as_a_command() {
        let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{202e}x";
        let mut shown = incident();
        shown.title = evil.into();
        shown.alerts[0].summary = evil.into();
        shown.alerts[0].detail = evil.into();
        shown.alerts[0].labels.insert("host".into(), evil.into());
        shown.told = vec![evil.into()];
        shown.route = evil.into();
        let shown =
            Why { incident: shown, route_path: vec![evil.into()], decisions: vec![], notifications: vec![] };
        let text = why(&shown, &view());
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']), "{text:?}");
    }

    #[test]
    fn a_silence_says_how_to_end_it_and_a_dry_run_that_it_did_nothing() {
        let made = Silence {
            number: 3,
            matchers: vec!["host=web1".into()],
            author: "ada".into(),
            comment: "ticket 88".into(),
            starts_at: at("03:16"),
            ends_at: at("05:16"),
            active: true,
            state: "active".into(),
            period: None,
            matches: 2,
            hosts: 1,
            alerts: vec!["CRITICAL web1/disk: 98% full".into()],
            broad: None,
        };
        assert!(silenced(&made, false, &view()).contains("to end it now: alertctl silence end 3"));
        assert_eq!(
            silenced(&made, true, &view()),
            "host=web1 matches 2 firing alerts on 1 host now\n  CRITICAL web1/disk: 98% full\n  and 1 more\n"
        );
        let broad = Silence { broad: Some("it would silence all 2 hosts".into()), ..made.clone() };
        assert!(
            silenced(&broad, true, &view())
                .ends_with("refused without --broad: it would silence all 2 hosts\n")
        );
        let later =
            Silence { starts_at: at("04:00"), state: "pending".into(), active: false, ..made.clone() };
        assert!(silenced(&later, false, &view()).contains("from 04:00 Sat 21 Nov 2026 UTC\n"));
        assert!(silences(&[later], &view()).contains("starts in 44 min"));
        assert!(silences(&[made], &view()).contains("3  active  in 2 h 0 min  ada  2       host=web1\n"));
    }

    fn incident() -> Incident {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
        };
        Incident {
            number: 4711,
            state: State::Critical,
            group: labels(&[("service", "disk")]),
            route: "disks".into(),
            title: "CRITICAL web1/disk: /var 96% used".into(),
            opened_at: at("03:12"),
            resolved_at: None,
            alerts: vec![Alert {
                labels: labels(&[("host", "web1"), ("service", "disk")]),
                annotations: labels(&[("runbook", "https://wiki.example/disk")]),
                state: State::Critical,
                flapping: false,
                summary: "/var 96% used".into(),
                detail: String::new(),
                perfdata: String::new(),
                since: at("03:12"),
                resolved_at: None,
            }],
            ack: None,
            told: vec!["oncall".into()],
            next_step: Some(NextStep { step: 2, targets: vec!["pager".into()], at: at("03:17") }),
            silenced_by: Vec::new(),
            withheld: Vec::new(),
        }
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-11-21T{time}:00Z").parse().unwrap()
    }

    fn view() -> View {
        View { now: at("03:16"), zone: TimeZone::UTC, paint: Paint::Plain }
    }
}
