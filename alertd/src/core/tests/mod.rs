//! The core in a world of virtual time: timelines, and a model with random faults.

mod downtime_timelines;
mod model;
mod model_limits;
mod model_rota;
mod model_suppress;
mod rota_timelines;
mod silence_timelines;
mod storm_timelines;
mod suppress_timelines;
mod timelines;
pub(crate) mod world;
