//! What one run of a check says.
//!
//! The same value comes from native checks, plugins and passive results. It claims nothing about soft or hard, time or
//! host: those belong to whoever keeps the status.

use std::fmt::Write as _;

use dogwatch_wire::State;

use crate::perfdata::{self, Perf};

/// What one run says.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckResult {
    pub state: State,
    /// One line for people, without the state's name in front.
    pub summary: String,
    /// Further lines; may be empty.
    pub detail: String,
    pub perfdata: Vec<Perf>,
    /// What a plugin printed as perfdata and nobody can read, item by item. Kept so that nothing is lost on the way.
    pub unparsable: Vec<String>,
}

impl CheckResult {
    pub fn new(state: State, summary: impl Into<String>) -> Self {
        Self {
            state,
            summary: summary.into(),
            detail: String::new(),
            perfdata: Vec::new(),
            unparsable: Vec::new(),
        }
    }

    /// The check could not look, and why.
    pub fn unknown(summary: impl Into<String>) -> Self {
        Self::new(State::Unknown, summary)
    }

    #[must_use]
    pub fn with_perfdata(mut self, perfdata: Vec<Perf>) -> Self {
        self.perfdata = perfdata;
        self
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The perfdata in plugin syntax, with the unparsable items at the end.
    pub fn perfdata_text(&self) -> String {
        let mut text = perfdata::print(&self.perfdata);
        for item in &self.unparsable {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(item);
        }
        text
    }

    /// What a Nagios plugin prints: `LOAD OK - 0.10 per core | load1=…`, then the detail. The exit code is
    /// [`State::exit_code`]. `name` is put in capitals in front. A `|` in the text would begin perfdata, so it becomes `¦`.
    pub fn to_nagios(&self, name: &str) -> String {
        let mut text = format!("{} {} - {}", name.to_uppercase(), self.state, one_line(&self.summary));
        let perfdata = self.perfdata_text();
        if !perfdata.is_empty() {
            let _ = write!(text, " | {perfdata}");
        }
        if !self.detail.is_empty() {
            text.push('\n');
            text.push_str(&self.detail.replace('|', "¦"));
        }
        text
    }
}

fn one_line(text: &str) -> String {
    text.replace('|', "¦").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_line_keeps_text_and_perfdata_apart() {
        let mut result = CheckResult::new(State::Warning, "a | b\nc")
            .with_perfdata(vec![Perf::new("load1", 0.5, "")])
            .with_detail("first\nsecond | third");
        result.unparsable.push("x=y".into());
        assert_eq!(result.to_nagios("load"), "LOAD WARNING - a ¦ b c | load1=0.5 x=y\nfirst\nsecond ¦ third");
    }
}
