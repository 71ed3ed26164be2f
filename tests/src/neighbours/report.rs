//! Both runs side by side, and the verdict.

use std::fmt;

use serde::Serialize;

use super::load::Seen;
use crate::bench::percentile;

/// One load in one run.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    pub right: usize,
    pub wrong: usize,
    /// The first few.
    pub examples: Vec<String>,
    pub median_ms: f64,
    pub p99_ms: f64,
}

/// DNS and notifications in one run.
#[derive(Debug, Default, Serialize)]
pub struct Run {
    pub dns: Row,
    pub pages: Row,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub seconds: u64,
    pub quiet: Run,
    pub attacked: Run,
    pub connections: u64,
    pub datagrams: u64,
    /// Daemons that ended.
    pub ended: Vec<String>,
    /// Peak memory by daemon, MiB.
    pub peak_mib: Vec<(String, u64)>,
    /// Forged replies that the upstream sent, and that the cache counted.
    pub forged: (u64, u64),
    pub broken: Vec<String>,
}

const EXAMPLES: usize = 5;

impl Row {
    pub(super) fn of(seen: impl IntoIterator<Item = Seen>) -> Self {
        let (mut took, mut wrong) = (Vec::new(), Vec::new());
        for one in seen {
            took.extend(one.took_ms);
            wrong.extend(one.wrong);
        }
        took.sort_by(f64::total_cmp);
        Self {
            right: took.len(),
            wrong: wrong.len(),
            median_ms: percentile(&took, 50.0),
            p99_ms: percentile(&took, 99.0),
            examples: wrong.into_iter().take(EXAMPLES).collect(),
        }
    }
}

impl Report {
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }

    pub(super) fn judge(&mut self) {
        let mut broken = Vec::new();
        for (run, words) in [(&self.quiet, "quiet"), (&self.attacked, "attacked")] {
            for (row, what) in [(&run.dns, "DNS answers"), (&run.pages, "notifications")] {
                if row.wrong > 0 {
                    broken
                        .push(format!("{words}: {} {what} wrong or missing: {:?}", row.wrong, row.examples));
                }
                if row.right == 0 {
                    broken.push(format!("{words}: no {what}"));
                }
            }
        }
        if !self.ended.is_empty() {
            broken.push(format!("ended: {}", self.ended.join(", ")));
        }
        if self.forged.0 > 0 && self.forged.1 == 0 {
            broken.push(format!("{} forged replies, none counted", self.forged.0));
        }
        self.broken = broken;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} s quiet, {} s attacked: {} connections, {} datagrams, {} forged replies ({} counted)",
            self.seconds, self.seconds, self.connections, self.datagrams, self.forged.0, self.forged.1
        )?;
        writeln!(
            f,
            "{:<26} {:>8} {:>8} {:>9} {:>11} {:>10}",
            "", "right", "wrong", "right", "median", "p99"
        )?;
        let rows = [
            ("DNS, quiet", &self.quiet.dns),
            ("DNS, attacked", &self.attacked.dns),
            ("notifications, quiet", &self.quiet.pages),
            ("notifications, attacked", &self.attacked.pages),
        ];
        for (name, row) in rows {
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            let percent = row.right as f64 * 100.0 / (row.right + row.wrong).max(1) as f64;
            writeln!(
                f,
                "{name:<26} {:>8} {:>8} {percent:>7.2} % {:>8.1} ms {:>7.1} ms",
                row.right, row.wrong, row.median_ms, row.p99_ms
            )?;
        }
        for (name, mib) in &self.peak_mib {
            writeln!(f, "peak memory of {name:<11} {mib:>8} MiB")?;
        }
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
    fn a_wrong_answer_a_missing_page_and_a_dead_daemon_are_seen() {
        let good = || Row::of([Seen { took_ms: vec![1.0, 3.0, 2.0], wrong: Vec::new() }]);
        let run = || Run { dns: good(), pages: good() };
        let mut report = Report {
            seconds: 1,
            quiet: run(),
            attacked: run(),
            connections: 1,
            datagrams: 1,
            ended: Vec::new(),
            peak_mib: Vec::new(),
            forged: (10, 10),
            broken: Vec::new(),
        };
        report.judge();
        assert!(report.kept(), "{report}");
        report.attacked.dns = Row::of([Seen { took_ms: vec![1.0], wrong: vec!["x".into()] }]);
        report.attacked.pages = Row::default();
        report.ended.push("dns".into());
        report.forged.1 = 0;
        report.judge();
        assert_eq!(report.broken.len(), 4, "{report}");
    }
}
