//! Performance data as text: `/var=96%;80;90` → `/var 96% (warning above 80, critical above 90)`.
//! Pure.
//!
//! Bytes and seconds, the base units of the agent, are shown in units for people: `20615843021B` is
//! `19.2 GiB`, and so are its limits, which are written without a unit.
//!
//! The grammar is that of Nagios plugins (monitoring-plugins development guidelines, "Performance
//! data" and "Threshold and ranges"). Text that does not follow it is shown unchanged.

use dogwatch_alertd_core::rules::text;

/// One value as the plugin printed it.
struct Sample<'a> {
    label: String,
    value: &'a str,
    warning: &'a str,
    critical: &'a str,
}

/// Values with limits first, at most `chars_max` characters in all.
pub(super) fn in_words(perfdata: &str, chars_max: usize) -> String {
    let Some(mut values) = values(perfdata) else { return text::line(perfdata, chars_max) };
    values.sort_by_key(|value| value.warning.is_empty() && value.critical.is_empty());
    let said: Vec<_> = values.iter().map(said).collect();
    text::line(&said.join(", "), chars_max)
}

fn said(value: &Sample<'_>) -> String {
    let (amount, unit) = value.value.split_at(end_of_number(value.value));
    let amount = match unit {
        "B" | "s" => number(amount, unit),
        _ => value.value.to_owned(),
    };
    let limits = [("warning", limit(value.warning, unit)), ("critical", limit(value.critical, unit))];
    let limits: Vec<_> =
        limits.into_iter().filter_map(|(name, limit)| Some(format!("{name} {}", limit?))).collect();
    let limits = if limits.is_empty() { String::new() } else { format!(" ({})", limits.join(", ")) };
    format!("{} {amount}{limits}", value.label)
}

/// `80` → above 80, `10:` → below 10, `~:20` → above 20, `5:10` → outside 5 to 10, `@5:10` → inside
/// 5 to 10. `unit` is that of the value.
fn limit(range: &str, unit: &str) -> Option<String> {
    let (inside, range) = range.strip_prefix('@').map_or((false, range), |rest| (true, rest));
    if range.is_empty() {
        return None;
    }
    let of = |bound: &str| number(bound, unit);
    Some(match (inside, range.split_once(':')) {
        (false, None) => format!("above {}", of(range)),
        (false, Some((low, ""))) => format!("below {}", of(low)),
        (false, Some(("~", high))) => format!("above {}", of(high)),
        (false, Some((low, high))) => format!("outside {} to {}", of(low), of(high)),
        (true, None) => format!("inside 0 to {}", of(range)),
        (true, Some((low, high))) => format!("inside {} to {}", of(low), of(high)),
    })
}

/// A number of bytes or seconds for people; everything else unchanged.
fn number(text: &str, unit: &str) -> String {
    match (text.parse::<f64>(), unit) {
        (Ok(bytes), "B") if bytes.is_finite() => size(bytes),
        (Ok(seconds), "s") if seconds.is_finite() => time(seconds),
        _ => text.to_owned(),
    }
}

/// Where the unit begins.
fn end_of_number(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(text.len())
}

/// `512 B`, `19.2 GiB`.
fn size(bytes: f64) -> String {
    if bytes.abs() < 1_024.0 {
        return format!("{} B", short(bytes));
    }
    let mut amount = bytes;
    let mut unit = "";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        (amount, unit) = (amount / 1_024.0, larger);
        // 1023.96 would be printed as 1024.0.
        if amount.abs() < 1_023.95 {
            break;
        }
    }
    format!("{amount:.1} {unit}")
}

/// `350 µs`, `1.2 ms`, `3.5 s`, `4 min 10 s`, `3 d`: at most two units.
fn time(seconds: f64) -> String {
    match seconds.abs() {
        0.0 => "0 s".to_owned(),
        few if few < 1e-3 => format!("{} µs", short(seconds * 1e6)),
        few if few < 1.0 => format!("{} ms", short(seconds * 1e3)),
        few if few < 60.0 => format!("{} s", short(seconds)),
        many => {
            let sign = if seconds < 0.0 { "-" } else { "" };
            let (large, name, small, rest) = match many {
                many if many < 3_600.0 => (60.0, "min", 1.0, "s"),
                many if many < 86_400.0 => (3_600.0, "h", 60.0, "min"),
                _ => (86_400.0, "d", 3_600.0, "h"),
            };
            let (whole, left) = ((many / large).floor(), (many % large / small).floor());
            let left = if left > 0.0 { format!(" {left} {rest}") } else { String::new() };
            format!("{sign}{whole} {name}{left}")
        }
    }
}

