//! What a run of a check found: one result for the check as a whole, or one for each thing (each
//! file system, unit, interface).
//!
//! A run has two halves. The first half reads the host, on a thread that may hang. It returns a
//! [`Judgement`], the second half: a pure function of what was read and of the check's [`Past`],
//! called where the past is kept.

use std::{fmt, time::Duration};

use crate::{CheckResult, Past, State};

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// `/var`, `nginx.service`. `None`: the check has a single service, named like the check.
    pub thing: Option<String>,
    pub result: CheckResult,
    /// How long a problem must last to become hard. `None`: as many results as the config says.
    /// Zero: at once.
    pub lasting: Option<Duration>,
}

/// What a run found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    pub list: Vec<Finding>,
    /// What is not watched, and why.
    pub blind: Vec<Blind>,
    /// The list has every thing that there is, so a thing that is missing in it no longer exists.
    pub all: bool,
}

/// Something that exists and is not watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blind {
    pub thing: String,
    /// `excluded by exclude = "/mnt/*"`, `no permission`.
    pub why: String,
}

/// The second half of a run: judges what was read.
pub struct Judgement(Box<dyn FnOnce(&mut Past) -> Findings + Send>);

impl Finding {
    /// The single finding of a check without things.
    pub fn whole(result: CheckResult) -> Self {
        Self { thing: None, result, lasting: None }
    }

    pub fn of(thing: impl Into<String>, result: CheckResult) -> Self {
        Self { thing: Some(thing.into()), result, lasting: None }
    }

    /// A problem becomes hard when it has lasted this long.
    #[must_use]
    pub fn lasting(mut self, span: Duration) -> Self {
        self.lasting = Some(span);
        self
    }

    /// A problem becomes hard with its first result.
    #[must_use]
    pub fn at_once(self) -> Self {
        self.lasting(Duration::ZERO)
    }
}

impl Findings {
    /// Everything that there is.
    pub fn all(list: Vec<Finding>) -> Self {
        Self { list, blind: Vec::new(), all: true }
    }

    #[must_use]
    pub fn with_blind(mut self, blind: Vec<Blind>) -> Self {
        self.blind = blind;
        self
    }

    /// One result for all findings: the worst state, the problems first. Without a problem, the
    /// first finding speaks for all, so a kind puts the most interesting one first. For a check
    /// that runs as a plugin.
    pub fn summed_up(mut self) -> CheckResult {
        if self.list.len() == 1
            && let Some(only) = self.list.pop()
        {
            let summary = match only.thing {
                Some(thing) => format!("{thing} {}", only.result.summary),
                None => only.result.summary,
            };
            return CheckResult { summary, ..only.result };
        }
        if self.list.is_empty() {
            let blind = self.blind.iter().map(|blind| format!("{}: {}", blind.thing, blind.why));
            let blind = blind.take(NAMES_MAX).collect::<Vec<_>>().join("; ");
            return CheckResult::unknown(match blind.as_str() {
                "" => "nothing to check on this host".to_owned(),
                blind => format!("nothing can be checked: {blind}"),
            });
        }
        self.list.sort_by_key(|finding| std::cmp::Reverse(finding.result.state.severity()));
        let worst = self.list.first().map_or(State::Ok, |finding| finding.result.state);
        let line = |finding: &Finding| {
            format!("{} {}", finding.thing.as_deref().unwrap_or_default(), finding.result.summary)
        };
        let problems: Vec<_> =
            self.list.iter().filter(|finding| finding.result.state != State::Ok).map(line).collect();
        let summary = if problems.is_empty() {
            let rest = self.list.iter().skip(1).filter_map(|finding| finding.thing.as_deref());
            let names: Vec<_> = rest.clone().take(NAMES_MAX).collect();
            let more = match rest.count().saturating_sub(NAMES_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let first = self.list.first().map(line).unwrap_or_default();
            format!("{first}; also OK: {}{more}", names.join(", "))
        } else {
            problems.join("; ")
        };
        let detail = self.list.iter().map(|finding| {
            let said = line(finding);
            if finding.result.detail.is_empty() { said } else { format!("{said}\n{}", finding.result.detail) }
        });
        let detail = detail.collect::<Vec<_>>().join("\n");
        let perfdata = self.list.into_iter().flat_map(|finding| finding.result.perfdata).collect();
        CheckResult::new(worst, summary).with_detail(detail).with_perfdata(perfdata)
    }
}

/// How many names of things without a problem fit in a summary.
const NAMES_MAX: usize = 8;

impl Judgement {
    pub fn new(judge: impl FnOnce(&mut Past) -> Findings + Send + 'static) -> Self {
        Self(Box::new(judge))
    }

    /// Judges a reading. `now` is the time since boot.
    pub fn judge(self, past: &mut Past, now: Duration) -> Findings {
        past.begin(now);
        let findings = (self.0)(past);
        past.end(findings.list.iter().map(|finding| (finding.thing.clone(), finding.result.state)));
        findings
    }

    /// Judges a reading without a past, in one result.
    pub fn once(self) -> CheckResult {
        self.judge(&mut Past::default(), Duration::ZERO).summed_up()
    }
}

impl fmt::Debug for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judgement")
    }
}

impl From<CheckResult> for Findings {
    fn from(result: CheckResult) -> Self {
        Self::all(vec![Finding::whole(result)])
    }
}

impl From<Findings> for Judgement {
    fn from(findings: Findings) -> Self {
        Self::new(|_| findings)
    }
}

impl From<CheckResult> for Judgement {
    fn from(result: CheckResult) -> Self {
        Self::new(|_| result.into())
    }
}
