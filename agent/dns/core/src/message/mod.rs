//! DNS messages: reading them, names, answers to clients, alias chains.

pub(crate) mod chain;
pub mod name;
pub mod reply;
pub mod wire;
