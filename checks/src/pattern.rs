//! Patterns for names and paths, in which `*` matches any text and `?` any character.

use std::fmt;

/// A name, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("must not be empty")]
    Empty,
    #[error("only `*` and `?` have a meaning in a pattern, `[`, `]`, `{{` and `}}` do not")]
    Class,
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    /// Refuses the syntax of shells that [`Pattern::matches`] would take literally.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            Err(PatternError::Empty)
        } else if text.contains(['[', ']', '{', '}']) {
            Err(PatternError::Class)
        } else {
            Ok(Self::new(text))
        }
    }
}

impl Pattern {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can match only one name.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Of two patterns that match, the greater one counts: a name before a pattern, a long pattern
    /// before a short one.
    pub fn precedence(&self) -> (bool, usize) {
        (self.is_literal(), self.0.len())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The best match of `name`, if any pattern matches.
pub fn best<'a, T>(patterns: &'a [(Pattern, T)], name: &str) -> Option<&'a T> {
    let matching = patterns.iter().filter(|(pattern, _)| pattern.matches(name));
    matching.max_by_key(|(pattern, _)| pattern.precedence()).map(|(_, value)| value)
}

/// Linear in the lengths of both, whatever a stranger writes: only the last `*` is ever retried.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star_at, star_from)) = star else { return false };
                star = Some((star_at, star_from + 1));
                at = star_at + 1;
                from = star_from + 1;
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text_and_a_question_mark_one_character() {
        let yes = ["a*", "*", "*.service", "a*c*e", "a.service", "?.service", "*a*.*"];
        assert!(yes.iter().all(|pattern| matches(pattern, "a.service")));
        let no = ["b*", "a", "*.timer", "a*x*", "??.service", ""];
        assert!(!no.iter().any(|pattern| matches(pattern, "a.service")));
        assert!(matches("", "") && matches("**", "") && !matches("?", ""));
        assert!(matches("/mnt/*", "/mnt/a/b"), "a star also matches slashes");
        assert!(!matches(&"*a".repeat(40), &"b".repeat(4_000)));
    }

    #[test]
    fn a_pattern_that_would_be_misunderstood_is_an_error() {
        let parsed = ["", "/mnt/[ab]", "/mnt/{a,b}", "/mnt/*"].map(str::parse::<Pattern>);
        assert_eq!(
            parsed,
            [
                Err(PatternError::Empty),
                Err(PatternError::Class),
                Err(PatternError::Class),
                Ok(Pattern::new("/mnt/*"))
            ]
        );
    }

    #[test]
    fn the_most_precise_pattern_counts() {
        let patterns = ["*", "/mnt/*", "/mnt/a", "/mnt/a*"].map(|text| (Pattern::new(text), text));
        assert_eq!(best(&patterns, "/mnt/a"), Some(&"/mnt/a"));
        assert_eq!(best(&patterns, "/mnt/ab"), Some(&"/mnt/a*"));
        assert_eq!(best(&patterns, "/srv"), Some(&"*"));
        assert_eq!(best(&patterns[1..], "/srv"), None);
    }
}
