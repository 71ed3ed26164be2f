//! Performance data of plugins, `'label'=value[unit];[warn];[crit];[min];[max]`: parsing and
//! printing.
//!
//! An invalid item is skipped and returned as text; the other items are not affected. Units stay as
//! printed; [`crate::unit`] converts them into seconds, bytes and so on. The state is never derived
//! from performance data, because the same label can mean *used* or *free* (both have occurred in
//! `check_disk`).

use std::fmt;

use crate::threshold::{Number, Range, number};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Perf {
    pub label: String,
    /// `None` if the plugin printed `U`: the value could not be determined.
    pub value: Option<f64>,
    /// As printed: `ms`, `KB`, `%`, `c`, or nothing.
    pub unit: String,
    pub warn: Option<Range>,
    pub crit: Option<Range>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Perf {
    pub fn new(label: impl Into<String>, value: f64, unit: &str) -> Self {
        let value = value.is_finite().then_some(value);
        Self {
            label: label.into(),
            value,
            unit: unit.to_owned(),
            warn: None,
            crit: None,
            min: None,
            max: None,
        }
    }

    #[must_use]
    pub fn thresholds(mut self, warn: Option<Range>, crit: Option<Range>) -> Self {
        (self.warn, self.crit) = (warn, crit);
        self
    }

    #[must_use]
    pub fn bounds(mut self, min: impl Into<Option<f64>>, max: impl Into<Option<f64>>) -> Self {
        (self.min, self.max) = (min.into(), max.into());
        self
    }
}

impl fmt::Display for Perf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = !self.label.is_empty()
            && !self.label.contains(|c: char| c.is_whitespace() || matches!(c, '=' | '\'' | '|'));
        if plain {
            write!(f, "{}=", self.label)?;
        } else {
            write!(f, "'{}'=", shown(&self.label).replace('\'', "''"))?;
        }
        match self.value {
            Some(value) => write!(f, "{}{}", Number(value), self.unit)?,
            None => f.write_str("U")?,
        }
        let range = |range: Option<Range>| range.map(|range| range.to_string()).unwrap_or_default();
        let bound = |bound: Option<f64>| bound.map(|bound| Number(bound).to_string()).unwrap_or_default();
        let rest = [range(self.warn), range(self.crit), bound(self.min), bound(self.max)].join(";");
        let rest = rest.trim_end_matches(';');
        if rest.is_empty() { Ok(()) } else { write!(f, ";{rest}") }
    }
}

/// Prints items as a plugin does, separated by spaces.
pub fn print(items: &[Perf]) -> String {
    items.iter().map(Perf::to_string).collect::<Vec<_>>().join(" ")
}

/// The result of [`parse`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    pub items: Vec<Perf>,
    /// Invalid items, as they were.
    pub unparsable: Vec<String>,
    /// How many more items there were after the first [`ITEMS_MAX`].
    pub dropped: usize,
}

/// Parses the text after the `|`. Never fails as a whole. At most [`ITEMS_MAX`] items are kept.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut prefix = String::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (item, tail) = next_item(rest);
        match item {
            _ if parsed.items.len() + parsed.unparsable.len() >= ITEMS_MAX => parsed.dropped += 1,
            Item::Readable { label, values } => match parse_item(&label, values) {
                Some(perf) => parsed.items.push(with_prefix(perf, &mut prefix)),
                None => parsed.unparsable.push(rest[..rest.len() - tail.len()].to_owned()),
            },
            Item::Unreadable(item) => parsed.unparsable.push(item.to_owned()),
        }
        rest = tail.trim_start();
    }
    parsed
}

/// The limit of values per plugin. More must be a mistake; the rest is dropped, and the result says
/// so.
pub const ITEMS_MAX: usize = 1_000;