/// Two decimals at most, without zeros at the end.
fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// All values, or `None` if any is malformed: showing only some would mislead.
fn values(mut rest: &str) -> Option<Vec<Sample<'_>>> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return (!found.is_empty()).then_some(found);
        }
        let label;
        (label, rest) = label_of(rest)?;
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let mut parts = rest[..end].split(';');
        let value = parts
            .next()
            .filter(|value| value.starts_with(|c: char| "-+.U".contains(c) || c.is_ascii_digit()))?;
        let (warning, critical) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        found.push(Sample { label, value, warning, critical });
        rest = &rest[end..];
    }
}

/// Reads `label=` or `'label with = and ''quotes'''=`; returns the label and the rest.
fn label_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        let plain = !label.is_empty() && !label.contains(char::is_whitespace);
        return plain.then(|| (label.to_owned(), rest));
    };
    let mut label = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('\'')?;
        label.push_str(before);
        match after.strip_prefix('\'') {
            Some(after) => {
                label.push('\'');
                rest = after;
            }
            None => return after.strip_prefix('=').map(|rest| (label, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(perfdata: &str) -> String {
        in_words(perfdata, 200)
    }

    #[test]
    fn a_value_is_shown_with_its_limits() {
        assert_eq!(said("/var=96%;80;90"), "/var 96% (warning above 80, critical above 90)");
        assert_eq!(said("free=1GB;5:;2:"), "free 1GB (warning below 5, critical below 2)");
        assert_eq!(said("t=21;@10:20;~:40"), "t 21 (warning inside 10 to 20, critical above 40)");
        assert_eq!(said("load1=0.5;;5:10;0"), "load1 0.5 (critical outside 5 to 10)");
        assert_eq!(said("n=U"), "n U");
    }

    #[test]
    fn bytes_and_seconds_are_shown_in_units_for_people() {
        for (perfdata, expected) in [
            (
                "/var=20615843021B;19327352832;20401094656;0;21474836480",
                "/var 19.2 GiB (warning above 18.0 GiB, critical above 19.0 GiB)",
            ),
            (
                "free=524288000B;1073741824:;524288000:",
                "free 500.0 MiB (warning below 1.0 GiB, critical below 500.0 MiB)",
            ),
            ("in=0B out=1023B big=1125899906842624B", "in 0 B, out 1023 B, big 1.0 PiB"),
            ("x=1048575B;@1024:2048", "x 1.0 MiB (warning inside 1.0 KiB to 2.0 KiB)"),
            ("rta=0.00035s;0.1;~:1.5", "rta 350 µs (warning above 100 ms, critical above 1.5 s)"),
            ("runway=259200s age=4000s;90:", "age 1 h 6 min (warning below 1 min 30 s), runway 3 d"),
            ("offset=-0.25s;-1:1", "offset -250 ms (warning outside -1 s to 1 s)"),
            // Not in base units, not a number, or nothing known.
            ("free=1.5GB;2:", "free 1.5GB (warning below 2)"),
            ("t=U;5 load=20615843021;x", "t U (warning above 5), load 20615843021 (warning above x)"),
            ("q=5e3s", "q 5e3s"),
        ] {
            assert_eq!(said(perfdata), expected);
        }
    }

    #[test]
    fn values_with_limits_come_first() {
        assert_eq!(said("a=1 'b ''x'' c'=2;3 d=4"), "b 'x' c 2 (warning above 3), a 1, d 4");
    }

    #[test]
    fn malformed_text_is_shown_unchanged() {
        for text in ["about half", "x=", "=5", "'open=5", "a=1 and more", "x=y", "'a' =5"] {
            assert_eq!(said(text), text);
        }
        assert_eq!(said(""), "");
        assert_eq!(
            said("a=1\r\n\u{202e}b=2;3"),
            "\u{202e}b 2 (warning above 3), a 1".replace('\u{202e}', "")
        );
    }
}
