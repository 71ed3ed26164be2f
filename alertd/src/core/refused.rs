//! Requests of people that the core refuses.

/// Why something was not done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("there is no open incident {0}; `alertctl status` lists them")]
    NoIncident(u64),
    #[error("this link has acknowledged incident {0} before; it works once")]
    LinkUsed(u64),
    #[error("incident {0} is not acked")]
    NotAcked(u64),
    #[error("there is no downtime {0} that is not over; `alertctl downtime list` lists them")]
    NoDowntime(u64),
    #[error("{0}")]
    BadDowntime(String),
    #[error("there is no active silence {0}; `alertctl silence list` lists them")]
    NoSilence(u64),
    #[error("there is no receiver {0:?} in the config; there are: {1}")]
    NoReceiver(String, String),
    #[error("{0}")]
    BadSilence(String),
    #[error("there is no schedule {0:?} in the config; there are: {1}")]
    NoSchedule(String, String),
    #[error("there is no user {0:?} in the config; there are: {1}, and nobody")]
    NoUser(String, String),
    #[error("there is no override {0} made by hand; `alertctl override list` lists them")]
    NoOverride(u64),
    #[error("{0}")]
    BadOverride(String),
    #[error("there is no token {0:?}; `alertctl token list` lists them")]
    NoToken(String),
    #[error("{0}")]
    BadToken(String),
}
