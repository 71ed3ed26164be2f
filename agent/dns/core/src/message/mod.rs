//! DNS messages as bytes: reading and patching them.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`wire`] | reads queries and answers |
//! | [`wire::letters`] | mixes the case of a question's letters, and compares them with the answer's (0x20) |
//! | [`name`] | converts names and cache keys between wire format and text |
//! | [`reply`] | writes answers to clients: a cached answer patched for one client, or an error |
//! | `chain` | puts a stale alias chain together from the youngest answers |

pub(crate) mod chain;
pub mod name;
pub mod reply;
pub mod wire;
