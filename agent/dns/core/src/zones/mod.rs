//! Which upstreams answer for a name, and which names are kept ready or answered here.

pub mod local;
pub mod origin;
pub mod pinned;
pub(crate) mod views;
pub mod warm;
pub mod zone;
