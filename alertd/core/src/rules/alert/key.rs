//! The key of an alert.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher, RandomState},
    ops::Deref,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The key of an alert: agent, then service. Keys that start with `@` are internal; no agent can
/// use them. A key is in many tables, so its text is stored once and hashed once: the keys of one
/// sender are long and differ late.
#[derive(Debug, Clone)]
pub struct AlertKey {
    /// The first bytes of `service` if `agent` is [`EXTERNAL`]. Those services are hashes: most
    /// comparisons in a large table need no more, and the texts are elsewhere in memory.
    head: Option<[u8; 8]>,
    parts: Arc<KeyParts>,
}

#[derive(Debug, Serialize)]
pub struct KeyParts {
    pub agent: String,
    pub service: String,
    /// SipHash of both with a fixed key. The tables hash it again with a random one.
    #[serde(skip)]
    digest: u64,
}

/// Used instead of an agent id for the alerts of other systems.
pub const EXTERNAL: &str = "@external";

/// A map by alert key. The hash key is random and comes from the shell, because senders choose
/// these names. What is hashed with it is the key's digest: to fill one bucket, a sender would need
/// many names with the same 64 bits.
pub(super) type ByKey<T> = HashMap<AlertKey, T, RandomState>;

/// A set of keys, hashed like the table of alerts.
pub type Keys = HashSet<AlertKey, RandomState>;

impl AlertKey {
    pub fn new(agent: impl Into<String>, service: impl Into<String>) -> Self {
        let (agent, service) = (agent.into(), service.into());
        let mut hasher = DefaultHasher::new();
        (&agent, &service).hash(&mut hasher);
        let head = (agent == EXTERNAL).then(|| service.as_bytes().first_chunk().copied()).flatten();
        Self { head, parts: Arc::new(KeyParts { agent, service, digest: hasher.finish() }) }
    }

    /// Whether it is the key of an external alert from an old store: 64 bits instead of 256.
    pub fn is_fingerprint(&self) -> bool {
        self.head.is_some() && self.service.len() == 16
    }
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
            || (self.digest == other.digest && self.agent == other.agent && self.service == other.service)
    }
}

impl Eq for AlertKey {}

impl Hash for AlertKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl Deref for AlertKey {
    type Target = KeyParts;

    fn deref(&self) -> &KeyParts {
        &self.parts
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Some(head), Some(other)) = (self.head, other.head)
            && head != other
        {
            return head.cmp(&other);
        }
        if Arc::ptr_eq(&self.parts, &other.parts) {
            return Ordering::Equal;
        }
        self.agent.cmp(&other.agent).then_with(|| self.service.cmp(&other.service))
    }
}

impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for AlertKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts.serialize(serializer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_agent_and_service_whatever_is_compared_first() {
        let texts = ["", "a", "abcdefgh", "abcdefgh1", "abcdefgi", "b"];
        let agents = ["@", EXTERNAL, "@externals", "web1"];
        let keys = || agents.iter().flat_map(|agent| texts.iter().map(move |service| (*agent, *service)));
        for (a, b) in keys().flat_map(|a| keys().map(move |b| (a, b))) {
            assert_eq!(AlertKey::new(a.0, a.1).cmp(&AlertKey::new(b.0, b.1)), a.cmp(&b), "{a:?} {b:?}");
        }
    }
}
