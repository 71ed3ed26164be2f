//! Parses the output of a plugin into a summary, more lines of text, and performance data.
//!
//! As in Nagios, line 1 is the summary up to the first `|`. More lines are text up to the next line
//! with a `|`; everything after that `|` is performance data. So plugins that print a tree and end
//! with `|perfdata` (monitoring-plugins 3.x) lose nothing. As in Icinga, a `|` that is not followed
//! by a `=` on its line is text, so that a table does not become performance data.
//!
//! Plugin output is not trusted: invalid UTF-8 is replaced; terminal escapes, control characters
//! and bidirectional overrides are removed; each part is cut at its limit. Escaping for email, HTML
//! or a shell is up to the code that writes there.

use crate::{State, perfdata, result::CheckResult};

/// The longest summary, in bytes. A longer one does not fit into a subject line.
pub const SUMMARY_MAX: usize = 1_024;
/// The longest detail, in bytes: as much as Nagios keeps of a result.
pub const DETAIL_MAX: usize = 8_192;

/// The summary of a plugin that printed none.
pub const NO_OUTPUT: &str = "(no output)";

/// Parses the output of a plugin. The state comes from its exit code.
pub fn parse(state: State, printed: &[u8]) -> CheckResult {
    let text = clean(&String::from_utf8_lossy(printed));
    let mut lines = text.lines().map(str::trim_end).skip_while(|line| line.is_empty());
    let (summary, mut perfdata) = split(lines.next().unwrap_or_default());
    let mut detail = String::new();
    while let Some(line) = lines.next() {
        let (long_text, rest) = split(line);
        detail.push_str(long_text);
        detail.push('\n');
        if let Some(first) = rest {
            let more = std::iter::once(first).chain(lines.by_ref()).collect::<Vec<_>>().join(" ");
            let joined = perfdata.map_or(more.clone(), |before| format!("{before} {more}"));
            return assemble(state, summary, &detail, &joined);
        }
    }
    assemble(state, summary, &detail, perfdata.take().unwrap_or_default())
}

fn assemble(state: State, summary: &str, detail: &str, perfdata: &str) -> CheckResult {
    let perfdata::Parsed { items, unparsable, dropped } = perfdata::parse(perfdata);
    let summary = if summary.is_empty() { NO_OUTPUT } else { cut(summary, SUMMARY_MAX) };
    let mut detail = cut(detail, DETAIL_MAX).trim_end().to_owned();
    if dropped > 0 {
        let all = perfdata::ITEMS_MAX + dropped;
        let note = format!("perfdata: only the first {} of {all} values are kept", perfdata::ITEMS_MAX);
        detail.truncate(cut(&detail, DETAIL_MAX - note.len() - 1).len());
        detail = if detail.is_empty() { note } else { format!("{detail}\n{note}") };
    }
    CheckResult { state, summary: summary.to_owned(), detail, perfdata: items, unparsable }
}

/// Text and performance data of one line.
fn split(line: &str) -> (&str, Option<&str>) {
    match line.split_once('|') {
        Some((text, perfdata)) if perfdata.contains('=') || perfdata.trim().is_empty() => {
            (text.trim_end(), Some(perfdata.trim()))
        }
        _ => (line, None),
    }
}

