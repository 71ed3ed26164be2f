//! Alert keys.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    ops::Deref,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identifies an alert: by agent, then by service. Keys that start with `@` are internal; agents
/// cannot use them (`agent.rs`). A key appears in many tables, so its text is stored and hashed
/// only once: names from one sender often differ only at the end, and comparing them was half the
/// cost of an alert.
#[derive(Debug, Clone)]
pub struct AlertKey(Arc<KeyParts>);

#[derive(Debug, Serialize)]
pub struct KeyParts {
    pub agent: String,
    pub service: String,
    #[serde(skip)]
    hash: u64,
}

/// A map that uses the key's stored hash.
pub(super) type ByKey<T> = HashMap<AlertKey, T, BuildHasherDefault<OwnHash>>;

/// A set that uses the key's stored hash.
pub type Keys = HashSet<AlertKey, BuildHasherDefault<OwnHash>>;

/// Random for each process, so that alert names cannot be chosen to collide.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl AlertKey {
    pub fn new(agent: impl Into<String>, service: impl Into<String>) -> Self {
        let (agent, service) = (agent.into(), service.into());
        let hash = SEED.hash_one((&agent, &service));
        Self(Arc::new(KeyParts { agent, service, hash }))
    }
}

impl Deref for AlertKey {
    type Target = KeyParts;

    fn deref(&self) -> &KeyParts {
        &self.0
    }
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.hash == other.hash && self.agent == other.agent && self.service == other.service)
    }
}

impl Eq for AlertKey {}

impl Hash for AlertKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
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

/// Passes on the hash stored in the key.
#[derive(Debug, Default)]
pub struct OwnHash(u64);

impl Hasher for OwnHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Only for anything other than a key.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
