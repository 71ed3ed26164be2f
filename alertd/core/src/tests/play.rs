//! Timelines: what happened and what each receiver got, as lines of cells that align.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::ctl;

use crate::{
    rules::{moment::later, notification::Kind},
    testing::{Mood, World},
};

/// Plays `inputs` step by step and compares the notifications of each receiver with `expected`.
/// Both are lines of cells separated by spaces, one cell per step; `.` is nothing.
///
/// | row | cells |
/// | --- | --- |
/// | `host/service` | see [`World::report`] |
/// | `ack` | `n` normal, `s` sticky, `e3` expires after 3 steps, `u` unack; of the newest incident |
/// | `silence MATCHER` | `(` from here, `)` until here |
/// | `receiver NAME` | from here on, `w` works, `b` busy, `r` rejects |
/// | `host NAME` | the agent becomes silent (`q`) or is back (`h`) |
/// | `process` | `!` SIGKILL and restart |
///
/// Notifications: Problem, Update, reMinder, Recovery, Acknowledged, Digest.
pub(crate) fn play(
    config: &str,
    step: Duration,
    inputs: &[(&str, &str)],
    expected: &[(&str, &str)],
) -> World {
    let mut world = World::new(config, 1);
    let rows: Vec<(&str, Vec<&str>)> =
        inputs.iter().map(|(name, line)| (*name, line.split_whitespace().collect())).collect();
    let steps = rows.iter().map(|(_, cells)| cells.len()).max().unwrap();
    let mut heard: BTreeMap<&str, Vec<String>> =
        expected.iter().map(|(receiver, _)| (*receiver, Vec::new())).collect();
    for at in 0..steps {
        let before = world.heard.len();
        for (name, cells) in &rows {
            if let Some(cell) = cells.get(at).filter(|cell| **cell != ".") {
                apply(&mut world, name, cell, step);
            }
        }
        world.agents_send(None);
        world.turn(None);
        world.pass(step.saturating_sub(Duration::from_millis(1)));
        world.now = later(world.now, Duration::from_millis(1));
        for (receiver, line) in &mut heard {
            let said: String = world.heard[before..]
                .iter()
                .filter(|heard| heard.notification.receiver == *receiver)
                .map(|heard| letter(heard.notification.kind))
                .collect();
            line.push(if said.is_empty() { ".".into() } else { said });
        }
    }
    for (receiver, line) in expected {
        let line: Vec<_> = line.split_whitespace().collect();
        let decisions: Vec<_> =
            world.attempted.iter().map(|n| format!("{} {:?} {}", n.receiver, n.kind, n.reason)).collect();
        assert_eq!(
            heard[receiver].join(" "),
            line.join(" "),
            "notifications of {receiver}; decisions: {decisions:#?}"
        );
    }
    world
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Problem => 'P',
        Kind::Update => 'U',
        Kind::Reminder => 'M',
        Kind::Recovery => 'R',
        Kind::Acknowledged => 'A',
        Kind::Digest => 'D',
        Kind::Test => 'T',
    }
}

fn apply(world: &mut World, row: &str, cell: &str, step: Duration) {
    let now = world.now;
    match row.split_once(' ') {
        Some(("silence", matcher)) if cell == "(" => {
            let ask = ctl::NewSilence {
                matchers: vec![matcher.into()],
                duration_s: 86_400,
                ..ctl::NewSilence::default()
            };
            world.core.on_silence(&ask, "eva", now).unwrap();
        }
        Some(("silence", _)) => {
            let number = world.core.silences(now)[0].number;
            world.core.on_silence_end(number, "eva", now).unwrap();
        }
        Some(("receiver", name)) => {
            let mood = match cell {
                "b" => Mood::Busy,
                "r" => Mood::Rejects,
                _ => Mood::Works,
            };
            world.moods.insert(name.into(), mood);
        }
        Some(("host", name)) => world.hosts.entry(name.into()).or_default().quiet = cell == "q",
        _ if row == "process" => drop(world.restart()),
        _ if row == "ack" => ack(world, cell, step),
        _ => {
            let (host, service) = row.split_once('/').unwrap();
            world.report(host, service, cell.chars().next().unwrap());
        }
    }
}

fn ack(world: &mut World, cell: &str, step: Duration) {
    let number = world.open_incidents().iter().map(|incident| incident.number).max().unwrap();
    if cell == "u" {
        world.core.on_unack(number, &ctl::Unack::default(), "eva", world.now).unwrap();
        return;
    }
    let steps = cell.strip_prefix('e').map(|steps| steps.parse::<u64>().unwrap());
    let expire_s = steps.map(|steps| steps * step.as_secs());
    let ask = ctl::Ack { comment: String::new(), sticky: cell == "s", expire_s };
    world.core.on_ack(number, &ask, "eva", world.now).unwrap();
}