/// Removes everything but lines of printable characters.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    clean.push('\n');
                }
            }
            '\n' => clean.push('\n'),
            '\t' => clean.push(' '),
            c if c.is_control() || reorders(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

/// Skips the rest of a terminal escape: `[…letter` (colours), `]…BEL` (titles), or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            chars.next_if(|c| matches!(c, '@'..='~'));
        }
        Some(']') => {
            while let Some(c) = chars.next_if(|&c| c != '\n') {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Characters that make text look different from what it is (CVE-2021-42574).
pub(crate) fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(printed: &str) -> (String, String, String) {
        let result = parse(State::Ok, printed.as_bytes());
        let perfdata = result.perfdata_text();
        (result.summary, result.detail, perfdata)
    }

    fn expect(printed: &str, summary: &str, detail: &str, perfdata: &str) {
        assert_eq!(parts(printed), (summary.into(), detail.into(), perfdata.into()), "{printed:?}");
    }

    #[test]
    fn one_line_with_and_without_perfdata() {
        expect("PING ok", "PING ok", "", "");
        expect("DISK OK | /=2643MB;5948;5958;0;5968\n", "DISK OK", "", "/=2643MB;5948;5958;0;5968");
        expect("OK |\n", "OK", "", "");
        expect("", "(no output)", "", "");
        expect("\n\n late\n", " late", "", "");
        expect("| a=1", "(no output)", "", "a=1");
    }

    /// The example of the Nagios Core manual, "plugin API".
    #[test]
    fn long_text_and_perfdata_over_many_lines() {
        expect(
            "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n\
             / 15272 MB (77%);\n/boot 68 MB (69%);\n/var/log 819 MB (84%); | /boot=68MB;88;93;0;98\n\
             /home=69357MB;253404;253409;0;253414\n/var/log=818MB;970;975;0;980\n",
            "DISK OK - free space: / 3326 MB (56%);",
            "/ 15272 MB (77%);\n/boot 68 MB (69%);\n/var/log 819 MB (84%);",
            "/=2643MB;5948;5958;0;5968 /boot=68MB;88;93;0;98 /home=69357MB;253404;253409;0;253414 /var/log=818MB;970;975;0;980",
        );
    }

    /// As printed by monitoring-plugins 3.x.
    #[test]
    fn a_tree_whose_last_line_ends_with_perfdata_keeps_it() {
        expect(
            "[OK] - ok=2\n\t\\_[OK] - / 56%\n\t\\_[OK] - /boot 69%|'/'=2643B;@~:10;;0;5968 '/boot'=68B\n",
            "[OK] - ok=2",
            " \\_[OK] - / 56%\n \\_[OK] - /boot 69%",
            "/=2643B;@~:10;;0;5968 /boot=68B",
        );
    }

    #[test]
    fn a_table_drawn_with_bars_stays_text() {
        expect(
            "2 queues\n| name | depth |\n| mail | 3     |",
            "2 queues",
            "| name | depth |\n| mail | 3     |",
            "",
        );
        expect("a | b", "a | b", "", "");
    }

    #[test]
    fn terminal_escapes_and_misleading_characters_are_removed() {
        expect("\x1b[1;31mCRIT\x1b[0m db\x07", "CRIT db", "", "");
        expect("\x1b]0;title\x07ok \x1b]0;x\x1b\\fine\x1b", "ok fine", "", "");
        expect("a\u{202e}b\0c\u{9b}d\r\ntwo\rthree", "abcd", "two\nthree", "");
        let result = parse(State::Ok, b"caf\xe9 \xff\xfe| a=1 b\xff=2");
        assert_eq!(result.summary, "caf\u{fffd} \u{fffd}\u{fffd}");
        assert_eq!(result.perfdata_text(), "a=1 b\u{fffd}=2");
    }

    #[test]
    fn each_part_is_cut_at_its_limit() {
        let long = format!("{}\n{}", "ä".repeat(SUMMARY_MAX), "x\n".repeat(DETAIL_MAX));
        let result = parse(State::Ok, long.as_bytes());
        assert_eq!(result.summary.len(), SUMMARY_MAX);
        assert!(result.detail.len() <= DETAIL_MAX);
        assert!(result.detail.ends_with('x'));
    }

    #[test]
    fn every_value_is_kept_and_the_result_says_when_there_are_too_many() {
        let many = |count: usize| {
            let values = (0..count).map(|at| format!("v{at}={at}ms")).collect::<Vec<_>>().join("\n");
            parse(State::Ok, format!("ok\ntext | {values}").as_bytes())
        };
        let hundred = many(100);
        assert_eq!((hundred.perfdata.len(), hundred.detail.as_str()), (100, "text"));
        let flood = many(perfdata::ITEMS_MAX + 1);
        assert_eq!(flood.perfdata.len(), perfdata::ITEMS_MAX);
        assert_eq!(flood.detail, "text\nperfdata: only the first 1000 of 1001 values are kept");
    }

    #[test]
    fn invalid_perfdata_is_kept_separately() {
        let result = parse(State::Warning, b"ok | a=1 b=nope 'c d'=2");
        assert_eq!(result.perfdata.len(), 2);
        assert_eq!(result.unparsable, ["b=nope"]);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_bounded_clean_result(printed in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let result = parse(State::Ok, &printed);
            prop_assert!(result.summary.len() <= SUMMARY_MAX && !result.summary.contains('\n'));
            prop_assert!(!result.summary.chars().chain(result.detail.chars()).any(|c| c.is_control() && c != '\n'));
        }

        #[test]
        fn no_line_of_the_output_is_lost(text in "([a-z|=;'0-9 %\\x1b\\n]|::){0,80}") {
            let result = parse(State::Ok, text.as_bytes());
            let again = parse(State::Ok, format!("x | {}", result.perfdata_text()).as_bytes());
            prop_assert_eq!(result.perfdata, again.perfdata);
        }
    }
}
