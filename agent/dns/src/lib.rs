//! A caching DNS forwarder that keeps names resolving while its upstreams are dead, slow, refusing or just back, and
//! that says so at once.
pub mod breaker;
pub mod cache;
mod failures;
pub mod group;
pub mod moment;
pub mod name;
pub mod pace;
pub mod policy;
pub mod reply;
pub mod resolver;
pub mod wire;
