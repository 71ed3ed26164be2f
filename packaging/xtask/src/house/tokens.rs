//! Rust source text as tokens: words, punctuation, literals and what is in brackets.
//!
//! As much of the language as it takes not to read comments, strings and characters as code. Text
//! that does not compile is read as well as possible.

use std::{iter::Peekable, str::CharIndices};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// An identifier or keyword, without `r#`.
    Word {
        text: String,
        line: usize,
    },
    Mark(char),
    /// A string, as written; numbers and characters are empty.
    Literal(String),
    /// `(`, `[` or `{`, and what is inside.
    Group {
        open: char,
        inside: Vec<Token>,
    },
}

impl Token {
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn is(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }

    pub(super) fn group(&self, bracket: char) -> Option<&[Token]> {
        match self {
            Self::Group { open, inside } if *open == bracket => Some(inside),
            _ => None,
        }
    }
}

pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, rest: text.char_indices().peekable(), line: 1 };
    let mut open: Vec<(char, Vec<Token>)> = Vec::new();
    let mut now = Vec::new();
    while let Some(token) = lexer.next() {
        match token {
            Token::Mark(bracket @ ('(' | '[' | '{')) => open.push((bracket, std::mem::take(&mut now))),
            Token::Mark(')' | ']' | '}') => {
                if let Some((bracket, outer)) = open.pop() {
                    let inside = std::mem::replace(&mut now, outer);
                    now.push(Token::Group { open: bracket, inside });
                }
            }
            token => now.push(token),
        }
    }
    while let Some((bracket, outer)) = open.pop() {
        let inside = std::mem::replace(&mut now, outer);
        now.push(Token::Group { open: bracket, inside });
    }
    now
}

struct Lexer<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            let (at, first) = self.take()?;
            let second = self.peek();
            match first {
                _ if first.is_whitespace() => {}
                '/' if second == Some('/') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.take();
                    }
                }
                '/' if second == Some('*') => self.block_comment(),
                '"' => return Some(self.string(at, 0, true)),
                '\'' => {
                    if let Some(token) = self.character() {
                        return Some(token);
                    }
                }
                _ if first.is_ascii_digit() => {
                    while self.peek().is_some_and(is_word) {
                        self.take();
                    }
                    return Some(Token::Literal(String::new()));
                }
                _ if is_word(first) => return Some(self.word(at, first)),
                mark => return Some(Token::Mark(mark)),
            }
        }
    }

    fn take(&mut self) -> Option<(usize, char)> {
        let (at, c) = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some((at, c))
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn place(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    /// They nest.
    fn block_comment(&mut self) {
        let (mut depth, mut before) = (0, '/');
        while let Some(c) = self.peek() {
            self.take();
            match (before, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    before = c;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
            before = ' ';
        }
    }

    /// The rest of a string; `hashes` of a raw one.
    fn string(&mut self, from: usize, hashes: usize, escapes: bool) -> Token {
        while let Some((_, c)) = self.take() {
            if c == '\\' && escapes {
                self.take();
            }
            if c == '"' && (0..hashes).all(|_| self.rest.next_if(|(_, c)| *c == '#').is_some()) {
                break;
            }
        }
        Token::Literal(self.text[from..self.place()].to_owned())
    }

    /// `'a'` is a literal; `'a` is a lifetime, which is left out.
    fn character(&mut self) -> Option<Token> {
        let (_, first) = self.take()?;
        if first == '\\' {
            self.take();
            while self.take().is_some_and(|(_, c)| c != '\'') {}
            return Some(Token::Literal(String::new()));
        }
        if self.rest.next_if(|(_, c)| *c == '\'').is_some() {
            return Some(Token::Literal(String::new()));
        }
        while self.peek().is_some_and(is_word) {
            self.take();
        }
        None
    }

    fn word(&mut self, from: usize, first: char) -> Token {
        let line = self.line;
        while self.peek().is_some_and(is_word) {
            self.take();
        }
        let text = &self.text[from..self.place()];
        let raw = matches!(text, "r" | "br" | "cr");
        match self.peek() {
            Some('"') if raw || matches!(text, "b" | "c") => {
                self.take();
                self.string(from, 0, !raw)
            }
            Some('\'') if text == "b" => {
                self.take();
                self.character().unwrap_or(Token::Literal(String::new()))
            }
            Some('#') if raw => {
                let mut hashes = 0;
                while self.rest.next_if(|(_, c)| *c == '#').is_some() {
                    hashes += 1;
                }
                if self.peek() == Some('"') {
                    self.take();
                    return self.string(from, hashes, false);
                }
                // `r#type`
                let name = self.take().map_or((from, first), |next| next);
                self.word(name.0, name.1)
            }
            _ => Token::Word { text: text.to_owned(), line },
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(tokens: &[Token]) -> Vec<String> {
        let each = tokens.iter().map(|token| match token {
            Token::Word { text, .. } => vec![text.clone()],
            Token::Group { inside, .. } => words(inside),
            _ => Vec::new(),
        });
        each.flatten().collect()
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_are_no_words() {
        let text = "a /* x /* y */ z */ b // c\n 'd' '\\'' '\\u{1F}' b'e' \"f \\\" g\" r#\"h \" i\"# br\"j\" k: &'l M, 1_000u64 r#type '\"' n";
        assert_eq!(words(&tokens(text)), ["a", "b", "k", "M", "type", "n"]);
    }

    #[test]
    fn brackets_nest_and_lines_count() {
        let read = tokens("a\n{ (b) [\n c] }");
        let inside = read[1].group('{').unwrap();
        assert_eq!(inside[1].group('[').unwrap()[0], Token::Word { text: "c".into(), line: 3 });
    }
}
