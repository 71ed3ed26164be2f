//! The options of a check, from a config table or from a command line.
//!
//! `[check.root] kind = "disk", path = "/", warn = "10%"` and `dogwatch check disk --path / --warn
//! 10%` lead to the same list of names and values. A kind declares its options ([`OptionSpec`],
//! shown by `--help`) and reads them with a [`Reader`], which collects all errors with the names of
//! their options, so that the caller can show the position. Options for the scheduler (`interval`,
//! `timeout`, …) are not passed here.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use dogwatch_duration::Span;

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
    /// The options that were read, and those that may differ from thing to thing.
    taken: RefCell<BTreeSet<String>>,
    of_things: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(options: &'a Options, specs: &'static [OptionSpec]) -> Self {
        let mut reader = Self {
            options,
            specs,
            errors: Vec::new(),
            taken: RefCell::default(),
            of_things: BTreeSet::new(),
        };
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

    /// An option for some things that only counts for the whole check would be lost. Called after
    /// all were read.
    pub(crate) fn refuse_lost_options(&mut self) {
        for (pattern, options) in &self.options.1 {
            let lost = options.names().filter(|name| {
                !self.of_things.contains(*name) && self.specs.iter().any(|spec| spec.name == *name)
            });
            let message = "is for the whole check; write it in the table of the check".to_owned();
            self.errors.extend(lost.map(|name| OptionError {
                things: Some(pattern.clone()),
                option: name.to_owned(),
                message: message.clone(),
            }));
        }
    }

    pub(crate) fn into_errors(self) -> Vec<OptionError> {
        self.errors
    }

    /// Reads options that may differ from thing to thing.
    pub(crate) fn per_thing<T>(&mut self, take: impl Fn(&mut Reader<'_>) -> T) -> PerThing<T> {
        self.taken.take();
        let all = take(self);
        self.of_things.append(&mut self.taken.take());
        let mut some = Vec::new();
        for (pattern, options) in &self.options.1 {
            let merged = self.options.with(options);
            let mut reader = Reader::new(&merged, self.specs);
            reader.refuse_inverted_limits();
            some.push((Pattern::new(pattern), take(&mut reader)));
            let errors = reader.into_errors().into_iter().filter_map(|error| {
                // A limit may be wrong only beside one that is for all things.
                let paired = |from: &str, to: &str| error.option.replacen(from, to, 1);
                let named = [error.option.clone(), paired("crit", "warn"), paired("warn", "crit")];
                let option = named.into_iter().find(|name| options.get(name).is_some())?;
                Some(OptionError { things: Some(pattern.clone()), option, message: error.message })
            });
            let errors: Vec<_> = errors.filter(|error| !self.has_error(&error.message)).collect();
            self.errors.extend(errors);
        }
        PerThing { all, some }
    }

    pub(crate) fn error(&mut self, option: &str, message: impl Into<String>) {
        self.errors.push(OptionError { things: None, option: option.to_owned(), message: message.into() });
    }

    fn has_error(&self, message: &str) -> bool {
        self.errors.iter().any(|error| error.things.is_none() && error.message == message)
    }

    /// The patterns of the things that have options of their own.
    pub(crate) fn things(&self) -> impl Iterator<Item = &'a str> {
        self.options.1.iter().map(|(pattern, _)| pattern.as_str())
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        debug_assert!(self.specs.iter().any(|spec| spec.name == name), "option {name} is not declared");
        self.taken.borrow_mut().insert(name.to_owned());
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

    /// A whole number.
    pub(crate) fn whole<T>(&mut self, name: &str, allowed: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        self.parsed(name, |text| {
            text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
                format!("{text:?} is not a whole number from {} to {}", allowed.start(), allowed.end())
            })
        })
    }

    pub(crate) fn range(&mut self, name: &str) -> Option<Range> {
        self.value(name)
    }

    /// How long something may take or last, and not nothing.
    pub(crate) fn time(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, |text| match time(text) {
            Ok(Duration::ZERO) => Err("must be more than 0s".to_owned()),
            other => other,
        })
    }

    /// How long to wait. `"0s"` means not at all.
    pub(crate) fn delay(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, time)
    }

    /// The limits above which a time alerts. The warning limit must not be above the critical one,
    /// whether both are written or one is the default.
    pub(crate) fn times(
        &mut self,
        [warn, crit]: [&str; 2],
        [warn_default, crit_default]: [Option<Duration>; 2],
        take: fn(&mut Self, &str) -> Option<Duration>,
    ) -> [Option<Duration>; 2] {
        let limits = [take(self, warn).or(warn_default), take(self, crit).or(crit_default)];
        let show = |time: &Duration| Span(*time).to_string();
        self.refuse_inverted([warn, crit], [limits[0].as_ref(), limits[1].as_ref()], show);
        limits
    }

    /// Two limits of which the warning must not be above the critical one.
    pub(crate) fn refuse_inverted<T: PartialOrd>(
        &mut self,
        [warn, crit]: [&str; 2],
        limits: [Option<&T>; 2],
        show: impl Fn(&T) -> String,
    ) {
        if let [Some(lower), Some(upper)] = limits
            && lower > upper
        {
            let (lower, upper) = (show(lower), show(upper));
            let written = if self.options.get(crit).is_some() { crit } else { warn };
            self.error(
                written,
                format!("the warning limit {lower} must not be above the critical limit {upper}"),
            );
        }
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

    /// A list of what is wanted, so not an empty one. A single string is a list of one.
    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let list = self.any_list(name)?;
        if list.is_empty() {
            self.error(name, format!("must have at least one item; without {name}, remove the line"));
            return None;
        }
        Some(list)
    }

    /// A list of what is not wanted, which may be empty.
    pub(crate) fn any_list(&mut self, name: &str) -> Option<Vec<String>> {
        let list = match self.get(name)? {
            Value::List(items) => items.clone(),
            Value::Text(text) => vec![text.clone()],
            Value::Number(_) | Value::Bool(_) => {
                self.error(name, "must be a string or a list of strings, like [\"a\", \"b\"]");
                return None;
            }
        };
        if list.iter().any(|item| item.trim().is_empty()) {
            self.error(name, "must not be empty");
            return None;
        }
        Some(list)
    }

    /// A list of patterns, which may be empty. A pattern that matches nothing is no error.
    pub(crate) fn patterns(&mut self, name: &str) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in self.any_list(name).unwrap_or_default() {
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

/// `"1s"`, `"250ms"`, `"1h 30m"`. A number needs a unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    text.parse().map(|span: Span| span.0)
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
    fn times_need_a_unit_and_an_end() {
        let millis = |text: &str| time(text).map(|time| time.as_millis());
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis("1h 30m"), Ok(5_400_000));
        for wrong in ["", "5", "1.5", "s", "-1s", "1y", "1s2", "1e9d", "99999d", "99999999999999999999999d"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    const TIMES: &[OptionSpec] = &[
        OptionSpec { name: "warn_age", value: "TIME", help: "" },
        OptionSpec { name: "crit_age", value: "TIME", help: "" },
        OptionSpec { name: "port", value: "NUMBER", help: "" },
        OptionSpec { name: "path", value: "PATH", help: "" },
    ];

    fn said(all: &[(&str, &str)], some: &[(&str, &str)]) -> Vec<String> {
        let mut options: Options = all.iter().copied().collect();
        if !some.is_empty() {
            options.set_for("/a", some.iter().copied().collect());
        }
        let mut reader = Reader::new(&options, TIMES);
        reader.per_thing(|reader| {
            let defaults = [None, Some(Duration::from_mins(1))];
            reader.times(["warn_age", "crit_age"], defaults, Reader::time);
            reader.whole("port", 1..=10_u8);
        });
        let shown = |error: &OptionError| format!("{}{error}", error.things.as_deref().unwrap_or_default());
        reader.into_errors().iter().map(shown).collect()
    }

    #[test]
    fn a_warning_limit_above_the_critical_limit_is_found_for_times_too() {
        let above =
            |lower, upper| format!("the warning limit {lower} must not be above the critical limit {upper}");
        assert_eq!(said(&[("warn_age", "5s"), ("crit_age", "5s")], &[]), [""; 0]);
        assert_eq!(
            said(&[("warn_age", "5s"), ("crit_age", "1s")], &[]),
            [format!("crit_age: {}", above("5s", "1s"))]
        );
        assert_eq!(said(&[("warn_age", "2m")], &[]), [format!("warn_age: {}", above("2m", "1m"))]);
        assert_eq!(
            said(&[("crit_age", "10s")], &[("warn_age", "20s")]),
            [format!("/awarn_age: {}", above("20s", "10s"))]
        );
        assert_eq!(said(&[("warn_age", "0s")], &[]), ["warn_age: must be more than 0s"]);
    }

    #[test]
    fn a_number_says_what_it_may_be() {
        for text in ["x", "-1", "1.5", "0", "11", "300", ""] {
            assert_eq!(
                said(&[("port", text)], &[]),
                [format!("port: {text:?} is not a whole number from 1 to 10")]
            );
        }
    }

    #[test]
    fn a_list_of_what_is_wanted_is_not_empty() {
        for (list, expected) in [
            (vec![], "path: must have at least one item; without path, remove the line"),
            (vec!["/a", " "], "path: must not be empty"),
            (vec![""], "path: must not be empty"),
        ] {
            let list = Value::List(list.into_iter().map(str::to_owned).collect());
            let options = Options(vec![("path".to_owned(), list)], Vec::new());
            let mut reader = Reader::new(&options, SPECS);
            assert_eq!(reader.list("path"), None);
            assert_eq!(reader.into_errors()[0].to_string(), expected);
        }
        let options = Options(vec![("path".to_owned(), Value::List(Vec::new()))], Vec::new());
        assert_eq!(Reader::new(&options, SPECS).patterns("path"), []);
    }
}
