//! `alertctl route test` and `alertctl config diff`: how alerts are routed by the running config or
//! by a new one.
//!
//! A new config is evaluated by the same core that runs in alertd, with the current overrides.

use std::{collections::BTreeMap, fmt::Write, hash::RandomState, path::Path, time::Duration};

use dogwatch_alertd_core::{
    Core, Loaded, OverrideByHand, Rules,
    rules::text::{self, line, plural},
};
use dogwatch_daemon::duration::Span;
use dogwatch_wire::{
    State,
    ctl::{self, AskRoute, AskedAlert, RouteTarget, RouteWay, Routed, Status},
    limits::ROUTED_MAX,
};
use serde::Serialize;

use super::{
    Alertd, Answer, Exit, Failure, config,
    paint::Colour,
    paint::{NAME_CHARS_MAX, TEXT_CHARS_MAX, View},
    pretty,
};

/// Asks the running alertd, or evaluates the named config without alertd.
pub(super) async fn test(
    alertd: &Alertd<'_>,
    labels: BTreeMap<String, String>,
    critical: bool,
    named: Option<&Path>,
    view: &View,
) -> Result<Answer, Failure> {
    let alert = AskedAlert { labels, critical };
    let Some(named) = named else {
        let ask = AskRoute { alerts: vec![alert] };
        return alertd.post("/v1/route-test", &ask, |all: &Vec<Routed>| shown(all, view)).await;
    };
    let rules = match config::rules(named) {
        Ok(rules) => rules,
        Err(problems) => return Ok(config::refused(&problems, alertd.json)),
    };
    let all = vec![core_of(rules, &[], view).routed(&alert, view.now)];
    let text = if alertd.json { pretty(&all) } else { shown(&all, view) };
    Ok(Answer { text, exit: Exit::Done })
}

/// Returns a core with these rules and no alerts.
pub(super) fn core_of(rules: Rules, overrides: &[ctl::Override], view: &View) -> Core {
    let by_hand = overrides.iter().filter_map(|one| {
        Some(OverrideByHand {
            number: one.number?,
            schedule: one.schedule.clone(),
            user: one.user.clone(),
            from: one.from,
            until: one.until,
            author: one.author.clone().unwrap_or_default(),
            comment: String::new(),
        })
    });
    let loaded = Loaded { overrides: by_hand.collect(), ..Loaded::default() };
    Core::new(rules, String::new(), RandomState::new(), loaded, view.now)
}

fn shown(all: &[Routed], view: &View) -> String {
    let mut out = String::new();
    for routed in all {
        for node in &routed.tree {
            let (mark, colour) = match (node.matched, node.takes) {
                (_, true) => ("=>", Colour::Green),
                (true, false) => ("->", Colour::None),
                (false, _) => ("  ", Colour::Dim),
            };
            let indent = "  ".repeat(usize::try_from(node.depth).unwrap_or(0));
            let text = format!("{mark} {indent}{}", line(&node.matchers, TEXT_CHARS_MAX));
            let _ = writeln!(out, "{}", view.paint.text(&text, colour));
        }
        for way in &routed.ways {
            out.push('\n');
            write_way(way, view, &mut out);
        }
        if !routed.silenced_by.is_empty() {
            let numbers: Vec<_> = routed.silenced_by.iter().map(ToString::to_string).collect();
            let text = format!("now silenced by silence {}", numbers.join(", "));
            let _ = writeln!(out, "{}", view.paint.text(&text, Colour::Yellow));
        }
    }
    out
}

fn write_way(way: &RouteWay, view: &View, out: &mut String) {
    let group: Vec<_> = way.group.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let group = if group.is_empty() { "all alerts together".into() } else { group.join(", ") };
    let policy = view.bold(&line(&way.policy, NAME_CHARS_MAX));
    let _ = writeln!(out, "policy {policy}, grouped by {}", line(&group, TEXT_CHARS_MAX));
    let (wait, interval) = (span(way.group_wait_ms), span(way.group_interval_ms));
    let repeat = span(way.repeat_interval_ms);
    let _ = writeln!(out, "  group_wait {wait}, group_interval {interval}, repeat_interval {repeat}");
    for (words, periods) in [("muted during", &way.mute_during), ("active only during", &way.active_during)] {
        if !periods.is_empty() {
            let _ = writeln!(out, "  {words} {}", line(&periods.join(", "), TEXT_CHARS_MAX));
        }
    }
    for text in steps(way) {
        let _ = writeln!(out, "  {text}");
    }
}

/// One text for each step: `+5m primary (ann): ann-mail, +3m ann-pager`.
fn steps(way: &RouteWay) -> Vec<String> {
    let mut texts: Vec<_> = way
        .steps
        .iter()
        .map(|step| {
            let targets: Vec<_> = step.targets.iter().map(target).collect();
            format!("{} {}", after(step.after_ms), targets.join("; "))
        })
        .collect();
    if way.repeat > 0 {
        texts.push(format!("repeated {}", plural(usize::try_from(way.repeat).unwrap_or(usize::MAX), "time")));
    }
    texts
}

fn target(target: &RouteTarget) -> String {
    let name = line(&target.name, NAME_CHARS_MAX);
    let told: Vec<_> = target
        .rules
        .iter()
        .map(|rule| {
            let receivers = line(&rule.receivers.join(", "), TEXT_CHARS_MAX);
            if rule.after_ms == 0 { receivers } else { format!("{} {receivers}", after(rule.after_ms)) }
        })
        .collect();
    let told = told.join(", ");
    match &target.user {
        _ if target.nobody_on_call => format!("{name} (nobody on call, catch_all instead): {told}"),
        Some(user) if *user != target.name => format!("{name} ({}): {told}", line(user, NAME_CHARS_MAX)),
        Some(_) => format!("{name}: {told}"),
        None => name,
    }
}

