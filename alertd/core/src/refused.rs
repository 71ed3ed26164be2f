//! Requests from people that the core refuses.

/// Why a request was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("there is no open incident {0}; `alertctl status` lists them")]
    NoIncident(u64),
    #[error("this link was already used to acknowledge incident {0}; each link works once")]
    LinkUsed(u64),
    #[error("incident {0} is not acknowledged")]
    NotAcked(u64),
    #[error("there is no current or future downtime {0}; `alertctl downtime list` lists them")]
    NoDowntime(u64),
    /// The host, and the hosts that alertd knows.
    #[error("unknown host {0:?}; no agent or alert has this host name")]
    NoHost(String, Vec<String>),
    #[error("{0}")]
    BadDowntime(String),
    #[error("there is no current or future silence {0}; `alertctl silence list` lists them")]
    NoSilence(u64),
    #[error("there is no receiver {0:?} in the config; receivers: {1}")]
    NoReceiver(String, String),
    #[error("{0}")]
    BadSilence(String),
    #[error("there is no schedule {0:?} in the config; schedules: {1}")]
    NoSchedule(String, String),
    #[error("there is no user {0:?} in the config; users: {1}, or nobody")]
    NoUser(String, String),
    #[error("there is no override {0} made with alertctl; `alertctl override list` lists them")]
    NoOverride(u64),
    #[error("{0}")]
    BadOverride(String),
    #[error("there is no token {0:?}; `alertctl token list` lists them")]
    NoToken(String),
    #[error("{0}")]
    BadToken(String),
}
