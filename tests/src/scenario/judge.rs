//! Compares a run with the expectations of its scenario file. A complaint names the line and what
//! happened instead.

use std::{fmt::Write as _, time::Duration};

use super::{
    AnswerWant, Counted, Scenario, Share, StateWant, Want, What,
    log::{Answered, Asker, Log},
};
use crate::authority::Judgement;

/// How exactly the figures are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Virtual time: to the letter.
    Exact,
    /// Real processes on a machine that may be busy: right and usable to the letter; times, counts
    /// and `fresh` with room.
    Generous,
}

/// A busy machine may keep a process from running for this long.
const ROOM: Duration = Duration::from_secs(2);
const ROOM_ALERT: Duration = Duration::from_secs(10);

impl Measure {
    fn time(self, most: Duration) -> Duration {
        if self == Self::Exact { most } else { most + ROOM }
    }

    /// For probes that a busy machine makes necessary.
    fn room(self) -> f64 {
        if self == Self::Exact { 0.0 } else { 30.0 }
    }

    /// Fresh means in time: an upstream that does not run for 300 ms is late, and its breaker may
    /// open for seconds. A cache that does not come back to fresh answers at all is still found.
    fn share(self, of: Share, percent: f64) -> f64 {
        if self == Self::Generous && of == Share::Fresh { percent / 2.0 } else { percent }
    }

    fn count(self, most: u64) -> u64 {
        if self == Self::Exact { most } else { most * 3 + 30 }
    }
}

/// Everything that is not as wanted, a line or more each; empty if all is well.
pub fn judge(scenario: &Scenario, log: &Log, measure: Measure) -> Vec<String> {
    let mut complaints: Vec<String> =
        log.complaints.iter().map(|complaint| format!("{}: {complaint}", scenario.file)).collect();
    for want in &scenario.wants {
        if let Some(instead) = happened_instead(want, log, measure) {
            complaints
                .push(format!("{}:{}: {}\n    instead: {instead}", scenario.file, want.line, want.text));
        }
    }
    complaints
}

