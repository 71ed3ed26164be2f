//! How the upstreams are: breakers, groups of upstreams, packet loss, pace and recovery after an outage.

pub mod breaker;
pub mod endpoint;
pub(crate) mod failures;
pub mod group;
pub mod letter_case;
pub mod loss;
pub mod pace;
pub mod recovery;
