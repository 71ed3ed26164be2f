//! Real processes that `bench agent` and `drill soak` start and look at.

pub(crate) mod agent;
pub(crate) mod daemon;
pub(crate) mod usage;
