//! Which upstreams answer for a name, before and after zones change. A zone such as
//! `[zone."corp.example"]` exists because its upstreams give different answers (split horizon).
//! Answers from other upstreams for its names are therefore another view, and no longer fresh.
//!
//! The root zone's upstreams are not a view. Those of one network and of the next should give the
//! same answers, and a roaming host must not have to ask for every name again.

use std::collections::BTreeSet;

use crate::{
    message::name,
    zones::zone::{Suffixes, Zone, Zones},
};

/// Which upstreams answer for each name, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Views {
    suffixes: Suffixes,
    /// By zone, the root first.
    zones: Vec<View>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) suffix: Box<[u8]>,
    /// As written in the config.
    pub(crate) upstreams: Vec<String>,
}

impl Views {
    pub(crate) fn of(zones: &Zones) -> Self {
        let view = |zone: &Zone| View {
            suffix: zone.settings().suffix.clone(),
            upstreams: zone.settings().upstreams.iter().map(ToString::to_string).collect(),
        };
        Self { suffixes: zones.suffixes().clone(), zones: zones.iter().map(view).collect() }
    }

    /// `None` unless the first zone is the root and no zone appears twice.
    pub(crate) fn new(zones: Vec<View>) -> Option<Self> {
        let (root, others) = zones.split_first()?;
        let mut seen = BTreeSet::new();
        let once = zones.iter().all(|view| seen.insert(&*view.suffix));
        if root.suffix.len() != ROOT_LEN || !once {
            return None;
        }
        Some(Self { suffixes: Suffixes::new(others.iter().map(|view| &*view.suffix)), zones })
    }

    /// Whether a name is in another view now: it belongs to another zone, or its zone asks none of
    /// the former upstreams.
    pub(crate) fn differ(&self, now: &Self, key: &[u8]) -> bool {
        let name = name::name_of(key);
        let (Some(before), Some(after)) = (self.view(name), now.view(name)) else { return true };
        before.suffix != after.suffix
            || (before.suffix.len() > ROOT_LEN
                && !before.upstreams.iter().any(|upstream| after.upstreams.contains(upstream)))
    }

    fn view(&self, name: &[u8]) -> Option<&View> {
        self.zones.get(self.suffixes.of(name).place())
    }

    /// The suffixes that had no zone before.
    pub(crate) fn added<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a [u8]> {
        let known = |suffix: &[u8]| before.zones.iter().any(|view| *view.suffix == *suffix);
        self.zones.iter().map(|view| &*view.suffix).filter(move |suffix| !known(suffix))
    }
}

/// The root name is a single zero byte.
const ROOT_LEN: usize = 1;
