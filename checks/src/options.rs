//! The options of a check, from a config table or from a command line.
//!
//! `[check.root] kind = "disk", path = "/", warn = "10%"` and `dogwatch check disk --path / --warn
//! 10%` lead to the same list of names and values. A kind declares its options ([`OptionSpec`],
//! shown by `--help`) and reads them with a [`Reader`], which collects all errors with the names of
//! their options, so that the caller can show the position. Options for the scheduler (`interval`,
//! `timeout`, …) are not passed here.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::{
    pattern::{self, Pattern},
    threshold::Range,
};

/// A value as written. Values from a command line are always [`Value::Text`], which is accepted for
/// every type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
    Bool(bool),
    List(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, true, false, or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }
            #[expect(clippy::cast_precision_loss, reason = "no option means a number beyond 2^53")]
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            #[expect(clippy::cast_precision_loss, reason = "no option means a number beyond 2^53")]
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Names and values, in their original order, and options that only count for some things
/// (`[check.disk."/data"]`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options(Vec<(String, Value)>, Vec<(String, Options)>);

impl Options {
    /// Adds an option from a command line. The name may have `-` instead of `_`. If an option is
    /// given twice, its value becomes a list.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let (name, value) = (name.into().replace('-', "_"), value.into());
        match (self.0.iter_mut().find(|(known, _)| *known == name).map(|(_, value)| value), value) {
            (None, value) => self.0.push((name, value)),
            (Some(Value::List(items)), Value::Text(next)) => items.push(next),
            (Some(slot @ Value::Text(_)), Value::Text(next)) => {
                if let Value::Text(first) = std::mem::replace(slot, Value::Bool(true)) {
                    *slot = Value::List(vec![first, next]);
                }
            }
            (Some(slot), value) => *slot = value,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Adds options for the things that match a pattern.
    pub fn set_for(&mut self, pattern: impl Into<String>, options: Self) {
        self.1.push((pattern.into(), options));
    }

    /// These options, with those of `other` instead where both have one.
    fn with(&self, other: &Self) -> Self {
        let own = self.0.iter().filter(|(name, _)| other.get(name).is_none());
        Self(own.chain(&other.0).cloned().collect(), Vec::new())
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(items: I) -> Self {
        let mut options = Self::default();
        for (name, value) in items {
            options.set(name, value);
        }
        options
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Options;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of options")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Options, A::Error> {
                let mut options = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    options.push(entry);
                }
                Ok(Options(options, Vec::new()))
            }
        }
        from.deserialize_map(Visitor)
    }
}

/// One option of a kind.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    pub name: &'static str,
    /// The placeholder in `--help`: `RANGE`, `PERCENT`. Empty for a switch.
    pub value: &'static str,
    /// Includes the default.
    pub help: &'static str,
}

/// An error in one option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {message}")]
pub struct OptionError {
    /// The pattern of the things that the option is for, if not for all.
    pub things: Option<String>,
    /// Name of the option.
    pub option: String,
    pub message: String,
}

/// A setting that may differ from thing to thing.
#[derive(Debug, Clone)]
pub(crate) struct PerThing<T> {
    all: T,
    some: Vec<(Pattern, T)>,
}

impl<T> From<T> for PerThing<T> {
    fn from(all: T) -> Self {
        Self { all, some: Vec::new() }
    }
}

impl<T> PerThing<T> {
    pub(crate) fn of(&self, thing: &str) -> &T {
        pattern::best(&self.some, thing).unwrap_or(&self.all)
    }
}

