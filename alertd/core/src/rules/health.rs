//! The health of alertd, as lines of text and the exit code of a plugin. Pure.
//!
//! | line | WARNING | CRITICAL | stops the ping to the dead man's switch |
//! | --- | --- | --- | --- |
//! | store | | cannot write | after 5 min |
//! | loop | timers are 5 s late | 30 s late | at 30 s |
//! | outbox | oldest waits 2 min, or some wait for a rate limit | 10 min | at 10 min, if no receiver accepted anything for as long |
//! | receivers | | one accepts nothing | |
//! | auditor | | found something | immediately |
//! | agents | one is silent | | |
//! | senders | one is over its quota | | |
//! | on call | nobody at some time in the next 7 days | | |
//! | disk | less than 10 % free | less than 5 % or 64 MiB free | |
//! | dead-man | last ping failed | pings have stopped | |
//! | notice | there is one | | |
//! | damage | | the store was damaged | |

use std::time::Duration;

use dogwatch_wire::{
    State,
    ctl::{Health, HealthCheck},
};
use jiff::{Timestamp, Unit};

use crate::rules::{
    moment::between,
    text::{age, plural},
};

/// What the core knows about itself.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// How long the earliest timer is overdue.
    pub late: Duration,
    /// Pending notifications, those that wait for a rate limit, and the creation time of the oldest
    /// other one.
    pub waiting: usize,
    pub held: usize,
    pub oldest: Option<Timestamp>,
    /// When a receiver last accepted a notification, or the start if none has.
    pub accepted_at: Timestamp,
    /// Receivers that accept nothing, since when, and the last error.
    pub failing: Vec<(String, Timestamp, String)>,
    /// Findings of the auditor, as text.
    pub findings: Vec<String>,
    pub agents: usize,
    /// Hosts whose agents are silent.
    pub silent: Vec<String>,
    /// Future times at which nobody is on call, as text.
    pub gaps: Vec<String>,
    /// Senders over their quota, as text.
    pub refused: Vec<String>,
}

/// What the process outside the core knows.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// The problem with the store, and since when.
    pub store: Option<(String, Timestamp)>,
    /// Rows that are not written yet.
    pub behind: usize,
    /// The largest delay of a timer in the last minutes.
    pub lag: Duration,
    /// Notices for people, for example about a failed reload.
    pub notices: Vec<String>,
    /// What was damaged in the store at the start, or was found later.
    pub damage: Vec<String>,
    pub disk: Option<Disk>,
    /// `None` if no dead man's switch is configured.
    pub ping: Option<PingState>,
}

/// The filesystem of the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    pub size: u64,
}

/// The state of the pings to the dead man's switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingState {
    pub last_good_at: Option<Timestamp>,
    /// The error of the last ping, if it failed.
    pub error: Option<String>,
    /// Why no pings are sent, if they are stopped on purpose.
    pub stopped: Option<String>,
}

/// Observations from outside the loop.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    pub disk: Option<Disk>,
    pub ping: Option<PingState>,
}

const STORE_FAILS_MAX: Duration = Duration::from_mins(5);
const LATE_WARNING: Duration = Duration::from_secs(5);
const LATE_CRITICAL: Duration = Duration::from_secs(30);
const WAITS_WARNING: Duration = Duration::from_mins(2);
const WAITS_CRITICAL: Duration = Duration::from_mins(10);
const FREE_BYTES_LEAST: u64 = 64 << 20;
/// Maximum number of names in a line; others are only counted.
const NAMES_MAX: usize = 5;

/// Returns the health according to both.
pub fn health(vitals: &Vitals, process: &Process, version: &str, now: Timestamp) -> Health {
    let mut checks = vec![
        store(process, now),
        turning(vitals, process),
        outbox(vitals, now),
        receivers(vitals, now),
        auditor(vitals),
        agents(vitals),
        senders(vitals),
        on_call(vitals),
    ];
    checks.extend(process.disk.map(disk));
    checks.extend(process.ping.as_ref().map(|ping| dead_man(ping, now)));
    let notices = process.notices.iter().map(|notice| check("notice", State::Warning, notice.clone()));
    checks.extend(notices);
    let damage = process.damage.iter().map(|words| check("damage", State::Critical, words.clone()));
    checks.extend(damage);
    let state = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    Health { version: version.into(), at: now, state, checks }
}

