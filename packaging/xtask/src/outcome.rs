//! How a step of `cargo xtask test` ended.

use serde::{Deserialize, Serialize};

/// How a step ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// How many single tests a step ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}
