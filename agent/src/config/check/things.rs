//! `[check.NAME."THING"]`: other settings for some of the things that a check finds.

use dogwatch_checks::Pattern;
use dogwatch_daemon::config::Spanned;

use super::{COMMON, Reader, has_things, work::kind_options};
use crate::config::{Settings, file::CheckFile};

/// The keys that a table for some things may have besides those of the kind.
const OF_THINGS: [&str; 7] = ["enabled", "max_attempts", "for", "labels", "runbook", "note", "flapping"];

impl Reader<'_> {
    /// The tables in a check, each with its settings, or `None` if it switches its things off.
    pub(super) fn things(&mut self, kind: &str, all: &Settings) -> Vec<(Pattern, Option<Settings>)> {
        let mut things = Vec::new();
        for (pattern, table) in &self.file.things {
            if is_option(kind, pattern.get_ref()) {
                continue;
            }
            if !has_things(kind) {
                let message = format!("a check of kind {kind:?} has no things of its own; remove this table");
                self.problems.add(self.source, pattern.span(), message);
                continue;
            }
            self.refuse_wrong_pattern(kind, pattern);
            let mut part = self.part(pattern, table);
            let settings = part.settings(all);
            let enabled = part.enabled();
            part.refuse_more_tables();
            things.push((Pattern::new(pattern.get_ref()), enabled.then_some(settings)));
        }
        things
    }

    /// A pattern that matches no thing on any host is a mistake.
    fn refuse_wrong_pattern(&mut self, kind: &str, pattern: &Spanned<String>) {
        let (name, text) = (self.name, pattern.get_ref());
        let meant = dogwatch_checks::kind(kind).and_then(|kind| kind.things.meant(text));
        if text.trim().is_empty() {
            self.problem(
                pattern.span(),
                format!("[check.{name}.{text:?}] names nothing; write for example \"*\""),
            );
        } else if let Some(meant) = meant {
            let message =
                format!("nothing that {name} finds is called {text:?}; write [check.{name}.{meant:?}]");
            self.problem(pattern.span(), message);
        }
    }

    /// A reader for the table of some things.
    pub(super) fn part<'b>(&'b mut self, pattern: &Spanned<String>, table: &'b CheckFile) -> Reader<'b> {
        Reader {
            name: self.name,
            at: pattern.span(),
            file: table,
            source: self.source,
            problems: self.problems,
        }
    }

    /// `warn = {}` is no table about a thing called `warn`.
    pub(super) fn refuse_tables_for_options(&mut self, kind: &str) {
        for (key, _) in &self.file.things {
            let name = key.get_ref().as_str();
            if is_option(kind, name) {
                self.problem(key.span(), format!("{name} must be a value, not a table"));
            }
        }
    }

    fn refuse_more_tables(&mut self) {
        for (key, _) in &self.file.things {
            self.problem(key.span(), format!("unknown table `{}`", key.get_ref()));
        }
        if let Some(env) = &self.file.env {
            self.problem(env.span(), "only plugins have an env");
        }
        let common = COMMON.iter().filter(|key| !OF_THINGS.contains(key));
        for key in common {
            if let Some((at, _)) = self.entry(key) {
                self.problem(
                    at.span(),
                    format!("{key} is for the whole check; write it in [check.{}]", self.name),
                );
            }
        }
    }
}

fn is_option(kind: &str, name: &str) -> bool {
    let own = dogwatch_checks::kind(kind).map_or(&[][..], |kind| kind.options);
    COMMON.contains(&name)
        || kind_options(kind).any(|option| option == name)
        || own.iter().any(|option| option.name == name)
}
