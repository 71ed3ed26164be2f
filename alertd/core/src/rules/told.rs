//! The ledger: what each receiver was last told of an incident, and what is news to it.
//!
//! Only words that a receiver took are entered. A recovery goes to exactly those in the ledger, whatever was silenced,
//! acked or routed elsewhere since.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    alert::{AlertKey, Claim},
    reason::Reason,
};

/// What is firing, as told or as true.
pub type Claims = BTreeMap<AlertKey, Claim>;

/// One receiver's entry for one incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Which alerts it believes to fire.
    pub knows: Vec<(AlertKey, Claim)>,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Some of it by a message of its own, not by a digest alone.
    #[serde(default)]
    pub alone: bool,
}

/// What one notification says; becomes part of the ledger once it is accepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Says {
    pub firing: Vec<(AlertKey, Claim)>,
    pub resolved: BTreeSet<AlertKey>,
}

impl Says {
    /// What somebody who knew `knows` knows after hearing it.
    pub fn add_to(&self, knows: &mut Claims) {
        knows.extend(self.firing.iter().cloned());
        knows.retain(|key, _| !self.resolved.contains(key));
    }
}

/// How the truth differs from what somebody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The weightiest difference.
    pub reason: Reason,
    /// Known to fire, and over.
    pub resolved: BTreeSet<AlertKey>,
}

/// Compares what is known with the truth; `None` if nothing is new.
///
/// `visible` fires and is not silenced; `firing` fires. What is silenced is neither news nor over.
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

    /// `a` warns, `A` is critical.
    fn claims(letters: &str) -> Claims {
        let one = |letter: char| {
            let key = AlertKey::new("x", letter.to_ascii_lowercase());
            (key, if letter.is_ascii_uppercase() { Claim::Critical } else { Claim::Warning })
        };
        letters.chars().map(one).collect()
    }

    #[test]
    fn only_a_difference_is_news_and_the_weightiest_names_it() {
        for (knows, visible, firing, reason, resolved) in [
            ("", "", "", None, ""),
            ("ab", "ab", "ab", None, ""),
            ("a", "ab", "ab", Some(Reason::NewAlerts), ""),
            ("ac", "AB", "AB", Some(Reason::NewAlerts), "c"),
            ("ac", "A", "A", Some(Reason::Worsened), "c"),
            ("Ac", "a", "a", Some(Reason::Eased), "c"),
            ("ac", "a", "a", Some(Reason::SomeResolved), "c"),
            ("ac", "a", "ac", None, ""), // c is silenced: neither news nor over
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
    fn what_was_heard_adds_up() {
        let mut knows = claims("ab");
        let says =
            Says { firing: claims("Ac").into_iter().collect(), resolved: claims("b").into_keys().collect() };
        says.add_to(&mut knows);
        assert_eq!(knows, claims("Ac"));
    }
}
