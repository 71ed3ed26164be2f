//! The result of one run of a check, plugin or passive check. Whether its state is soft or hard is
//! up to the agent.

use std::fmt::Write as _;

use dogwatch_wire::State;

use crate::perfdata::{self, Perf};

/// The result of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckResult {
    pub state: State,
    /// One line for people, without the name of the state.
    pub summary: String,
    /// Further lines; may be empty.
    pub detail: String,
    pub perfdata: Vec<Perf>,
    /// Invalid items of performance data, as printed by the plugin.
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

    /// An UNKNOWN result with a reason.
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

    /// The performance data in plugin syntax, with the invalid items at the end.
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

    /// The output of a Nagios plugin: `LOAD OK - 0.10 per core | load1=…`, then the detail. The
    /// exit code is [`State::exit_code`]. `name` comes first, in capitals. A `|` in the text
    /// becomes `¦`, because it would start the performance data.
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
    fn text_and_perfdata_are_separated_in_the_plugin_output() {
        let mut result = CheckResult::new(State::Warning, "a | b\nc")
            .with_perfdata(vec![Perf::new("load1", 0.5, "")])
            .with_detail("first\nsecond | third");
        result.unparsable.push("x=y".into());
        assert_eq!(result.to_nagios("load"), "LOAD WARNING - a ¦ b c | load1=0.5 x=y\nfirst\nsecond ¦ third");
    }
}