fn after(millis: u64) -> String {
    if millis == 0 { "immediately".into() } else { format!("+{}", span(millis)) }
}

fn span(millis: u64) -> String {
    Span(Duration::from_millis(millis)).to_string()
}

/// How a new config would change the routing of the alerts firing now.
#[derive(Debug, Serialize)]
struct Diff {
    firing: usize,
    changed: Vec<Changed>,
}

#[derive(Debug, Serialize)]
struct Changed {
    incident: u64,
    labels: BTreeMap<String, String>,
    old: Vec<RouteWay>,
    new: Vec<RouteWay>,
}

pub(super) async fn diff(alertd: &Alertd<'_>, named: &Path, view: &View) -> Result<Answer, Failure> {
    let rules = match config::rules(named) {
        Ok(rules) => rules,
        Err(problems) => return Ok(config::refused(&problems, alertd.json)),
    };
    let status: Status = alertd.read("/v1/status").await?;
    let overrides: Vec<ctl::Override> = alertd.read("/v1/overrides").await?;
    let mut firing = Vec::new();
    for incident in &status.incidents {
        for alert in incident.alerts.iter().filter(|alert| alert.resolved_at.is_none()) {
            let critical = alert.state == State::Critical;
            firing.push((incident.number, AskedAlert { labels: alert.labels.clone(), critical }));
        }
    }
    let new = core_of(rules, &overrides, view);
    let mut changed = Vec::new();
    for part in firing.chunks(ROUTED_MAX) {
        let ask = AskRoute { alerts: part.iter().map(|(_, alert)| alert.clone()).collect() };
        let old: Vec<Routed> = alertd.ask("/v1/route-test", &ask).await?;
        for ((incident, alert), old) in part.iter().zip(old) {
            let new = new.routed(alert, view.now);
            if new.ways != old.ways {
                let labels = alert.labels.clone();
                changed.push(Changed { incident: *incident, labels, old: old.ways, new: new.ways });
            }
        }
    }
    let diff = Diff { firing: firing.len(), changed };
    let text = if alertd.json { pretty(&diff) } else { diff_text(&diff, view) };
    Ok(Answer { text, exit: Exit::Done })
}

fn diff_text(diff: &Diff, view: &View) -> String {
    let mut out = String::new();
    for changed in &diff.changed {
        let name = text::name_of(&changed.labels);
        let _ = writeln!(out, "{} {name}", view.bold(&format!("#{}", changed.incident)));
        for (sign, ways, colour) in [("-", &changed.old, Colour::Red), ("+", &changed.new, Colour::Green)] {
            for way in ways {
                let path = line(&way.path.join(" > "), TEXT_CHARS_MAX);
                let policy = line(&way.policy, NAME_CHARS_MAX);
                let text = format!("  {sign} {path}: policy {policy}; {}", steps(way).join("; "));
                let _ = writeln!(out, "{}", view.paint.text(&text, colour));
            }
        }
    }
    let alerts = plural(diff.firing, "firing alert");
    let _ = match diff.changed.len() {
        0 => writeln!(out, "no change for {alerts}"),
        changed => writeln!(
            out,
            "{changed} of {alerts} would be routed differently; open incidents keep their route and policy"
        ),
    };
    out
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;
    use crate::{config::Config, ctl::paint::Paint};

    const CONFIG: &str = r#"
        [[route]]
        match = ["team=db"]
        policy = "db"
        [[route.route]]
        match = ["service=disk"]
        group_by = ["service"]
        [[route]]
        match = ["team=web"]
        receiver = "local"
        [policy.db]
        repeat = 1
        step = [{ notify = ["primary"] }, { after = "5m", notify = ["boss", "local"] }]
        [schedule.primary]
        time_zone = "UTC"
        [[schedule.primary.layer]]
        users = ["ann"]
        hours = ["02:00-04:00"]
        [user.ann]
        rules = [{ notify = ["mail"] }, { after = "3m", notify = ["local"] }]
        [user.boss]
        rules = [{ notify = ["mail"] }]
        [receiver.mail.maildir]
        path = "/m"
    "#;

    #[test]
    fn a_route_test_shows_the_way_and_the_people() {
        let said = said("2026-11-21T03:00:00Z", &[("team", "db"), ("service", "disk")]);
        let expected = "\
-> everything
->   {team=\"db\"}
=>     {service=\"disk\"}

policy db, grouped by service=disk
  group_wait 500ms, group_interval 1m, repeat_interval 4h
  immediately primary (ann): mail, +3m local
  +5m boss: mail; local
  repeated 1 time
";
        assert_eq!(said, expected);
    }

    #[test]
    fn with_nobody_on_call_it_says_who_is_told_instead() {
        let said = said("2026-11-21T05:00:00Z", &[("team", "db")]);
        assert!(said.contains("=>   {team=\"db\"}\n       {service=\"disk\"}\n\n"), "{said}");
        assert!(said.contains("immediately primary (nobody on call, catch_all instead): local\n"), "{said}");
    }

    fn said(now: &str, labels: &[(&str, &str)]) -> String {
        let view = View { now: now.parse::<Timestamp>().unwrap(), zone: TimeZone::UTC, paint: Paint::Plain };
        let labels = labels.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let rules = Config::rules_of(CONFIG);
        let routed = core_of(rules, &[], &view).routed(&AskedAlert { labels, critical: true }, view.now);
        shown(&[routed], &view)
    }
}