/// Why pings to the dead man's switch must stop, or `None`.
pub fn stops_ping(health: &Health) -> Option<String> {
    let reasons: Vec<_> =
        health.checks.iter().filter(|check| check.stops_ping).map(|check| check.text.as_str()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn check(name: &str, state: State, text: String) -> HealthCheck {
    HealthCheck { name: name.into(), state, text, stops_ping: false }
}

fn clock(at: Timestamp) -> Timestamp {
    at.round(Unit::Second).unwrap_or(at)
}

fn store(process: &Process, now: Timestamp) -> HealthCheck {
    let Some((trouble, since)) = &process.store else {
        return check("store", State::Ok, "all changes are on disk".into());
    };
    let text = format!(
        "cannot write for {}: {trouble}; {} only in memory",
        age(*since, now),
        plural(process.behind, "row")
    );
    HealthCheck {
        stops_ping: between(*since, now) >= STORE_FAILS_MAX,
        ..check("store", State::Critical, text)
    }
}

fn turning(vitals: &Vitals, process: &Process) -> HealthCheck {
    let late = vitals.late.max(process.lag);
    let text = format!("timers are {:.1} s late", late.as_secs_f64());
    let state = match late {
        late if late >= LATE_CRITICAL => State::Critical,
        late if late >= LATE_WARNING => State::Warning,
        _ => State::Ok,
    };
    HealthCheck { stops_ping: state == State::Critical, ..check("loop", state, text) }
}

fn outbox(vitals: &Vitals, now: Timestamp) -> HealthCheck {
    let Some(oldest) = vitals.oldest else {
        let text = match vitals.held {
            0 => "no notifications waiting".into(),
            held => format!("{} for a rate limit; they will be sent as a digest", wait(held)),
        };
        return check("outbox", if vitals.held > 0 { State::Warning } else { State::Ok }, text);
    };
    let waits = between(oldest, now);
    let state = match waits {
        waits if waits >= WAITS_CRITICAL => State::Critical,
        waits if waits >= WAITS_WARNING => State::Warning,
        _ if vitals.held > 0 => State::Warning,
        _ => State::Ok,
    };
    let held = if vitals.held > 0 { format!(", {} for a rate limit", vitals.held) } else { String::new() };
    let text = format!("{}{held}, oldest for {}", wait(vitals.waiting), age(oldest, now));
    let nobody_takes = between(vitals.accepted_at, now) >= WAITS_CRITICAL;
    HealthCheck { stops_ping: state == State::Critical && nobody_takes, ..check("outbox", state, text) }
}

fn wait(n: usize) -> String {
    format!("{} waiting", plural(n, "notification"))
}

fn receivers(vitals: &Vitals, now: Timestamp) -> HealthCheck {
    let shown: Vec<_> = vitals.failing.iter().take(NAMES_MAX).collect();
    let words: Vec<_> = shown
        .iter()
        .map(|(name, since, error)| format!("{name} has accepted nothing for {}: {error}", age(*since, now)))
        .collect();
    match vitals.failing.len() - shown.len() {
        _ if shown.is_empty() => check("receivers", State::Ok, "no receiver is failing".into()),
        0 => check("receivers", State::Critical, words.join("; ")),
        more => check("receivers", State::Critical, format!("{}; and {more} more", words.join("; "))),
    }
}

fn auditor(vitals: &Vitals) -> HealthCheck {
    if vitals.findings.is_empty() {
        return check("auditor", State::Ok, "no problems found".into());
    }
    HealthCheck { stops_ping: true, ..check("auditor", State::Critical, vitals.findings.join("; ")) }
}

fn agents(vitals: &Vitals) -> HealthCheck {
    let (all, silent) = (plural(vitals.agents, "agent"), vitals.silent.len());
    if silent == 0 {
        return check("agents", State::Ok, format!("{all}, none silent"));
    }
    let names = vitals.silent.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if silent > NAMES_MAX { format!(" and {} more", silent - NAMES_MAX) } else { String::new() };
    check("agents", State::Warning, format!("{silent} of {all} silent: {names}{more}"))
}

fn senders(vitals: &Vitals) -> HealthCheck {
    if vitals.refused.is_empty() {
        return check("senders", State::Ok, "no sender is over its quota".into());
    }
    check("senders", State::Warning, vitals.refused.join("; "))
}

fn on_call(vitals: &Vitals) -> HealthCheck {
    match vitals.gaps.first() {
        None => check("on call", State::Ok, "no gaps in the next 7 days".into()),
        Some(first) => check("on call", State::Warning, first.clone()),
    }
}

fn disk(disk: Disk) -> HealthCheck {
    let percent = disk.free.saturating_mul(100) / disk.size.max(1);
    let text = format!("{} MiB free of {} MiB ({percent} %)", disk.free >> 20, disk.size >> 20);
    let state = match percent {
        _ if disk.free < FREE_BYTES_LEAST => State::Critical,
        0..5 => State::Critical,
        5..10 => State::Warning,
        _ => State::Ok,
    };
    check("disk", state, text)
}

fn dead_man(ping: &PingState, now: Timestamp) -> HealthCheck {
    let last = match ping.last_good_at {
        Some(at) => format!("last one {} ago ({})", age(at, now), clock(at)),
        None => "none has arrived yet".into(),
    };
    match (&ping.stopped, &ping.error) {
        (Some(why), _) => check("dead-man", State::Critical, format!("pings have stopped: {why}; {last}")),
        (None, Some(error)) => {
            check("dead-man", State::Warning, format!("last ping failed: {error}; {last}"))
        }
        (None, None) => check("dead-man", State::Ok, format!("pings arrive; {last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000_000).unwrap()
    }

    fn ago(seconds: u64) -> Timestamp {
        now().checked_sub(Duration::from_secs(seconds)).unwrap()
    }

    fn said(vitals: &Vitals, process: &Process, name: &str) -> (State, bool, String) {
        let health = health(vitals, process, "1", now());
        let found = health.checks.into_iter().find(|check| check.name == name).unwrap();
        (found.state, found.stops_ping, found.text)
    }

    fn well() -> Vitals {
        Vitals { accepted_at: ago(5), agents: 3, ..Vitals::default() }
    }

    #[test]
    fn all_well_is_ok_and_pings() {
        let health = health(&well(), &Process::default(), "1", now());
        assert!(health.checks.iter().all(|check| check.state == State::Ok), "{health:?}");
        assert_eq!((health.state, stops_ping(&health)), (State::Ok, None));
    }

    #[test]
    fn a_store_that_fails_stops_the_ping_when_it_lasts() {
        for (seconds, stops) in [(299, false), (300, true)] {
            let process =
                Process { store: Some(("disk full".into(), ago(seconds))), behind: 7, ..Process::default() };
            let (state, stopped, text) = said(&well(), &process, "store");
            assert_eq!((state, stopped), (State::Critical, stops));
            assert!(text.contains("disk full; 7 rows only in memory"), "{text}");
        }
    }

    #[test]
    fn late_timers_count_whether_they_came_or_are_still_to_come() {
        for (late, lag, state, stops) in [
            (0, 4, State::Ok, false),
            (5, 0, State::Warning, false),
            (0, 30, State::Critical, true),
            (31, 0, State::Critical, true),
        ] {
            let vitals = Vitals { late: Duration::from_secs(late), ..well() };
            let process = Process { lag: Duration::from_secs(lag), ..Process::default() };
            let (is, stopped, _) = said(&vitals, &process, "loop");
            assert_eq!((is, stopped), (state, stops), "{late} {lag}");
        }
    }

    #[test]
    fn what_waits_stops_the_ping_only_if_nobody_takes_anything() {
        for (waits, accepted, state, stops) in [
            (10, 5, State::Ok, false),
            (120, 5, State::Warning, false),
            (600, 5, State::Critical, false),
            (600, 600, State::Critical, true),
            (599, 900, State::Warning, false),
        ] {
            let vitals =
                Vitals { waiting: 3, oldest: Some(ago(waits)), accepted_at: ago(accepted), ..well() };
            let (is, stopped, _) = said(&vitals, &Process::default(), "outbox");
            assert_eq!((is, stopped), (state, stops), "{waits} {accepted}");
        }
        // An alert storm delayed by a rate limit is not a fault.
        let vitals = Vitals { waiting: 400, held: 400, accepted_at: ago(9_000), ..well() };
        assert_eq!(
            said(&vitals, &Process::default(), "outbox"),
            (
                State::Warning,
                false,
                "400 notifications waiting for a rate limit; they will be sent as a digest".into()
            )
        );
    }

    #[test]
    fn each_line_says_what_is_wrong() {
        let vitals = Vitals {
            failing: vec![("pager".into(), ago(240), "503".into())],
            findings: vec!["a timer is overdue: since 02:12".into()],
            silent: (1..=7).map(|n| format!("web{n}")).collect(),
            gaps: vec!["nobody is on call in schedule primary".into()],
            agents: 9,
            ..well()
        };
        let disk = Some(Disk { free: 90 << 20, size: 1_000 << 20 });
        let stopped =
            Some(PingState { stopped: Some("cannot write to the store".into()), ..PingState::default() });
        let process =
            Process { disk, ping: stopped, notices: vec!["reload failed".into()], ..Process::default() };
        let said = |name| said(&vitals, &process, name);
        assert_eq!(
            said("receivers"),
            (State::Critical, false, "pager has accepted nothing for 4 min: 503".into())
        );
        assert_eq!(said("auditor"), (State::Critical, true, "a timer is overdue: since 02:12".into()));
        assert_eq!(said("agents").2, "7 of 9 agents silent: web1, web2, web3, web4, web5 and 2 more");
        assert_eq!(said("on call").0, State::Warning);
        assert_eq!(said("disk"), (State::Warning, false, "90 MiB free of 1000 MiB (9 %)".into()));
        assert_eq!(said("dead-man").2, "pings have stopped: cannot write to the store; none has arrived yet");
        assert_eq!(said("notice").2, "reload failed");
    }

    #[test]
    fn a_disk_without_room_for_the_store_is_critical_however_large_it_is() {
        let small = Process { disk: Some(Disk { free: 63 << 20, size: 100 << 20 }), ..Process::default() };
        assert_eq!(said(&well(), &small, "disk").0, State::Critical);
        let large = Process { disk: Some(Disk { free: 4 << 30, size: 100 << 30 }), ..Process::default() };
        assert_eq!(said(&well(), &large, "disk").0, State::Critical);
    }

    #[test]
    fn a_ping_that_fails_warns_and_says_when_the_last_arrived() {
        let ping = PingState { last_good_at: Some(ago(130)), error: Some("timed out".into()), stopped: None };
        let process = Process { ping: Some(ping), ..Process::default() };
        let (state, stops, text) = said(&well(), &process, "dead-man");
        assert_eq!((state, stops), (State::Warning, false));
        assert!(text.starts_with("last ping failed: timed out; last one 2 min ago"), "{text}");
    }
}