/// What happened if that is not what was wanted.
fn happened_instead(want: &Want, log: &Log, measure: Measure) -> Option<String> {
    let &Want { from, until, .. } = want;
    match &want.what {
        What::Answer(wants) => {
            let line = u32::try_from(want.line).ok()?;
            match log.answers.iter().find(|answer| answer.why == Asker::Line(line)) {
                None => Some("nothing was asked".into()),
                Some(answer) => {
                    let kept = wants.iter().all(|&want| answer_is(answer, want, measure));
                    (!kept).then(|| describe(answer))
                }
            }
        }
        What::Alert { sensor, state, within } => {
            let deadline = from + if measure == Measure::Exact { *within } else { *within + ROOM_ALERT };
            let is = |said: u8| match state {
                StateWant::Exactly(wanted) => said == *wanted,
                StateWant::Ill => said > 0,
            };
            let changes = log.alerts.iter().filter(|alert| alert.sensor == *sensor && alert.at >= from);
            let met = is(log.state_at(sensor, from))
                || changes.into_iter().any(|alert| alert.at <= deadline && is(alert.state));
            // A busy machine may still be refreshing names when the run ends. Then the sensor must
            // at least no longer be critical.
            let last = log.alerts.iter().rfind(|alert| alert.sensor == *sensor);
            let eased = measure == Measure::Generous
                && matches!(state, StateWant::Exactly(0))
                && last.is_some_and(|alert| alert.state == 1);
            (!met && !eased).then(|| alerts_text(log, sensor, from))
        }
        What::Share { of, percent } => {
            let (mut all, mut kept, mut first) = (0_u32, 0_u32, None);
            for answer in log.known_in(from, until) {
                let is = match of {
                    Share::Right => answer.worth == Judgement::Right,
                    Share::Usable => matches!(answer.worth, Judgement::Right | Judgement::Old),
                    Share::Fresh => answer.worth == Judgement::Right && !answer.stale,
                };
                all += 1;
                kept += u32::from(is);
                if !is {
                    first.get_or_insert(answer);
                }
            }
            let share = 100.0 * f64::from(kept) / f64::from(all.max(1));
            if all == 0 {
                return Some("nobody asked".into());
            }
            let example =
                first.map(|answer| format!("; the first: {}", describe(answer))).unwrap_or_default();
            (share < measure.share(*of, *percent)).then(|| format!("{share:.2}% ({kept} of {all}){example}"))
        }
        What::Count { of, most } => {
            let is = |answer: &&Answered| match of {
                Counted::Wrong => answer.worth == Judgement::Wrong,
                Counted::Failed => answer.worth == Judgement::Failed,
                Counted::Waited => answer.took > measure.time(Duration::ZERO),
            };
            let found: Vec<_> = log.known_in(from, until).filter(is).collect();
            let example = found.first().map(|answer| describe(answer)).unwrap_or_default();
            (found.len() as u64 > *most).then(|| format!("{}; the first: {example}", found.len()))
        }
        What::Wait(most) => {
            let longest = log.known_in(from, until).max_by_key(|answer| answer.took)?;
            (longest.took > measure.time(*most)).then(|| describe(longest))
        }
        What::UpstreamPerQuery(most) => {
            let queries = number(log.asked_in(from, until).count() as u64);
            let sent = number(log.sent_in(from, until));
            let each = sent / queries.max(1.0);
            (sent > most * queries + measure.room())
                .then(|| format!("{sent} for {queries} queries: {each:.3} a query"))
        }
        What::Upstream(most) => {
            let sent = log.sent_in(from, until);
            (sent > measure.count(*most)).then(|| sent.to_string())
        }
        What::Changes { sensor, most } => {
            let changes = log.alerts.iter().filter(|alert| alert.sensor == *sensor);
            let changes = changes.filter(|alert| alert.at >= from && alert.at < until).count() as u64;
            let room = if measure == Measure::Exact { 0 } else { 4 };
            (changes > most + room).then(|| format!("{changes}: {}", alerts_text(log, sensor, from)))
        }
        What::Memory(most) => {
            let samples = log.samples.iter().filter(|sample| sample.at >= from && sample.at < until);
            match samples.map(|sample| sample.bytes).max() {
                None => Some("nobody looked".into()),
                Some(bytes) => (bytes > *most).then(|| format!("{bytes} bytes")),
            }
        }
        What::Sent { upstream, percent } => {
            let there = log.sent.iter().filter(|(at, to, _)| *at >= from && *at < until && to == upstream);
            let there: u64 = there.map(|(.., count)| count).sum();
            let all = log.sent_in(from, until);
            (number(there) > number(all) * percent / 100.0 + measure.room())
                .then(|| format!("{there} of {all}"))
        }
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn answer_is(answer: &Answered, want: AnswerWant, measure: Measure) -> bool {
    match want {
        AnswerWant::Right => answer.worth == Judgement::Right,
        AnswerWant::Old => answer.worth == Judgement::Old,
        AnswerWant::Wrong => answer.worth == Judgement::Wrong,
        AnswerWant::Failure => answer.worth == Judgement::Failed,
        AnswerWant::Nxdomain => answer.nxdomain,
        AnswerWant::Fresh => !answer.stale && answer.worth != Judgement::Failed,
        AnswerWant::Stale => answer.stale,
        AnswerWant::Ede(code) => answer.ede == Some(code),
        AnswerWant::Within(most) => answer.took <= measure.time(most),
        AnswerWant::TtlAtMost(most) => answer.ttl_s <= most,
        AnswerWant::Addresses(count) => usize::from(answer.addresses) == count,
    }
}

fn describe(answer: &Answered) -> String {
    let mut text = format!("asked at {:?}, ", answer.asked);
    text += match answer.worth {
        Judgement::Right => "right",
        Judgement::Old => "old",
        Judgement::Wrong => "wrong",
        Judgement::Failed => "failed",
    };
    if answer.nxdomain {
        text += ", NXDOMAIN";
    }
    text += if answer.stale { ", stale" } else { ", not stale" };
    if let Some(code) = answer.ede {
        let _ = write!(text, ", EDE {code}");
    }
    let _ = write!(
        text,
        ", {} addresses, TTL {}, took {:?} (name {})",
        answer.addresses, answer.ttl_s, answer.took, answer.name
    );
    text
}

fn alerts_text(log: &Log, sensor: &str, from: Duration) -> String {
    let mut text = format!("{} at {from:?}", log.state_at(sensor, from));
    let changes = log.alerts.iter().filter(|alert| alert.sensor == sensor && alert.at > from);
    for alert in changes.take(20) {
        let _ = write!(text, "; {} at {:?} ({})", alert.state, alert.at, alert.text);
    }
    text
}
