//! The settings of the resolver and of zones. `config` makes them from dns.toml.

use std::{sync::Arc, time::Duration};

use crate::{
    cache::Bounds,
    guard,
    health::{endpoint::Endpoint, group::CLIENT_TIMER_MAX},
    zones::{local::LocalNames, pinned::Pinned},
};

/// The resolver's settings. Fields outside `zones` are for the root zone.
#[derive(Debug, Clone)]
pub struct Settings {
    pub upstreams: Vec<Endpoint>,
    /// Why there are none, if they come from resolv.conf.
    pub no_upstreams: Option<NoUpstreams>,
    /// Forward zones: zones with their own upstreams.
    pub zones: Vec<ZoneSettings>,
    /// How long past its TTL an answer may still be served.
    pub max_stale: Duration,
    /// How long a client waits for an upstream when a stale answer is available (RFC 8767 §5).
    pub client_timer: Duration,
    pub bounds: Bounds,
    /// Names answered here, never by an upstream.
    pub local: Arc<LocalNames>,
    /// Settings of the guard.
    pub guard: guard::Rules,
    pub rebinding: guard::Rebinding,
    /// Questions that must always have an answer.
    pub pinned: Vec<Pinned>,
    /// A hash of the machine id. It differs between hosts, so that they do not all recover at the
    /// same moment.
    pub host_phase: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            no_upstreams: None,
            zones: Vec::new(),
            // Long enough for a weekend.
            max_stale: Duration::from_hours(72),
            client_timer: CLIENT_TIMER_MAX,
            bounds: Bounds::default(),
            local: Arc::default(),
            guard: guard::Rules::default(),
            rebinding: guard::Rebinding::default(),
            pinned: Vec::new(),
            host_phase: 0,
        }
    }
}

/// Why resolv.conf gives no upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoUpstreams {
    /// `/etc/resolv.conf does not exist`.
    pub why: String,
    /// Programs on this host ask this cache and nothing else, so no name resolves.
    pub is_outage: bool,
}

/// The guard settings of one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// Wire format, lower case.
    pub suffix: Box<[u8]>,
    pub upstreams: Vec<Endpoint>,
    /// How long past its TTL an answer may still be served.
    pub max_stale: Duration,
    /// If off, an answer ends with its TTL, whatever state the upstreams are in.
    pub serve_stale: bool,
    /// Settings of the guard.
    pub guard: guard::Rules,
    pub rebinding: guard::Rebinding,
}