/// Reads options by type and collects the errors.
#[derive(Debug)]
pub struct Reader<'a> {
    options: &'a Options,
    specs: &'static [OptionSpec],
    errors: Vec<OptionError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(options: &'a Options, specs: &'static [OptionSpec]) -> Self {
        let mut reader = Self { options, specs, errors: Vec::new() };
        for name in options.names() {
            if !specs.iter().any(|spec| spec.name == name) {
                let known: Vec<_> = specs.iter().map(|spec| spec.name).collect();
                reader.error(name, format!("unknown option; use one of {}", known.join(", ")));
            }
        }
        reader
    }

    /// A warning range that only alerts where the critical one does so already is a mistake: the
    /// other way round, or of another unit. Looks at each pair of `warn…` and `crit…`.
    pub(crate) fn refuse_inverted_limits(&mut self) {
        let value = |name: &str| match self.options.get(name)? {
            Value::Text(text) => text.trim().parse::<Range>().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            Value::Bool(_) | Value::List(_) => None,
        };
        let pairs = self.specs.iter().filter(|spec| spec.value == "RANGE").filter_map(|spec| {
            let crit = spec.name.replacen("warn", "crit", 1);
            let (warn, limit) = (value(spec.name)?, value(&crit)?);
            (spec.name.starts_with("warn") && limit.is_inside(warn)).then_some((crit, warn, limit))
        });
        for (crit, warn, limit) in pairs.collect::<Vec<_>>() {
            let message = format!("the range {limit} already alerts where the warning range {warn} does not");
            self.error(&crit, message);
        }
    }

    pub(crate) fn into_errors(self) -> Vec<OptionError> {
        self.errors
    }

    /// Reads options that may differ from thing to thing.
    pub(crate) fn per_thing<T>(&mut self, take: impl Fn(&mut Reader<'_>) -> T) -> PerThing<T> {
        let all = take(self);
        let mut some = Vec::new();
        for (pattern, options) in &self.options.1 {
            let merged = self.options.with(options);
            let mut reader = Reader::new(&merged, self.specs);
            some.push((Pattern::new(pattern), take(&mut reader)));
            let errors =
                reader.into_errors().into_iter().filter(|error| options.get(&error.option).is_some());
            self.errors.extend(errors.map(|error| OptionError { things: Some(pattern.clone()), ..error }));
        }
        PerThing { all, some }
    }

    pub(crate) fn error(&mut self, option: &str, message: impl Into<String>) {
        self.errors.push(OptionError { things: None, option: option.to_owned(), message: message.into() });
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        debug_assert!(self.specs.iter().any(|spec| spec.name == name), "option {name} is not declared");
        self.options.get(name)
    }

    /// Parses the text of an option. A number is converted to text first.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = match self.get(name)? {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::List(_) => {
                self.error(name, "must be one string or number");
                return None;
            }
        };
        parse(text.trim()).map_err(|error| self.error(name, error.to_string())).ok()
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.parsed(name, |text| if text.is_empty() { Err("must not be empty") } else { Ok(text.to_owned()) })
    }

    pub(crate) fn value<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        self.parsed(name, str::parse)
    }

    pub(crate) fn range(&mut self, name: &str) -> Option<Range> {
        self.value(name)
    }

    pub(crate) fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, duration)
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::Text(text)) if matches!(text.as_str(), "true" | "") => true,
            Some(Value::Text(text)) if text == "false" => false,
            Some(_) => {
                self.error(name, "must be true or false");
                false
            }
        }
    }

    /// A list. A single string is a list of one.
    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<String>> {
        match self.get(name)? {
            Value::List(items) => Some(items.clone()),
            Value::Text(text) => Some(vec![text.clone()]),
            Value::Number(_) | Value::Bool(_) => {
                self.error(name, "must be a list of strings");
                None
            }
        }
    }

    /// A list of patterns. A pattern that matches nothing is no error.
    pub(crate) fn patterns(&mut self, name: &str) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in self.list(name).unwrap_or_default() {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.error(name, format!("{text:?}: {error}")),
            }
        }
        patterns
    }

    pub(crate) fn required<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if self.options.get(name).is_none() {
            self.error(name, "is required");
        }
        value
    }
}

/// `"1s"`, `"250ms"`, `"2m"`, or a number of seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("{text:?} is not a duration; write for example \"250ms\", \"5s\" or \"2m\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec { name: "path", value: "PATH", help: "" },
        OptionSpec { name: "warn", value: "RANGE", help: "" },
        OptionSpec { name: "quiet", value: "", help: "" },
    ];

    #[test]
    fn all_errors_are_reported_at_once_with_the_names_of_their_options() {
        let options = Options::from_iter([("pth", "/"), ("warn", "2:1"), ("quiet", "maybe")]);
        let mut reader = Reader::new(&options, SPECS);
        let path = reader.text("path");
        assert_eq!(reader.required("path", path), None);
        assert_eq!(reader.range("warn"), None);
        assert!(!reader.flag("quiet"));
        let errors: Vec<_> = reader.into_errors().iter().map(OptionError::to_string).collect();
        assert_eq!(
            errors,
            [
                "pth: unknown option; use one of path, warn, quiet",
                "path: is required",
                "warn: \"2:1\" starts after its end",
                "quiet: must be true or false",
            ]
        );
    }

    #[test]
    fn an_option_that_is_given_twice_is_a_list() {
        let options = Options::from_iter([("path", "/"), ("path", "/home"), ("path", "/var")]);
        assert!(Options::from_iter([("warn-days", "3")]).get("warn_days").is_some());
        let mut reader = Reader::new(&options, SPECS);
        assert_eq!(reader.list("path").unwrap(), ["/", "/home", "/var"]);
        assert_eq!(reader.text("path"), None);
        assert_eq!(reader.into_errors().len(), 1);
    }

    #[test]
    fn durations_need_a_valid_unit() {
        let millis = |text: &str| duration(text).map(|d| d.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5"), Ok(1_500));
        assert_eq!(millis("2 m"), Ok(120_000));
        for wrong in ["", "s", "-1s", "1y", "1s2", "1e9d", "99999999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
