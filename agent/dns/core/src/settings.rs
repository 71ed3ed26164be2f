//! What an operator may choose, as the resolver takes it. `config` makes it from dns.toml.

use std::{sync::Arc, time::Duration};

use crate::{
    cache::Bounds,
    guard,
    health::{endpoint::Endpoint, group::CLIENT_TIMER_MAX},
    zones::{local::LocalNames, pinned::Pinned},
};

/// What an operator may choose. What stands here is the root zone's.
#[derive(Debug, Clone)]
pub struct Settings {
    pub upstreams: Vec<Endpoint>,
    /// Zones with upstreams of their own.
    pub zones: Vec<ZoneSettings>,
    /// How long past its TTL an answer may still be served.
    pub max_stale: Duration,
    /// The longest a client waits for an upstream while a stale answer is at hand (RFC 8767 §5).
    pub client_timer: Duration,
    pub bounds: Bounds,
    /// What is answered here and never asked upstream.
    pub local: Arc<LocalNames>,
    /// What to believe of answers that displace good ones.
    pub guard: guard::Rules,
    /// Questions that must never be missing.
    pub pinned: Vec<Pinned>,
    /// Differs between hosts, so that they do not all come back at the same moment: a hash of the machine id.
    pub host_phase: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            zones: Vec::new(),
            // Long enough for a weekend.
            max_stale: Duration::from_hours(72),
            client_timer: CLIENT_TIMER_MAX,
            bounds: Bounds::default(),
            local: Arc::default(),
            guard: guard::Rules::default(),
            pinned: Vec::new(),
            host_phase: 0,
        }
    }
}

/// What an operator may choose for one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Wire format, lower case.
    pub suffix: Box<[u8]>,
    pub upstreams: Vec<Endpoint>,
    /// How long past its TTL an answer may still be served.
    pub max_stale: Duration,
    /// Off: an answer ends with its TTL, whatever the upstreams do.
    pub serve_stale: bool,
    /// What to believe of answers that displace good ones.
    pub guard: guard::Rules,
}
