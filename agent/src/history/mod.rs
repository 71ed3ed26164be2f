//! The values of this host over time: a file that never grows beyond its size.
//!
//! | tier | a row every | kept |
//! | --- | --- | --- |
//! | fine | minute | 48 hours |
//! | middle | 10 minutes | 14 days |
//! | long | hour | 400 days |
//!
//! A row has the least, the average and the greatest value of every series in its time; an average
//! alone hides spikes. [`layout`] is the format, [`fold`] collects values into rows, [`file`] reads
//! and writes them, [`writer`] is the thread that does so for the agent.

pub mod file;
pub mod fold;
pub mod layout;
pub mod writer;

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Names one series: a value in the performance data of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub service: String,
    pub label: String,
}

/// One value to record.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub key: Key,
    pub unit: String,
    pub value: f64,
    /// The greatest possible value, if there is one.
    pub max: Option<f64>,
    pub at: Timestamp,
}

/// What a series was in the time of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Start of that time, in seconds since 1970.
    pub at: i64,
    /// Seconds.
    pub step: i64,
    pub min: f32,
    pub avg: f32,
    pub max: f32,
}

/// Averages of an earlier hour.
pub type Earlier = BTreeMap<Key, f32>;
