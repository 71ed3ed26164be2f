//! What other limits would have done: goes through recorded points as if they were results. Pure.

use std::time::Duration;

use dogwatch_checks::{State, threshold::Thresholds};

use crate::history::Point;

/// A problem that would have been announced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Problem {
    /// The worst state that it would have had.
    pub state: State,
    /// Seconds since 1970: when the value crossed the limit.
    pub from: i64,
    /// When it was back within the limit; `None`: it still was beyond it at the end.
    pub until: Option<i64>,
    /// The value that was furthest beyond the limit.
    pub peak: f32,
}

impl Problem {
    /// How long it lasted, at the resolution of the points.
    pub fn duration(&self, now: i64) -> Duration {
        Duration::from_secs((self.until.unwrap_or(now) - self.from).max(0).unsigned_abs())
    }
}

/// The problems that these limits would have announced, if a problem must last for `lasting`. A
/// point alerts if any value in it does; a gap ends a problem.
pub fn replay(points: &[Point], limits: Thresholds, lasting: Duration) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut open: Option<Problem> = None;
    let mut end = i64::MIN;
    for point in points {
        if point.at > end + point.step
            && let Some(problem) = open.take()
        {
            problems.push(Problem { until: Some(end), ..problem });
        }
        let (state, peak) = judge(*point, limits);
        match (&mut open, state) {
            (Some(problem), State::Ok) => {
                problems.push(Problem { until: Some(point.at), ..*problem });
                open = None;
            }
            (Some(problem), state) => {
                problem.state = problem.state.max(state);
                if further(peak, problem.peak, limits) {
                    problem.peak = peak;
                }
            }
            (None, State::Ok) => {}
            (None, state) => open = Some(Problem { state, from: point.at, until: None, peak }),
        }
        end = point.at + point.step;
    }
    problems.extend(open);
    problems.retain(|problem| problem.duration(end) >= lasting);
    problems
}

/// The worst state of a point, and the value that has it.
fn judge(point: Point, limits: Thresholds) -> (State, f32) {
    let of = |value: f32| (limits.judge(f64::from(value)), value);
    let (high, low) = (of(point.max), of(point.min));
    if low.0 > high.0 { low } else { high }
}

/// Whether a value is further beyond the limits than another one.
fn further(value: f32, than: f32, limits: Thresholds) -> bool {
    let upwards = limits.judge(f64::from(value.max(than)));
    let downwards = limits.judge(f64::from(value.min(than)));
    if downwards > upwards { value < than } else { value > than }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f32]) -> Vec<Point> {
        (0..).zip(values).map(|(at, &avg)| Point { at: at * 60, step: 60, min: avg, avg, max: avg }).collect()
    }

    fn limits(warn: &str, crit: &str) -> Thresholds {
        let range = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Thresholds { warn: range(warn), crit: range(crit) }
    }

    #[test]
    fn every_crossing_is_a_problem_with_its_peak_and_its_end() {
        let found = replay(&points(&[1.0, 9.0, 12.0, 1.0, 9.5]), limits("8", "10"), Duration::ZERO);
        let of = |state, from, until, peak| Problem { state, from, until, peak };
        assert_eq!(found, [of(State::Critical, 60, Some(180), 12.0), of(State::Warning, 240, None, 9.5)]);
        assert_eq!(found[1].duration(300), Duration::from_mins(1));
    }

    #[test]
    fn a_short_problem_is_nobodys_problem() {
        let values = [1.0, 9.0, 1.0, 9.0, 9.0, 9.0, 1.0];
        let found = replay(&points(&values), limits("8", ""), Duration::from_mins(3));
        assert_eq!(found.iter().map(|problem| problem.from).collect::<Vec<_>>(), [180]);
    }

    #[test]
    fn a_spike_within_a_point_counts_and_a_gap_ends_a_problem() {
        let spike = Point { at: 0, step: 600, min: 0.0, avg: 1.0, max: 50.0 };
        assert_eq!(replay(&[spike], limits("8", ""), Duration::ZERO).len(), 1);
        let later = Point { at: 6_000, ..spike };
        let found = replay(&[spike, later], limits("8", ""), Duration::ZERO);
        assert_eq!(found[0].until, Some(600));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn low_values_can_be_problems_too() {
        let found = replay(&points(&[50.0, 4.0, 2.0, 60.0]), limits("10:", "3:"), Duration::ZERO);
        assert_eq!((found.len(), found[0].state), (1, State::Critical));
        assert!(found[0].peak < 2.5);
    }
}
