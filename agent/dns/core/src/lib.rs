//! The brain of the DNS cache, without I/O.

pub mod cache;
pub mod fire_drill;
pub mod guard;
pub mod health;
pub mod message;
pub mod moment;
pub mod policy;
pub mod resolver;
pub mod settings;
pub mod workers;
pub mod zones;