enum Item<'a> {
    Readable { label: String, values: &'a str },
    Unreadable(&'a str),
}

/// Splits the next item off `text`, which does not start with a space.
fn next_item(text: &str) -> (Item<'_>, &str) {
    let end_of =
        |text: &str, from: usize| text[from..].find(char::is_whitespace).map_or(text.len(), |end| from + end);
    if let Some(quoted) = text.strip_prefix('\'')
        && let Some((label, length)) = quoted_label(quoted)
        && quoted[length..].starts_with('=')
    {
        let values_at = 1 + length + 1;
        let end = end_of(text, values_at);
        return (Item::Readable { label, values: &text[values_at..end] }, &text[end..]);
    }
    let end = end_of(text, 0);
    let (item, tail) = text.split_at(end);
    // The last `=`: a label may contain one, a value may not.
    let item = match item.rsplit_once('=') {
        Some((label, values)) if !label.starts_with('\'') => {
            Item::Readable { label: label.to_owned(), values }
        }
        _ => Item::Unreadable(item),
    };
    (item, tail)
}

/// The label up to its closing quote, and its length in bytes. `''` is a quote within the label.
fn quoted_label(text: &str) -> Option<(String, usize)> {
    let mut label = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\'' {
            label.push(c);
        } else if chars.next_if(|&(_, next)| next == '\'').is_some() {
            label.push('\'');
        } else {
            return Some((label, at + 1));
        }
    }
    None
}

/// `check_multi` prints `plugin::label=…` once, and it applies to the labels that follow.
fn with_prefix(mut perf: Perf, prefix: &mut String) -> Perf {
    if let Some((plugin, _)) = perf.label.split_once("::") {
        plugin.clone_into(prefix);
    } else if !prefix.is_empty() {
        perf.label = format!("{prefix}::{}", perf.label);
    }
    perf
}

fn parse_item(label: &str, values: &str) -> Option<Perf> {
    if label.is_empty() {
        return None;
    }
    let mut fields = values.split(';');
    let (value, unit) = match fields.next()? {
        "U" => (None, ""),
        measured => {
            let (digits, unit) = split_unit(measured);
            (Some(number(digits)?), unit)
        }
    };
    // Keep the value even if a range is invalid.
    let mut range = || fields.next().and_then(|text| text.parse().ok());
    let (warn, crit) = (range(), range());
    let mut bound = || fields.next().and_then(number);
    let (min, max) = (bound(), bound());
    Some(Perf { label: shown(label), value, unit: unit_ok(unit)?.to_owned(), warn, crit, min, max })
}

/// A label must not contain `|` or control characters.
fn shown(label: &str) -> String {
    label.replace('|', "¦").replace(|c: char| c.is_control(), " ")
}

