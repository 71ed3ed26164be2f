//! What came of the attack, as text, and the verdict.

use std::fmt;

use serde::Serialize;

use super::attack::Answers;

/// Changes that well-behaved senders reported.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    pub changes: usize,
    /// Not notified in time.
    pub lost: Vec<String>,
    /// Hosts whose alert was resolved, but not by its sender.
    pub resolved: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub attack_s: u64,
    /// Whether alertd still ran at the end.
    pub survived: bool,
    pub peak_bytes: u64,
    pub bytes_max: u64,
    pub counts: Counts,
    /// Senders over their quota, and whether `alertctl health` named them.
    pub named: Vec<(String, bool)>,
    /// From the start after `kill -9` until alertd answered.
    pub ready_s: f64,
    pub ready_max_s: f64,
    /// Attack, status (0: none), requests.
    pub answers: Vec<(String, u16, u64)>,
    /// Notifications that were wrong or repeated.
    pub faults: Vec<String>,
    pub broken: Vec<String>,
}

const TOO_MANY: u16 = 429;
const SHOWN: usize = 5;

pub(super) fn rows(answers: &Answers) -> Vec<(String, u16, u64)> {
    answers.iter().map(|((name, status), count)| ((*name).to_owned(), *status, *count)).collect()
}

impl Report {
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }

    fn refused(&self) -> u64 {
        self.answers.iter().filter(|(_, status, _)| *status == TOO_MANY).map(|(_, _, count)| count).sum()
    }

    pub(super) fn judge(&mut self) {
        let mut broken = Vec::new();
        let counts = &self.counts;
        let mut check = |kept: bool, words: String| {
            if !kept {
                broken.push(words);
            }
        };
        check(self.survived, "alertd ended".into());
        check(
            self.peak_bytes <= self.bytes_max,
            format!("peak memory {} MiB, limit {} MiB", self.peak_bytes >> 20, self.bytes_max >> 20),
        );
        check(counts.changes > 0, "the well-behaved senders reported nothing".into());
        check(counts.lost.is_empty(), format!("{} lost: {:?}", counts.lost.len(), first(&counts.lost)));
        check(counts.resolved.is_empty(), format!("resolved by others: {:?}", first(&counts.resolved)));
        check(self.refused() > 0, "nobody was answered 429".into());
        for (name, is) in &self.named {
            check(*is, format!("{name} is not named in alertd's health"));
        }
        check(self.ready_s <= self.ready_max_s, format!("ready after {:.1} s", self.ready_s));
        check(self.faults.is_empty(), format!("wrong notifications: {:?}", first(&self.faults)));
        self.broken = broken;
    }
}

fn first(words: &[String]) -> &[String] {
    &words[..words.len().min(SHOWN)]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "attacked for {} s; answers by attack (status: requests, 0: no answer)", self.attack_s)?;
        for (name, status, count) in &self.answers {
            writeln!(f, "  {name:<18} {status:>3}: {count}")?;
        }
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            f,
            "peak memory of alertd        {} MiB (limit {})",
            mib(self.peak_bytes),
            mib(self.bytes_max)
        )?;
        writeln!(f, "well-behaved changes         {}, lost {}", counts.changes, counts.lost.len())?;
        writeln!(f, "resolved by the attackers    {}", counts.resolved.len())?;
        writeln!(f, "answered 429                 {}", self.refused())?;
        for (name, is) in &self.named {
            writeln!(f, "named in alertd's health     {name}: {}", if *is { "yes" } else { "no" })?;
        }
        writeln!(f, "ready after kill -9          {:.1} s (limit {})", self.ready_s, self.ready_max_s)?;
        for words in &self.broken {
            writeln!(f, "BROKEN: {words}")?;
        }
        writeln!(f, "{}", if self.kept() { "all promises kept" } else { "BROKEN" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_promise_is_seen() {
        let mut report = Report {
            attack_s: 1,
            survived: true,
            peak_bytes: 1,
            bytes_max: 2,
            counts: Counts { changes: 1, ..Counts::default() },
            named: vec![("token:leaked".into(), true)],
            ready_s: 1.0,
            ready_max_s: 2.0,
            answers: vec![("unique alerts".into(), TOO_MANY, 1)],
            faults: Vec::new(),
            broken: Vec::new(),
        };
        report.judge();
        assert!(report.kept(), "{report}");
        report.peak_bytes = 3;
        report.counts.lost.push("problem of web1".into());
        report.counts.resolved.push("own1".into());
        report.named[0].1 = false;
        report.answers.clear();
        report.ready_s = 3.0;
        report.judge();
        assert_eq!(report.broken.len(), 6, "{report}");
    }
}
