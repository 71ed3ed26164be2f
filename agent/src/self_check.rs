//! The service `self-check`: whether the agent itself keeps up. Pure: the loop says what it sees.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use dogwatch_checks::{CheckResult, Perf, State, threshold::Range};
use dogwatch_daemon::duration::Span;

/// How late checks start.
#[derive(Debug, Default)]
pub struct Lag {
    /// The latest start since the last look, and of which check.
    worst: Option<(Duration, Arc<str>)>,
}

/// What else the agent sees of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen<'a> {
    pub checks: usize,
    pub services: usize,
    /// The check that is due and has waited longest, and for how long.
    pub waiting: Option<(&'a str, Duration)>,
    /// Why the last reload failed.
    pub config_problem: Option<&'a str>,
    /// Why the spool cannot be written.
    pub disk_problem: Option<&'a str>,
    /// Events that were lost since the start of the agent.
    pub dropped: u64,
    pub spooled: usize,
    /// The jobs that have no service, because there are too many.
    pub refused_jobs: Option<&'a str>,
}

impl Lag {
    pub fn on_start(&mut self, check: &Arc<str>, late: Duration) {
        if self.worst.as_ref().is_none_or(|(worst, _)| late > *worst) {
            self.worst = Some((late, Arc::clone(check)));
        }
    }

    /// The result of the self-check; begins a new look.
    pub fn judge(&mut self, seen: Seen<'_>) -> CheckResult {
        let started = self.worst.take();
        let started = started.as_ref().map(|(late, check)| (&**check, *late));
        let worst = started.into_iter().chain(seen.waiting).max_by_key(|(_, late)| *late);
        let late = worst.map_or(Duration::ZERO, |(_, late)| late);
        let mut state = State::Ok;
        let mut problems = Vec::new();
        if late >= LATE_WARNING
            && let Some((check, late)) = worst
        {
            state = if late >= LATE_CRITICAL { State::Critical } else { State::Warning };
            let late = Span::secs(late.as_secs());
            problems.push(format!(
                "checks run late: {check} by {late}; raise intervals, or max_concurrent if plugins wait"
            ));
        }
        if let Some(problem) = seen.config_problem {
            state = state.max(State::Warning);
            problems.push(format!("the config on disk is invalid and not in use: {problem}"));
        }
        if let Some(problem) = seen.disk_problem {
            state = state.max(State::Warning);
            problems.push(format!("cannot write the spool: {problem}"));
        }
        if seen.dropped > 0 {
            state = state.max(State::Warning);
            problems.push(format!("{} events were lost because the spool was full", seen.dropped));
        }
        if let Some(refused) = seen.refused_jobs {
            state = state.max(State::Warning);
            problems.push(refused.to_owned());
        }
        let mut summary = problems.join("; ");
        if problems.is_empty() {
            let _ = write!(summary, "{} checks, {} services, ", seen.checks, seen.services);
            let _ = write!(summary, "latest start {:.1} s late", late.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of events")]
        let spooled = seen.spooled as f64;
        CheckResult::new(state, summary).with_perfdata(vec![
            Perf::new("late", late.as_secs_f64(), "s")
                .thresholds(Some(above(LATE_WARNING)), Some(above(LATE_CRITICAL)))
                .bounds(0.0, None),
            Perf::new("spooled", spooled, "").bounds(0.0, None),
        ])
    }
}

fn above(limit: Duration) -> Range {
    Range::above(limit.as_secs_f64())
}

/// A plugin that waits for a free place is normal for a moment. Half of the usual interval is not.
const LATE_WARNING: Duration = Duration::from_secs(30);
const LATE_CRITICAL: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_keeps_up_is_ok() {
        let mut lag = Lag::default();
        lag.on_start(&"disk".into(), Duration::from_millis(400));
        lag.on_start(&"load".into(), Duration::from_millis(20));
        let result = lag.judge(Seen { checks: 2, services: 5, ..Seen::default() });
        assert_eq!(
            (result.state, &*result.summary),
            (State::Ok, "2 checks, 5 services, latest start 0.4 s late")
        );
    }

    #[test]
    fn lag_alerts_and_names_the_check_even_one_that_never_starts() {
        let mut lag = Lag::default();
        lag.on_start(&"web".into(), Duration::from_secs(45));
        let result = lag.judge(Seen { checks: 40, ..Seen::default() });
        assert_eq!(result.state, State::Warning);
        assert!(result.summary.starts_with("checks run late: web by 45s;"), "{}", result.summary);
        let waiting = Some(("mail", Duration::from_secs(200)));
        let result = lag.judge(Seen { waiting, ..Seen::default() });
        assert_eq!(result.state, State::Critical);
        assert!(result.summary.contains("mail by 3m20s"), "{}", result.summary);
        assert_eq!(lag.judge(Seen::default()).state, State::Ok);
    }

    #[test]
    fn lost_events_and_invalid_configs_are_warnings() {
        let mut lag = Lag::default();
        let refused_jobs = Some("1 job is not watched");
        let result = lag.judge(Seen { refused_jobs, ..Seen::default() });
        assert_eq!((result.state, &*result.summary), (State::Warning, "1 job is not watched"));
        let seen =
            Seen { dropped: 3, config_problem: Some("agent.toml:3:1: unknown key"), ..Seen::default() };
        let result = lag.judge(seen);
        assert_eq!(result.state, State::Warning);
        assert!(result.summary.contains("unknown key") && result.summary.contains("3 events were lost"));
    }
}
