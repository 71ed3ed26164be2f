//! The four states of a service and their order of severity.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The state of a service. The numbers are the exit codes of plugins.
///
/// States are ordered by severity: OK < WARNING < UNKNOWN < CRITICAL, so `max` is the worst one.
/// UNKNOWN ranks above WARNING because nobody knows what is behind it: a check that cannot run may
/// hide an outage, while a warning is a known and limited problem. Nagios' status page and
/// Icinga 2's `severity` sort this way (Icinga 2: WARNING 32, UNKNOWN 64, CRITICAL 128). Plugins do
/// not agree: `max_state_alt` of the Monitoring Plugins, which combines the results inside one
/// plugin, ranks UNKNOWN below WARNING. Operators see the former, so dogwatch follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    /// The check could not run or could not tell. A target that refuses or does not exist is
    /// [`State::Critical`].
    Unknown = 3,
}

impl State {
    /// In the order of the exit codes.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Critical, Self::Unknown];

    /// As people and plugins write it: `CRITICAL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// From 0 (OK) to 3 (CRITICAL). Not the exit code.
    pub const fn severity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }

    pub const fn exit_code(self) -> u8 {
        self as u8
    }

    /// `None` for an exit code that the plugin guidelines do not define.
    pub const fn from_exit_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Ok),
            1 => Some(Self::Warning),
            2 => Some(Self::Critical),
            3 => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl Ord for State {
    fn cmp(&self, other: &Self) -> Ordering {
        self.severity().cmp(&other.severity())
    }
}

impl PartialOrd for State {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = String;

    /// Reads a name in any case, `warn`, `crit`, or an exit code.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_named =
            |state: &Self| text.eq_ignore_ascii_case(state.name()) || text.parse() == Ok(state.exit_code());
        let short = || match text.to_ascii_lowercase().as_str() {
            "warn" => Some(Self::Warning),
            "crit" => Some(Self::Critical),
            _ => None,
        };
        Self::ALL.into_iter().find(is_named).or_else(short).ok_or_else(|| {
            format!("{text:?} is not a state; use OK, WARNING, CRITICAL or UNKNOWN (or 0 to 3)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_ordered_by_severity_and_not_by_exit_code() {
        let mut states = State::ALL;
        states.sort();
        assert_eq!(states, [State::Ok, State::Warning, State::Unknown, State::Critical]);
        assert_eq!([State::Warning, State::Unknown].into_iter().max(), Some(State::Unknown));
        assert_eq!([State::Unknown, State::Critical, State::Ok].into_iter().max(), Some(State::Critical));
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
}
