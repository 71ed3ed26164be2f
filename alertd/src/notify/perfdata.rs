//! Performance data as text: `/var=96%;80;90` → `/var 96% (warning above 80, critical above 90)`.
//! Pure.
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
    let limits = [("warning", limit(value.warning)), ("critical", limit(value.critical))];
    let limits: Vec<_> =
        limits.into_iter().filter_map(|(name, limit)| Some(format!("{name} {}", limit?))).collect();
    let limits = if limits.is_empty() { String::new() } else { format!(" ({})", limits.join(", ")) };
    format!("{} {}{limits}", value.label, value.value)
}

/// `80` → above 80, `10:` → below 10, `~:20` → above 20, `5:10` → outside 5 to 10, `@5:10` → inside
/// 5 to 10.
fn limit(range: &str) -> Option<String> {
    let (inside, range) = range.strip_prefix('@').map_or((false, range), |rest| (true, rest));
    if range.is_empty() {
        return None;
    }
    Some(match (inside, range.split_once(':')) {
        (false, None) => format!("above {range}"),
        (false, Some((low, ""))) => format!("below {low}"),
        (false, Some(("~", high))) => format!("above {high}"),
        (false, Some((low, high))) => format!("outside {low} to {high}"),
        (true, None) => format!("inside 0 to {range}"),
        (true, Some((low, high))) => format!("inside {low} to {high}"),
    })
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
