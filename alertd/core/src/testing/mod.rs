//! Test support, also for other crates (feature `testing`): a world around a [`Core`](crate::Core)
//! in virtual time.

mod memory;
mod world;

pub use memory::Memory;
pub use world::{Crash, Heard, Host, Mood, World};
