//! The key of an alert.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::RandomState,
    ops::Deref,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The key of an alert: agent, then service. Keys that start with `@` are internal; no agent can
/// use them. A key is in many tables, so its text is stored once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlertKey(Arc<KeyParts>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct KeyParts {
    pub agent: String,
    pub service: String,
}

/// A map by alert key. Hashed, because the keys of one sender differ late and are slow to compare.
/// The hash key is random and comes from the shell, because senders choose these names.
pub(super) type ByKey<T> = HashMap<AlertKey, T, RandomState>;

/// A set of keys, hashed like the table of alerts.
pub type Keys = HashSet<AlertKey, RandomState>;

impl AlertKey {
    pub fn new(agent: impl Into<String>, service: impl Into<String>) -> Self {
        Self(Arc::new(KeyParts { agent: agent.into(), service: service.into() }))
    }
}

impl Deref for AlertKey {
    type Target = KeyParts;

    fn deref(&self) -> &KeyParts {
        &self.0
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for AlertKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AlertKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            agent: String,
            service: String,
        }
        let Parts { agent, service } = Parts::deserialize(deserializer)?;
        Ok(Self::new(agent, service))
    }
}
