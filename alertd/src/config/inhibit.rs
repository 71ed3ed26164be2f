//! `[[inhibit]]` and `[[dependency]]`: which alerts suppress other alerts while they fire.

use dogwatch_alertd_core::rules::{inhibit::Rule, matcher::Matcher, suppression::SuppressedBy};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;

use super::Parts;

/// While an alert that matches `source` fires, alerts that match `target` are suppressed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InhibitFile {
    source: Spanned<Vec<Spanned<String>>>,
    target: Spanned<Vec<Spanned<String>>>,
    /// Labels that must have the same value on both sides.
    #[serde(default)]
    equal: Vec<String>,
}

/// While an alert that matches `on` fires, alerts that match `of` are suppressed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DependencyFile {
    of: Spanned<Vec<Spanned<String>>>,
    on: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    equal: Vec<String>,
}

impl Parts {
    pub(super) fn inhibit_rules(&mut self, problems: &mut Problems) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (at, file) in std::mem::take(&mut self.dependencies) {
            let source = &self.sources[at];
            rules.push(Rule {
                why: SuppressedBy::Dependency,
                source: matchers("on", &file.on, source, problems),
                target: matchers("of", &file.of, source, problems),
                equal: file.equal,
            });
        }
        for (at, file) in std::mem::take(&mut self.inhibits) {
            let source = &self.sources[at];
            rules.push(Rule {
                why: SuppressedBy::Inhibited,
                source: matchers("source", &file.source, source, problems),
                target: matchers("target", &file.target, source, problems),
                equal: file.equal,
            });
        }
        rules
    }
}

/// Requires at least one matcher, because an empty side would match every alert.
fn matchers(
    side: &str,
    texts: &Spanned<Vec<Spanned<String>>>,
    source: &Source,
    problems: &mut Problems,
) -> Vec<Matcher> {
    if texts.get_ref().is_empty() {
        let words = format!("{side} is empty and would match every alert; add a matcher like \"host=web1\"");
        problems.add(source, texts.span(), words);
    }
    let mut matchers = Vec::new();
    for text in texts.get_ref() {
        match text.get_ref().parse() {
            Ok(matcher) => matchers.push(matcher),
            Err(words) => problems.add(source, text.span(), words),
        }
    }
    matchers
}
