//! Converts the agent's types into those of the protocol with alertd. The only place that knows
//! both.

pub mod client;
pub mod outbox;
pub mod spool;

use std::collections::BTreeMap;

use dogwatch_checks::State;
use dogwatch_wire::{self as wire, EventKind, ServiceState, limits};
use jiff::Timestamp;

use crate::{
    service::{Announced, Said, Transition},
    status::Problem,
};

/// Name, labels and annotations of a service, from the config.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// What tells this process from others that report with the same id.
#[derive(Debug, Clone)]
pub struct Process {
    pub run: String,
    /// Empty if the kernel does not say.
    pub boot: String,
}

impl Process {
    pub fn new(random: u64) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let is_id = |text: &str| text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let boot = Some(boot.trim()).filter(|text| is_id(text)).unwrap_or_default().to_owned();
        Self { run: format!("{random:016x}"), boot }
    }
}

/// The event for a transition.
pub fn transition(about: About<'_>, transition: &Transition) -> EventKind {
    EventKind::Transition(wire::Transition {
        from: transition.from,
        now: service_state(about, Some(&transition.now), transition.now.since),
    })
}

/// The hard state of a service for alertd. A service without an announcement is OK since `started`.
pub fn service_state(about: About<'_>, announced: Option<&Announced>, started: Timestamp) -> ServiceState {
    let said = announced.map(|announced| announced.said.clone()).unwrap_or_default();
    ServiceState {
        service: about.name.to_owned(),
        state: announced.map_or(State::Ok, Announced::state),
        since: announced.map_or(started, |announced| announced.since),
        flapping: announced.is_some_and(|announced| announced.flapping),
        summary: cut(said.summary, limits::SUMMARY_BYTES_MAX),
        detail: cut(said.detail, limits::DETAIL_BYTES_MAX),
        perfdata: cut(said.perfdata, limits::DETAIL_BYTES_MAX),
        labels: about.labels.clone(),
        annotations: about.annotations.clone(),
    }
}

/// Makes all states fit into one body. First the details go, then the ends of long summaries.
pub fn fit(states: &mut [ServiceState]) {
    let size = |states: &[ServiceState]| serde_json::to_vec(states).map_or(0, |json| json.len());
    if size(states) <= STATES_BYTES_MAX {
        return;
    }
    for state in states.iter_mut() {
        state.detail.clear();
        state.perfdata.clear();
    }
    for summary_bytes in [256, 64, 0] {
        if size(states) <= STATES_BYTES_MAX {
            return;
        }
        for state in states.iter_mut() {
            state.summary = cut(std::mem::take(&mut state.summary), summary_bytes);
        }
    }
    if size(states) > STATES_BYTES_MAX {
        for state in states.iter_mut() {
            state.annotations.clear();
        }
    }
}

/// An event from the spool in the agent's types.
pub enum Replayed {
    Announced { service: String, announced: Announced },
    Removed { service: String },
}

pub fn replayed(kind: &EventKind) -> Replayed {
    match kind {
        EventKind::Removed { service } => Replayed::Removed { service: service.clone() },
        EventKind::Transition(transition) => {
            let now = transition.now.clone();
            let said = Said { summary: now.summary, detail: now.detail, perfdata: now.perfdata };
            let problem = Problem::of(now.state);
            let announced = Announced { problem, since: now.since, flapping: now.flapping, said };
            Replayed::Announced { service: now.service, announced }
        }
    }
}

/// Leaves room for the envelope.
const STATES_BYTES_MAX: usize = limits::BODY_BYTES_MAX - 64 * 1_024;

/// Cuts at a character boundary and marks the cut with `…`.
pub fn cut(mut text: String, bytes_max: usize) -> String {
    const MARK: char = '…';
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(MARK.len_utf8())));
        if bytes_max >= MARK.len_utf8() {
            text.push(MARK);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character_boundary() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abcdef".into(), 5), "ab…");
        assert_eq!(cut("äöüäöü".into(), 8), "äö…");
        assert_eq!(cut("äöü".into(), 0), "");
        assert!(cut("€".repeat(1_000), limits::SUMMARY_BYTES_MAX).len() <= limits::SUMMARY_BYTES_MAX);
    }

    #[test]
    fn the_largest_number_of_states_fits_into_one_body() {
        let name = "n".repeat(100);
        let labels = [("env".to_owned(), "production".to_owned())].into();
        let annotations = [("note".to_owned(), "x".repeat(1_024))].into();
        let about = About { name: &name, labels: &labels, annotations: &annotations };
        let said =
            Said { summary: "s".repeat(2_000), detail: "d".repeat(9_000), perfdata: "p".repeat(9_000) };
        let announced = Announced {
            problem: Some(Problem::Critical),
            since: Timestamp::UNIX_EPOCH,
            flapping: false,
            said,
        };
        let state = service_state(about, Some(&announced), Timestamp::UNIX_EPOCH);
        let mut few = vec![state.clone(); 5];
        fit(&mut few);
        assert!(few.iter().all(|state| state.detail.len() == limits::DETAIL_BYTES_MAX), "nothing lost");
        let mut many = vec![state; limits::STATES_MAX];
        fit(&mut many);
        assert!(serde_json::to_vec(&many).unwrap().len() <= STATES_BYTES_MAX);
    }

    #[test]
    fn a_spooled_announcement_reads_back_unchanged() {
        let (labels, annotations) = (BTreeMap::new(), BTreeMap::new());
        let about = About { name: "disk", labels: &labels, annotations: &annotations };
        for problem in [None, Some(Problem::Warning), Some(Problem::Critical), Some(Problem::Unknown)] {
            let said = Said { summary: "s".into(), detail: "d".into(), perfdata: "p=1".into() };
            let now = Announced { problem, since: Timestamp::UNIX_EPOCH, flapping: true, said };
            let event = transition(about, &Transition { from: State::Ok, now: now.clone() });
            let Replayed::Announced { service, announced } = replayed(&event) else { panic!("not removed") };
            assert_eq!((service.as_str(), announced), ("disk", now));
        }
    }
}
