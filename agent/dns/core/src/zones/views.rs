//! Who answers for a name, before and after a change of zones: `[zone."corp.example"]` is there because its upstreams say
//! something of their own (split horizon), so what other upstreams said of its names is another view, and no longer fresh.
//!
//! The root's upstreams are no view: a network's and the next one's are to say the same, and a host that roams must not ask
//! for every name anew.

use std::collections::BTreeSet;

use crate::{
    message::name,
    zones::zone::{Suffixes, Zone, Zones},
};

/// Who answers for each name, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Views {
    suffixes: Suffixes,
    /// By zone, the root first.
    zones: Vec<View>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) suffix: Box<[u8]>,
    /// As an operator would write them.
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

    /// `None` unless the first is the root's and no zone is named twice.
    pub(crate) fn new(zones: Vec<View>) -> Option<Self> {
        let (root, others) = zones.split_first()?;
        let mut seen = BTreeSet::new();
        let once = zones.iter().all(|view| seen.insert(&*view.suffix));
        if root.suffix.len() != ROOT_LEN || !once {
            return None;
        }
        Some(Self { suffixes: Suffixes::new(others.iter().map(|view| &*view.suffix)), zones })
    }

    /// Whether a name is another view's business now: another zone's, or its zone asks none of the upstreams that it asked.
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

/// A root byte and nothing before it.
const ROOT_LEN: usize = 1;
