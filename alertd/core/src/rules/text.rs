//! Text for people: safe versions of untrusted text, names, times and counts. Pure.
//!
//! Plugin output and labels are untrusted: [`line()`] and [`block`] remove control and
//! bidirectional characters and limit the length. [`escaped`] is for HTML; JSON is escaped by its
//! writer.

use std::{collections::BTreeMap, fmt::Write};

use jiff::{Timestamp, tz::TimeZone};

/// Returns `text` as one safe line of at most `chars_max` characters, without control characters
/// and bidirectional overrides.
pub fn line(text: &str, chars_max: usize) -> String {
    let (mut line, mut length, mut gap) = (String::new(), 0, false);
    for c in text.chars().filter(|&c| c.is_whitespace() || is_harmless(c)) {
        if c.is_whitespace() {
            gap = length > 0;
            continue;
        }
        length += 1 + usize::from(gap);
        if length > chars_max {
            // The ellipsis replaces the last character.
            let over = line.chars().count() >= chars_max;
            if over {
                line.pop();
            }
            line.push('…');
            break;
        }
        if std::mem::take(&mut gap) {
            line.push(' ');
        }
        line.push(c);
    }
    line
}

/// Returns long output as at most `lines_max` safe lines of at most 500 characters; spaces are kept
/// so that columns stay aligned.
pub fn block(text: &str, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.replace('\t', "    ").chars().filter(|&c| is_harmless(c)).take(500).collect())
        .collect();
    if lines.len() > lines_max {
        let more = lines.len() - lines_max;
        lines.truncate(lines_max);
        lines.push(format!("… and {more} more lines"));
    }
    lines
}

/// False for control characters and for characters that change the text direction (UAX #9).
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `web1/disk` for a service, else what identifies a posted alert.
pub fn name_of(labels: &BTreeMap<String, String>) -> String {
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty());
    let name = match (label("host"), label("service"), label("alertname")) {
        (Some(host), Some(service), _) => format!("{host}/{service}"),
        (Some(host), None, Some(name)) => format!("{host}/{name}"),
        (Some(only), None, None) | (None, Some(only), _) | (None, None, Some(only)) => only.clone(),
        (None, None, None) => {
            let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(",")
        }
    };
    line(&name, 120)
}

/// `03:12 Sat 21 Nov 2026 CET`.
pub fn clock_time(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%H:%M %a %d %b %Y %Z").to_string()
}

/// `4 min`, `3 h 20 min`, `2 d 4 h`: at most two units.
pub fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1 problem`, `2 problems`, `2 recoveries`.
pub fn plural(n: usize, noun: &str) -> String {
    let mut text = format!("{n} ");
    let plural = match noun.strip_suffix('y') {
        _ if n == 1 => noun.into(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{noun}s"),
    };
    let _ = write!(text, "{plural}");
    text
}

/// `2026-11-21 03:12 UTC`, for readers in several time zones.
pub fn utc_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Escapes text for HTML, between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_stays_on_its_line() {
        let text = "a\r\nBcc: x@y\u{202e}z\u{1b}[31m\0\t end";
        assert_eq!(line(text, 100), "a Bcc: x@yz[31m end");
        assert_eq!(line("äöü€uro", 4), "äöü…");
        assert_eq!(
            ["abcd", " abcd ", "abc d", "abc  de"].map(|text| line(text, 4)),
            ["abcd", "abcd", "abc…", "abc…"]
        );
        assert_eq!(block("a\tb\n\u{7}c\nd", 2), ["a    b", "c", "… and 1 more lines"]);
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let start = Timestamp::from_second(1_000_000_000).unwrap();
        let after = |seconds| age(start, start + jiff::SignedDuration::from_secs(seconds));
        assert_eq!(
            [after(7), after(250), after(12_000), after(187_200)],
            ["7 s", "4 min", "3 h 20 min", "2 d 4 h"]
        );
        assert_eq!(after(-5), "0 s", "the host's clock may be ahead");
    }
}
