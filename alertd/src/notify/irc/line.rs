//! Reads and writes lines of IRC (RFC 1459 §2.3, RFC 2812 §2.3; tags: IRCv3 message-tags). Pure.
//!
//! Input is untrusted: any bytes give a message or `None`. Output never contains control characters
//! except the final CR LF and never more than 512 bytes, so no text can become a second command.

use std::collections::BTreeMap;

/// Bytes in a line, including CR LF (RFC 2812 §2.3).
const LINE_BYTES_MAX: usize = 512;
/// Longest prefix that a server adds when it forwards our text: `:nick!user@host `.
const PREFIX_BYTES_MAX: usize = 110;
/// Parameters in one message (RFC 2812 §2.3).
const PARAMETERS_MAX: usize = 15;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tags: BTreeMap<String, String>,
    /// The sender's nick, or the server's name.
    pub nick: String,
    /// An upper-case word or three digits.
    pub command: String,
    pub parameters: Vec<String>,
}

impl Message {
    /// Reads a line; `None` if it is malformed.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(line);
        let mut rest = text.trim_end_matches(['\r', '\n']);
        let mut tags = BTreeMap::new();
        if let Some(tagged) = rest.strip_prefix('@') {
            let (all, after) = tagged.split_once(' ')?;
            tags = all.split(';').map(tag).collect();
            rest = after.trim_start_matches(' ');
        }
        let mut nick = String::new();
        if let Some(prefixed) = rest.strip_prefix(':') {
            let (prefix, after) = prefixed.split_once(' ')?;
            prefix.split(['!', '@']).next().unwrap_or_default().clone_into(&mut nick);
            rest = after.trim_start_matches(' ');
        }
        let (command, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if command.is_empty() || !command.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let mut parameters = Vec::new();
        while !rest.is_empty() {
            rest = rest.trim_start_matches(' ');
            if let Some(last) = rest.strip_prefix(':') {
                parameters.push(last.to_owned());
                break;
            }
            if parameters.len() + 1 == PARAMETERS_MAX {
                parameters.push(rest.to_owned());
                break;
            }
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            if !word.is_empty() {
                parameters.push(word.to_owned());
            }
            rest = after;
        }
        Some(Self { tags, nick, command: command.to_ascii_uppercase(), parameters })
    }

    pub fn parameter(&self, at: usize) -> &str {
        self.parameters.get(at).map_or("", String::as_str)
    }
}

fn tag(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let mut plain = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        match (std::mem::take(&mut escaped), c) {
            (false, '\\') => escaped = true,
            (true, ':') => plain.push(';'),
            // An escaped CR or LF becomes a space.
            (true, 's' | 'r' | 'n') => plain.push(' '),
            (_, c) => plain.push(c),
        }
    }
    (name.to_owned(), plain)
}

/// A line to the server: `words` separated by spaces, then `text` after a colon. Control characters
/// become spaces; the line is truncated to the limit between characters.
pub fn line(words: &[&str], text: Option<&str>) -> Vec<u8> {
    let mut line = words.join(" ");
    if let Some(text) = text {
        line.push_str(" :");
        line.push_str(text);
    }
    let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&mut line, LINE_BYTES_MAX - 2);
    line.push_str("\r\n");
    line.into_bytes()
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Splits `text` into pieces that servers forward without truncation, at spaces if possible.
pub fn pieces(text: &str, channel: &str) -> Vec<String> {
    let room =
        (LINE_BYTES_MAX - 2 - PREFIX_BYTES_MAX).saturating_sub("PRIVMSG  :".len() + channel.len()).max(40);
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while rest.len() > room {
        let border = (0..=room).rev().find(|&end| rest.is_char_boundary(end)).unwrap_or(room);
        let space = rest[..border].rfind(' ').filter(|&space| space > room / 2);
        let (piece, after) = rest.split_at(space.unwrap_or(border));
        pieces.push(piece.trim_end().to_owned());
        rest = after.trim_start();
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

/// Compares names as servers do: `A` equals `a`, `[` equals `{` (RFC 2812 §2.2).
pub fn same_name(a: &str, b: &str) -> bool {
    fold(a) == fold(b)
}

pub fn fold(name: &str) -> String {
    let fold = |c: char| match c {
        '[' => '{',
        ']' => '}',
        '\\' => '|',
        '~' => '^',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Message {
        Message::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_has_tags_prefix_command_and_parameters() {
        let message = parsed("@time=1;account=ann\\sb :ann_!u@host PRIVMSG #ops :!ack 1 on it\r\n");
        assert_eq!((message.nick.as_str(), message.command.as_str()), ("ann_", "PRIVMSG"));
        assert_eq!(message.parameters, ["#ops", "!ack 1 on it"]);
        assert_eq!(message.tags["account"], "ann b");
        assert_eq!(parsed("PING :a b").parameters, ["a b"]);
        assert_eq!(parsed(":srv 001  dog   :hi").parameters, ["dog", "hi"]);
        assert_eq!(parsed(":srv 005 a b c d e f g h i j k l m n o p").parameters.len(), PARAMETERS_MAX);
        for wrong in ["", "\r\n", "@x", ":only-a-prefix", "@a :b", "\u{1}X"] {
            assert_eq!(Message::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn text_cannot_become_a_second_command_or_a_long_line() {
        let said = line(&["PRIVMSG", "#ops"], Some("a\r\nQUIT :x\0\u{1}y"));
        assert_eq!(said, b"PRIVMSG #ops :a  QUIT :x  y\r\n");
        let said = line(&["PRIVMSG", "#ops"], Some(&"ü".repeat(600)));
        assert!(said.len() <= LINE_BYTES_MAX && String::from_utf8(said).is_ok());
    }

    #[test]
    fn long_text_is_split_without_loss() {
        let text = "wörter ".repeat(200);
        let all = pieces(&text, "#ops");
        assert!(all.iter().all(|piece| piece.len() <= 400), "{all:?}");
        assert_eq!(all.join(" "), text.trim());
        assert_eq!(pieces(&"ü".repeat(900), "#ops").concat(), "ü".repeat(900));
        assert_eq!(pieces("", "#ops"), [""]);
    }
}
