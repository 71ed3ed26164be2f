//! The text output of `dogwatch dns status`, `why`, `accept`, `top` and `dump`.

use std::{fmt::Write as _, time::Duration};

use dogwatch_daemon::duration::Span;
use dogwatch_dns_core::resolver::{Explanation, Listed, Status};

use crate::serve::control::Acceptance;

/// The status on one screen.
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    if let Some(drill) = &status.drill {
        let (zone, until) = (drill_zone(&drill.zone), drill.until);
        let _ = writeln!(
            text,
            "FIRE DRILL ({}, {zone}) by {} until {until:.0}; to end it, run `dogwatch dns drill --stop`",
            drill.mode, drill.by
        );
    }
    let mib = status.bytes / (1 << 20);
    let _ = writeln!(text, "upstreams {}; {} cached answers, {mib} MiB", status.health, status.names);
    for upstream in &status.upstreams {
        let _ = write!(text, "  {:<24} {:<10}", upstream.address, upstream.state);
        if upstream.zone != "." {
            let _ = write!(text, " zone {}:", upstream.zone);
        }
        let _ = write!(text, " {} of {} queries answered", upstream.answered, upstream.sent);
        if let (Some(why), Some(since)) = (&upstream.why, upstream.since) {
            let _ = write!(text, "; {why} since {since:.0}");
        }
        text.push('\n');
    }
    for sensor in &status.sensors {
        let state = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(sensor.state.min(3))];
        let _ = writeln!(text, "{} {state}: {}", sensor.name, sensor.text);
    }
    text
}

/// All about one name, for `dogwatch dns why`.
pub fn why(why: &Explanation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} {}: {}", why.name, why.kind, why.held);
    for record in &why.records {
        let _ = writeln!(text, "  {record}");
    }
    if let Some(learned) = why.learned {
        let verdict = why.verdict.as_deref().unwrap_or("unknown");
        let _ = writeln!(text, "  cached    {learned:.0} ({verdict}, TTL {})", seconds(why.ttl_s));
        let side = if why.left_s >= 0 { "left of its TTL" } else { "past its TTL" };
        let _ = writeln!(text, "  age       {} {side}", seconds(why.left_s.unsigned_abs()));
    }
    if let Some(until) = why.served_until {
        let _ = writeln!(text, "  served    until {until:.0} if the upstreams fail");
    }
    if let Some(recheck) = why.recheck {
        let _ = writeln!(text, "  refresh   failed; next try after {recheck:.0}");
    }
    if let Some(guard) = &why.guard {
        let _ = writeln!(text, "  held      since {:.0}: {}", guard.since, guard.says);
        if guard.asked > 0 {
            let _ = write!(
                text,
                "  confirmed {} times; the last time by {} of {} upstreams",
                guard.denials, guard.agreed, guard.asked
            );
            text.push_str(if guard.mass { "; many other names are affected\n" } else { "\n" });
        }
        let _ = writeln!(
            text,
            "  until     {:.0} at the latest; if the upstream is right: {}",
            guard.until, guard.end_with
        );
    }
    let kept = match (why.pinned, why.kept_warm) {
        (true, _) => "; pinned: always refreshed, never evicted",
        (false, true) => "; kept warm: refreshed before it expires",
        (false, false) => "",
    };
    let _ = writeln!(text, "  uses      {}{kept}", why.uses);
    let _ = writeln!(text, "  now       {}", why.plan);
    if why.zone != "." {
        let _ = writeln!(text, "  zone      {}", why.zone);
    }
    let _ = writeln!(text, "  upstreams {}", why.upstreams);
    text
}

/// The holds that `dogwatch dns accept` ended.
pub fn accept(done: &Acceptance) -> String {
    let mut text = String::new();
    match done.names.len() + done.more {
        0 => {
            let _ = writeln!(
                text,
                "no single name at or below {} was held; upstream answers are accepted now",
                done.accepted
            );
        }
        held => {
            let _ = writeln!(
                text,
                "{held} no longer held at or below {}; upstream answers are accepted now:",
                done.accepted
            );
        }
    }
    for name in &done.names {
        let _ = writeln!(text, "  {name}");
    }
    if done.more > 0 {
        let _ = writeln!(text, "  … and {} more", done.more);
    }
    let _ = writeln!(text, "the guards ignore these names for the next {}", seconds(done.unguarded_s));
    text
}

/// A table; answers past their TTL are marked `stale`.
pub fn top(listed: &[Listed]) -> String {
    let mut text = String::new();
    if listed.is_empty() {
        return "no matching names in the cache\n".into();
    }
    let width = listed.iter().map(|one| one.name.chars().count()).max().unwrap_or(0).clamp(4, 60);
    let _ = writeln!(
        text,
        "{:>8}  {:<width$}  {:<6}  {:<12}  {:<10}  ANSWER",
        "USES", "NAME", "TYPE", "TTL", "LAST USED"
    );
    for one in listed {
        let last = format!("{} ago", coarse(one.idle_s));
        let _ = writeln!(
            text,
            "{:>8}  {:<width$}  {:<6}  {:<12}  {last:<10}  {}",
            one.uses,
            one.name,
            one.kind,
            age(one.left_s),
            answer(one)
        );
    }
    text
}

/// Zone-file lines; a comment after the semicolon has what that format cannot express.
pub fn dump(listed: &[Listed]) -> String {
    let mut text = String::new();
    for one in listed {
        let (name, kind) = (&one.name, &one.kind);
        let dot = if name == "." { "" } else { "." };
        let ttl = one.left_s.max(0);
        let mut notes = vec![age(one.left_s), format!("uses {}", one.uses)];
        notes.extend(one.dnssec_ok.then(|| "DO".into()));
        notes.extend(one.checking_disabled.then(|| "CD".into()));
        let notes = notes.join(", ");
        if one.records.is_empty() {
            let _ = writeln!(text, "; {name}{dot} {ttl} IN {kind} {} ; {notes}", one.verdict);
        }
        for record in &one.records {
            let _ = writeln!(text, "{name}{dot} {ttl} IN {record} ; {notes}");
        }
    }
    text
}

fn answer(one: &Listed) -> String {
    match one.records.as_slice() {
        [] => one.verdict.clone(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

fn age(left_s: i64) -> String {
    if left_s >= 0 {
        format!("{} left", coarse(left_s.unsigned_abs()))
    } else {
        format!("stale {}", coarse(left_s.unsigned_abs()))
    }
}

/// Rounded to at most two units.
fn coarse(whole: u64) -> Span {
    seconds(match whole {
        0..60 => whole,
        60..86_400 => whole - whole % 60,
        _ => whole - whole % 3_600,
    })
}

fn drill_zone(zone: &str) -> String {
    if zone == "." { "all names".into() } else { format!("names below {zone}") }
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}
