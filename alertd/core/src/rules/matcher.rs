//! Label matchers as in Alertmanager: `host=web1`, `service!=swap`, `host=~"web.*"`,
//! `team!~"db|net"`.
//!
//! A regular expression must match the whole value. A missing label counts as the empty string.

use std::{collections::BTreeMap, fmt, str::FromStr};

use regex::Regex;
use serde::{Deserialize, Serialize};

pub type Labels = BTreeMap<String, String>;

/// One condition on one label.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Matcher {
    name: String,
    value: String,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Equal,
    NotEqual,
    Matches(Regex),
    MatchesNot(Regex),
}

impl Matcher {
    /// The name of the label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value to compare with, or the expression as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    pub fn is_regex(&self) -> bool {
        matches!(self.condition, Condition::Matches(_) | Condition::MatchesNot(_))
    }

    /// `=` or `=~`.
    pub fn is_equal(&self) -> bool {
        matches!(self.condition, Condition::Equal | Condition::Matches(_))
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.name).map_or("", String::as_str))
    }

    /// Whether an alert without this label matches. A silence with only such matchers silences
    /// everything.
    pub fn matches_missing(&self) -> bool {
        self.accepts("")
    }

    fn accepts(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Equal => value == self.value,
            Condition::NotEqual => value != self.value,
            Condition::Matches(regex) => regex.is_match(value),
            Condition::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// Whether all matchers match. True for an empty list.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

/// Maximum number of characters of a regular expression, to limit the damage of a mistake.
const PATTERN_CHARS_MAX: usize = 1_000;
/// Maximum size of one compiled expression, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;

impl FromStr for Matcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a matcher; write name=value, name!=value, name=~regex or name!~regex")
        };
        let at = text.find(['=', '!']).ok_or_else(wrong)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let operators = ["=~", "!~", "!=", "="];
        let operator = operators.into_iter().find(|operator| rest.starts_with(operator)).ok_or_else(wrong)?;
        let value = unquoted(rest[operator.len()..].trim());
        let condition = match operator {
            "=~" => Condition::Matches(whole(value)?),
            "!~" => Condition::MatchesNot(whole(value)?),
            "!=" => Condition::NotEqual,
            _ => Condition::Equal,
        };
        Ok(Self { name: name.into(), value: value.into(), condition })
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}

fn whole(pattern: &str) -> Result<Regex, String> {
    if pattern.chars().count() > PATTERN_CHARS_MAX {
        return Err(format!("regular expression is longer than {PATTERN_CHARS_MAX} characters"));
    }
    regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(COMPILED_BYTES_MAX).build().map_err(
        |error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{pattern:?} is not a regular expression: {reason}")
        },
    )
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.condition {
            Condition::Equal => "=",
            Condition::NotEqual => "!=",
            Condition::Matches(_) => "=~",
            Condition::MatchesNot(_) => "!~",
        };
        write!(f, "{}{operator}\"{}\"", self.name, self.value)
    }
}

impl TryFrom<String> for Matcher {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Matcher> for String {
    fn from(matcher: Matcher) -> Self {
        matcher.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn each_operator_means_what_it_means_in_alertmanager() {
        let web1 = labels(&[("host", "web1"), ("service", "disk /")]);
        for (text, matches) in [
            ("host=web1", true),
            ("host = \"web1\"", true),
            ("host=web", false),
            ("host!=web1", false),
            ("host!=web2", true),
            ("host=~web.", true),
            ("host=~eb1", false), // anchored at both ends
            ("host=~web|x", false),
            ("host!~db.*", true),
            ("service=\"disk /\"", true),
            ("team=", true), // a missing label is the empty string
            ("team!=", false),
            ("team=~.+", false),
        ] {
            assert_eq!(text.parse::<Matcher>().unwrap().matches(&web1), matches, "{text}");
        }
    }

    #[test]
    fn invalid_matchers_are_refused_with_a_reason() {
        for text in ["", "host", "=x", "a b=c", "host=~(", "host!web"] {
            assert!(text.parse::<Matcher>().is_err(), "{text:?}");
        }
        let said = "host=~(".parse::<Matcher>().unwrap_err();
        assert!(said.contains("unclosed group"), "{said}");
    }

    #[test]
    fn it_prints_what_it_parses() {
        for text in ["host=\"web1\"", "host!=\"a\"", "host=~\"web.*\"", "host!~\"a|b\""] {
            let matcher: Matcher = text.parse().unwrap();
            assert_eq!(matcher.to_string(), text);
            assert_eq!(String::from(matcher).parse::<Matcher>().unwrap().to_string(), text);
        }
    }
}
