//! Recent changes on a host, shown in notifications because they often explain a problem. Pure.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use dogwatch_wire::HostChange;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::moment::between;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    pub at: Timestamp,
    /// `None` for a change to the host itself.
    pub service: Option<String>,
    /// For a service: `CRITICAL`, `OK`, `flapping`, `no longer watched`. For the host: what its
    /// agent reports, such as `booted`.
    pub what: String,
}

/// The last changes of one host, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lately(VecDeque<Happened>);

/// Changes kept per host.
const KEPT: usize = 12;
/// Changes kept per service, so that a flapping service does not displace the others.
const KEPT_OF_ONE: usize = 2;
/// How long a change stays interesting.
const MEMORY: Duration = Duration::from_hours(1);
/// Changes of services in one notification.
const SHOWN: usize = 3;
/// How long a change to the host stays interesting, because its effects may show a night later.
const HOST_MEMORY: Duration = Duration::from_hours(24);
const HOST_SHOWN: usize = 2;

impl Lately {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn note(&mut self, happened: Happened) {
        let of_it: Vec<_> = (0..self.0.len()).filter(|&at| self.0[at].service == happened.service).collect();
        if of_it.len() >= KEPT_OF_ONE
            && let Some(&oldest) = of_it.first()
        {
            self.0.remove(oldest);
        } else if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(happened);
    }

    /// The newest changes that the notification is not about, and the newest changes to the host,
    /// newest first.
    pub fn beside(
        &self,
        speaks_of: impl Fn(&str) -> bool,
        done: &[HostChange],
        now: Timestamp,
    ) -> Vec<Happened> {
        let services = self.0.iter().rev().filter(|happened| between(happened.at, now) <= MEMORY);
        let services = services.filter(|happened| !happened.service.as_deref().is_some_and(&speaks_of));
        let host = done.iter().filter(|change| between(change.at, now) <= HOST_MEMORY);
        let host = host.map(|change| Happened { at: change.at, service: None, what: change.what.clone() });
        let mut shown: Vec<_> = services.take(SHOWN).cloned().chain(host.take(HOST_SHOWN)).collect();
        shown.sort_by_key(|happened| Reverse(happened.at));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::moment::later;

    fn at(minute: u64) -> Timestamp {
        later(Timestamp::UNIX_EPOCH, Duration::from_mins(minute))
    }

    fn lately(changes: &[(&str, &str, u64)]) -> Lately {
        let mut lately = Lately::default();
        for (service, state, minute) in changes {
            let service = Some((*service).into());
            lately.note(Happened { at: at(*minute), service, what: (*state).into() });
        }
        lately
    }

    fn shown(lately: &Lately, beside: &str, minute: u64) -> String {
        let booted = HostChange { at: at(57), what: "booted".into() };
        let shown = lately.beside(|service| service == beside, &[booted], at(minute));
        let word = |one: &Happened| format!("{} {}", one.service.as_deref().unwrap_or("host"), one.what);
        shown.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn recent_changes_are_shown_except_the_messages_own_and_old_ones() {
        let changes =
            [("ntp", "WARNING", 1), ("disk", "CRITICAL", 50), ("load", "CRITICAL", 55), ("load", "OK", 58)];
        let lately = lately(&changes);
        assert_eq!(shown(&lately, "disk", 60), "load OK, host booted, load CRITICAL, ntp WARNING");
        assert_eq!(shown(&lately, "disk", 62), "load OK, host booted, load CRITICAL");
        assert_eq!(shown(&lately, "load", 62), "host booted, disk CRITICAL");
        assert_eq!(shown(&lately, "load", 200), "host booted");
        assert_eq!(shown(&lately, "load", 25 * 60), "");
    }

    #[test]
    fn a_flapping_service_pushes_out_only_its_own_changes_and_memory_is_bounded() {
        let mut changes = vec![("ntp", "WARNING", 1)];
        changes.extend(
            (0..50).map(|minute| ("load", if minute % 2 == 0 { "CRITICAL" } else { "OK" }, 2 + minute)),
        );
        assert_eq!(shown(&lately(&changes), "", 57), "host booted, load OK, load CRITICAL, ntp WARNING");
        let names: Vec<_> = (0..40).map(|number| format!("check{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "CRITICAL", 1)).collect();
        assert_eq!(lately(&many).0.len(), KEPT);
    }
}
