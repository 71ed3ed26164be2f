//! What each receiver knows about an incident, and what is new to it.
//!
//! Only accepted notifications count. A recovery goes to exactly the receivers that know of the
//! problem, whatever was silenced, acknowledged or routed differently since.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    alert::{AlertKey, Claim},
    reason::Reason,
};

/// The firing alerts: those a receiver knows, or the actual ones.
pub type Claims = BTreeMap<AlertKey, Claim>;

/// What one receiver knows about one incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The alerts that it knows to be firing.
    pub knows: Vec<(AlertKey, Claim)>,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Whether it knows some of them from a separate notification, not only from a digest.
    #[serde(default)]
    pub alone: bool,
}

/// The content of one notification, which the receiver knows when it is accepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Says {
    pub firing: Vec<(AlertKey, Claim)>,
    pub resolved: BTreeSet<AlertKey>,
}

impl Says {
    /// An alert has another key. Returns true if this is about the alert.
    pub fn rekey(&mut self, old: &AlertKey, new: &AlertKey) -> bool {
        let mut changed = self.resolved.remove(old);
        if changed {
            self.resolved.insert(new.clone());
        }
        for (key, _) in self.firing.iter_mut().filter(|(key, _)| key == old) {
            key.clone_from(new);
            changed = true;
        }
        changed
    }

    /// What a receiver that knew `knows` knows after this notification.
    pub fn add_to(&self, knows: &mut Claims) {
        knows.extend(self.firing.iter().cloned());
        knows.retain(|key, _| !self.resolved.contains(key));
    }
}

/// How the actual state differs from what a receiver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The most important difference.
    pub reason: Reason,
    /// Alerts known to be firing that are resolved.
    pub resolved: BTreeSet<AlertKey>,
}

/// Compares what a receiver knows with the actual state; `None` if nothing is new.
///
/// `firing` contains all firing alerts, `visible` those that are not suppressed. A suppressed alert
/// is neither new nor resolved.
pub fn news(knows: &Claims, visible: &Claims, firing: &Claims) -> Option<News> {
    let resolved: BTreeSet<_> = knows.keys().filter(|key| !firing.contains_key(key)).cloned().collect();
    let (mut new, mut worse, mut eased) = (false, false, false);
    for (key, claim) in visible {
        match knows.get(key) {
            None => new = true,
            Some(old) if claim > old => worse = true,
            Some(old) if claim < old => eased = true,
            Some(_) => {}
        }
    }
    let reason = if new {
        Reason::NewAlerts
    } else if worse {
        Reason::Worsened
    } else if eased {
        Reason::Eased
    } else if !resolved.is_empty() {
        Reason::SomeResolved
    } else {
        return None;
    };
    Some(News { reason, resolved })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` is a warning, `A` is critical.
    fn claims(letters: &str) -> Claims {
        let one = |letter: char| {
            let key = AlertKey::new("x", letter.to_ascii_lowercase());
            (key, if letter.is_ascii_uppercase() { Claim::Critical } else { Claim::Warning })
        };
        letters.chars().map(one).collect()
    }

    #[test]
    fn only_differences_are_news_and_the_most_important_is_the_reason() {
        for (knows, visible, firing, reason, resolved) in [
            ("", "", "", None, ""),
            ("ab", "ab", "ab", None, ""),
            ("a", "ab", "ab", Some(Reason::NewAlerts), ""),
            ("ac", "AB", "AB", Some(Reason::NewAlerts), "c"),
            ("ac", "A", "A", Some(Reason::Worsened), "c"),
            ("Ac", "a", "a", Some(Reason::Eased), "c"),
            ("ac", "a", "a", Some(Reason::SomeResolved), "c"),
            ("ac", "a", "ac", None, ""), // c is suppressed: neither new nor resolved
            ("a", "", "A", None, ""),
            ("a", "", "", Some(Reason::SomeResolved), "a"),
        ] {
            let expected =
                reason.map(|reason| News { reason, resolved: claims(resolved).into_keys().collect() });
            let case = format!("knows {knows:?}, sees {visible:?}, true {firing:?}");
            assert_eq!(news(&claims(knows), &claims(visible), &claims(firing)), expected, "{case}");
        }
    }

    #[test]
    fn notifications_add_up() {
        let mut knows = claims("ab");
        let says =
            Says { firing: claims("Ac").into_iter().collect(), resolved: claims("b").into_keys().collect() };
        says.add_to(&mut knows);
        assert_eq!(knows, claims("Ac"));
    }
}