/// The end of the number. An `e` belongs to it only if an exponent follows: `1EB` is an exabyte.
fn split_unit(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let digits_from = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits_from(usize::from(text.starts_with(['+', '-'])));
    if bytes.get(end) == Some(&b'.') {
        end = digits_from(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = digits_from(exponent);
        if after > exponent {
            end = after;
        }
    }
    text.split_at(end)
}

/// `1,23` and `123_456` are mistakes, not numbers with an unusual unit.
fn unit_ok(unit: &str) -> Option<&str> {
    let wrong = |c: char| {
        c.is_ascii_digit() || c.is_control() || (c.is_ascii_punctuation() && !matches!(c, '%' | '/' | '*'))
    };
    (!unit.contains(wrong)).then_some(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Perf {
        let parsed = parse(text);
        assert_eq!((parsed.items.len(), parsed.unparsable.len()), (1, 0), "{text:?}: {parsed:?}");
        parsed.items.into_iter().next().unwrap()
    }

    #[test]
    fn ranges_are_kept_where_icinga_drops_them() {
        let perf = one("test=123456;1000:2000;0:3000;3000;4000");
        assert_eq!(perf.warn, "1000:2000".parse().ok());
        assert_eq!(perf.crit, "0:3000".parse().ok());
        assert_eq!((perf.min, perf.max), (Some(3_000.0), Some(4_000.0)));
        let careless = one("a=5;warn;@;0;10");
        assert_eq!((careless.warn, careless.crit, careless.max), (None, None, Some(10.0)));
    }

    #[test]
    fn invalid_items_are_returned_and_do_not_affect_the_others() {
        for item in [
            "test=",
            "123456",
            "a=1,23",
            "a=123_456",
            "a=inf",
            "a=-Inf",
            "a=nan%",
            "inode=nan%",
            "=1",
            "''=1",
            "'a=1",
            "a='1'",
        ] {
            let parsed = parse(&format!("before=1 {item} after=2"));
            assert_eq!(parsed.unparsable, [item], "{item}");
            assert_eq!(parsed.items.len(), 2, "{item}");
        }
    }

    #[test]
    fn a_value_may_be_undetermined() {
        assert_eq!(one("a=U;1;2").value, None);
        assert_eq!(one("a=U").to_string(), "a=U");
    }

    #[test]
    fn labels_may_be_quoted_and_prefixed() {
        let labels = |text: &str| parse(text).items.into_iter().map(|perf| perf.label).collect::<Vec<_>>();
        assert_eq!(labels("'a b'=1 'it''s'=2 'a=b'=3 a=b=4 '/'=5"), ["a b", "it's", "a=b", "a=b", "/"]);
        assert_eq!(labels("test::a=3 b=4 other::c=5 d=6"), ["test::a", "test::b", "other::c", "other::d"]);
    }

    #[test]
    fn lines_of_real_plugins_are_parsed() {
        for line in [
            "load1=0.380;5.000;10.000;0; load5=0.280;4.000;6.000;0;",
            "/home=32MB;491;501;-2147483648;511",
            "time=0.000112s;;;0.000000;10.000000",
            "rta=0.036000ms;100.000000;500.000000;0.000000 pl=0%;20;60;0",
        ] {
            let parsed = parse(line);
            assert_eq!(parsed.unparsable, [""; 0], "{line}");
            assert_eq!(parse(&print(&parsed.items)).items, parsed.items, "{line}");
        }
    }

    #[test]
    fn the_number_of_items_is_limited() {
        let parsed = parse(&"a=1 b ".repeat(ITEMS_MAX));
        assert_eq!(parsed.items.len() + parsed.unparsable.len(), ITEMS_MAX);
        assert_eq!(parsed.dropped, ITEMS_MAX);
    }

    prop_compose! {
        fn any_range()(start in -1e9..1e9, length in 0.0..1e9, inside: bool) -> Range {
            let at = if inside { "@" } else { "" };
            format!("{at}{}:{}", Number(start), Number(start + length)).parse().unwrap()
        }
    }

    prop_compose! {
        fn any_perf()(
            label in "[a-z/ '=|]{1,10}",
            value in proptest::option::of(-1e300..1e300),
            unit in "(|s|ms|%|KB|c|MiB)",
            warn in proptest::option::of(any_range()),
            crit in proptest::option::of(any_range()),
            min in proptest::option::of(-1e9..1e9),
            max in proptest::option::of(-1e9..1e9),
        ) -> Perf {
            let unit = if value.is_some() { unit } else { String::new() };
            Perf { label: label.replace('|', "¦"), value, unit, warn, crit, min, max }
        }
    }

    proptest! {
        #[test]
        fn printed_items_parse_to_the_same_items(items in proptest::collection::vec(any_perf(), 0..5)) {
            prop_assert_eq!(parse(&print(&items)), Parsed { items, ..Parsed::default() });
        }

        #[test]
        fn no_item_of_any_text_is_lost(text in "([a-z0-9=;'.:%@~ ]|\\PC){0,60}") {
            let parsed = parse(&text);
            prop_assert!(parsed.items.len() + parsed.unparsable.len() <= text.len());
            if !text.trim().is_empty() {
                prop_assert!(!parsed.items.is_empty() || !parsed.unparsable.is_empty());
            }
        }
    }
}
