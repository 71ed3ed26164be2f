//! What one run of a check says.
//!
//! The same value comes from native checks, plugins and passive results. It claims nothing about soft or hard, time or
//! host: those belong to whoever keeps the status.

use std::fmt::Write as _;

use crate::perfdata::{self, Perf};

/// A check's verdict; the numbers are the plugin exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    /// The check could not look. A target that refuses or is not there is [`State::Critical`] instead.
    Unknown = 3,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Critical, Self::Unknown];

    /// As people and plugins write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    pub const fn exit_code(self) -> u8 {
        self as u8
    }

    /// `None` for a code outside the contract: what to make of that is the caller's choice.
    pub const fn from_exit_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Ok),
            1 => Some(Self::Warning),
            2 => Some(Self::Critical),
            3 => Some(Self::Unknown),
            _ => None,
        }
    }

    /// The one that matters more: CRITICAL, then WARNING, then UNKNOWN, then OK, as the plugin guidelines order them. A
    /// reading that is known to be bad is not hidden by another that could not be had.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if self.weight() >= other.weight() { self } else { other }
    }

    pub(crate) const fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for State {
    type Err = String;

    /// A name in any case, or an exit code: what `dogwatch submit` takes.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|state| {
            text.eq_ignore_ascii_case(state.name()) || text.parse() == Ok(i32::from(state.exit_code()))
        });
        let short = |text: &str| match text.to_ascii_lowercase().as_str() {
            "warn" => Some(Self::Warning),
            "crit" => Some(Self::Critical),
            _ => None,
        };
        named.or_else(|| short(text)).ok_or_else(|| {
            format!("{text:?} is not a state; write OK, WARNING, CRITICAL or UNKNOWN (or 0 to 3)")
        })
    }
}

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
    fn a_known_problem_outweighs_what_could_not_be_read() {
        let worst = |states: &[State]| states.iter().copied().reduce(State::worst).unwrap();
        assert_eq!(worst(&[State::Unknown, State::Critical, State::Ok]), State::Critical);
        assert_eq!(worst(&[State::Unknown, State::Warning]), State::Warning);
        assert_eq!(worst(&[State::Unknown, State::Ok]), State::Unknown);
    }

    #[test]
    fn states_are_read_by_name_and_by_exit_code() {
        for state in State::ALL {
            assert_eq!(state.name().to_lowercase().parse(), Ok(state));
            assert_eq!(state.exit_code().to_string().parse(), Ok(state));
            assert_eq!(State::from_exit_code(state.exit_code().into()), Some(state));
        }
        assert_eq!("crit".parse(), Ok(State::Critical));
        assert!("4".parse::<State>().is_err());
        assert_eq!(State::from_exit_code(127), None);
    }

    #[test]
    fn the_plugin_line_keeps_text_and_perfdata_apart() {
        let mut result = CheckResult::new(State::Warning, "a | b\nc")
            .with_perfdata(vec![Perf::new("load1", 0.5, "")])
            .with_detail("first\nsecond | third");
        result.unparsable.push("x=y".into());
        assert_eq!(result.to_nagios("load"), "LOAD WARNING - a ¦ b c | load1=0.5 x=y\nfirst\nsecond ¦ third");
    }
}
