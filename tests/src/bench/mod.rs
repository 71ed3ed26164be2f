//! Benchmarks beside other servers. `cargo xtask bench dns|outage|snapshot|alertd` runs them
//! through the program `bench`.
//!
//! All servers forward to our own fake upstream over loopback, hold the same names and are asked by
//! the same clients, which check every answer: names say what is right ([`names`]). CPU is what the
//! scheduler counted for the server's threads. Figures are this machine's; the ratios within one
//! run travel.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`batch`] | datagrams received and sent many at a time, with the kernel's receive time |
//! | [`names`] | the names, and whether an answer is right |
//! | [`sockets`] | UDP sockets with large buffers |
//! | [`upstream`] | the fake upstream: fails in eight ways, counts queries in tenths of a second |
//! | [`client`] | the loads: walk all names, flood, a fixed rate, and the watcher of an outage |
//! | [`echo`] | the lower bound: a batched UDP echo |
//! | [`peers`] | how each server is configured and started |
//! | [`race`] | cost of an answer |
//! | [`snapshot`] | time of a restart with a full cache |
//! | [`outage`] | what clients see while the upstream fails |
//! | [`alertd`] | cost of an alert, beside Alertmanager |
//! | [`table`] | tables, and budgets met or missed |

pub mod alertd;
pub mod batch;
pub mod client;
pub mod echo;
pub mod names;
pub mod outage;
pub mod peers;
pub mod race;
pub mod snapshot;
pub mod sockets;
pub mod table;
pub mod upstream;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock that intervals are measured with.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The clock that the kernel stamps datagrams with.
#[expect(clippy::disallowed_methods, reason = "the kernel stamps datagrams with this clock")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The middle one: a neighbour's burst spoils one round, not the median. 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The value that `percent` of `sorted` do not exceed (nearest rank). 0 of nothing.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among at most millions"
    )]
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred: Vec<_> = (1..=100).map(f64::from).collect();
        let whole = |values: &[f64]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            whole(&[50.0, 99.0, 100.0].map(|percent| percentile(&hundred, percent))),
            ["50", "99", "100"]
        );
        assert_eq!(
            whole(&[percentile(&[7.0], 1.0), percentile(&[7.0], 99.0), percentile(&[], 50.0)]),
            ["7", "7", "0"]
        );
        assert_eq!(whole(&[median([3.0, 1.0, 2.0]), median([])]), ["2", "0"]);
    }
}
