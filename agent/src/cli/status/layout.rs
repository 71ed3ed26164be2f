//! Lines for people: their width, their colours, and breaking text at spaces.

use std::{
    env,
    io::{IsTerminal as _, stdout},
};

/// What the output can show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Columns; `None` if nothing must be cut.
    pub(super) width: Option<usize>,
    pub(super) colour: bool,
}

impl Layout {
    pub(super) fn of_stdout() -> Self {
        if !stdout().is_terminal() {
            return Self { width: None, colour: false };
        }
        let columns = rustix::termios::tcgetwinsize(stdout()).map_or(0, |size| usize::from(size.ws_col));
        let width = if columns == 0 { WIDTH_DEFAULT } else { columns.max(WIDTH_MIN) };
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width: Some(width), colour: !set("NO_COLOR") && !dumb }
    }

    /// The text in the colour of a state.
    pub(super) fn painted(self, text: &str, state: &str) -> String {
        let code = match state {
            "OK" => "32",
            "WARNING" => "33",
            "CRITICAL" => "1;31",
            "UNKNOWN" => "35",
            _ => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The text in lines that fit beside `used` columns.
    pub(super) fn wrapped(self, text: &str, used: usize) -> Vec<String> {
        match self.width {
            Some(width) => wrap(text, width.saturating_sub(used).max(1)),
            None => vec![text.to_owned()],
        }
    }
}

/// If the terminal does not know.
const WIDTH_DEFAULT: usize = 80;
/// Anything narrower is no terminal for people.
const WIDTH_MIN: usize = 20;

/// Breaks at spaces; a word that is too long is broken anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() <= width {
            used += 1;
            last(&mut lines).push(' ');
        } else if used > 0 {
            used = 0;
            lines.push(String::new());
        }
        while rest.len() > width {
            let tail = rest.split_off(width);
            last(&mut lines).extend(rest);
            lines.push(String::new());
            rest = tail;
        }
        used += rest.len();
        last(&mut lines).extend(rest);
    }
    lines
}

fn last(lines: &mut Vec<String>) -> &mut String {
    if lines.is_empty() {
        lines.push(String::new());
    }
    let end = lines.len() - 1;
    &mut lines[end]
}

/// The start of a text, with `…` if there is more; up to the end of a word, unless that would lose
/// more than half.
pub(super) fn cut(text: &str, width: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(width) else { return text.to_owned() };
    let room = text.char_indices().nth(width.saturating_sub(1)).map_or(end, |(at, _)| at);
    let (start, rest) = text.split_at(room);
    let words = start.rfind(' ').filter(|space| !rest.starts_with(' ') && *space >= room / 2);
    format!("{}…", start[..words.unwrap_or(room)].trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrap("one two  three", 8), ["one two", "three"]);
        assert_eq!(wrap("a verylongword b", 5), ["a", "veryl", "ongwo", "rd b"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(cut("one two", 7), "one two");
        assert_eq!(cut("one two three", 8), "one two…");
        assert_eq!(cut("one two three", 5), "one…");
    }

    proptest! {
        #[test]
        fn no_line_is_too_long_and_no_word_is_lost(text in "[a-zä ]{0,60}", width in 1_usize..20) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
            prop_assert!(cut(&text, width).chars().count() <= width);
        }
    }
}
