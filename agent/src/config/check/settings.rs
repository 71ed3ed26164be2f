//! What a check and its things have in common: labels, attempts, flapping, annotations.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_checks::Value;
use dogwatch_daemon::{
    config::{Problems, Source},
    duration::Span,
};
use dogwatch_wire::limits;

use super::Reader;
use crate::{
    config::{
        Settings,
        file::{FlappingFile, Labels},
    },
    flapping::Thresholds,
};

impl Reader<'_> {
    /// The settings of this table, or else of `base`.
    pub(super) fn settings(&mut self, base: &Settings) -> Settings {
        let labels = self.labels(&base.labels);
        let mut annotations = base.annotations.clone();
        for key in ["runbook", "note"] {
            if let Some(text) = self.text(key) {
                annotations.insert(key.to_owned(), text.to_owned());
            }
        }
        let attempts = self.max_attempts();
        let lasting = self.lasting();
        if let (Some(_), Some(_), Some((key, _))) = (attempts, lasting, self.entry("for")) {
            self.problem(key.span(), "use either `for` or max_attempts, not both");
        }
        Settings {
            max_attempts: attempts.unwrap_or(base.max_attempts),
            lasting: if attempts.is_some() { None } else { lasting.or(base.lasting) },
            counts: attempts.is_some() || (base.counts && lasting.is_none()),
            flapping: if self.file.flapping.is_some() { self.flapping() } else { base.flapping },
            labels,
            annotations,
            handler: if self.file.handler.is_some() { self.handler() } else { base.handler.clone() },
        }
    }

    /// `enabled = false`.
    pub(super) fn enabled(&mut self) -> bool {
        match self.entry("enabled") {
            None => true,
            Some((_, value)) => {
                if let Value::Bool(enabled) = value.get_ref() {
                    return *enabled;
                }
                self.problem(value.span(), "enabled must be true or false");
                true
            }
        }
    }

    fn max_attempts(&mut self) -> Option<u8> {
        let (_, value) = self.entry("max_attempts")?;
        if let Value::Number(number) = value.get_ref()
            && (1.0..=255.0).contains(number)
            && number.fract() == 0.0
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number of 1..=255"
            )]
            return Some(*number as u8);
        }
        self.problem(value.span(), "max_attempts must be a whole number from 1 to 255");
        None
    }

    /// `for`; zero is allowed.
    fn lasting(&mut self) -> Option<Duration> {
        let (_, value) = self.entry("for")?;
        if let Value::Text(text) = value.get_ref()
            && text.parse::<Span>().is_ok_and(|span| span.0.is_zero())
        {
            return Some(Duration::ZERO);
        }
        self.span("for")
    }

    fn flapping(&mut self) -> Option<Thresholds> {
        let default = Thresholds::default();
        let Some(written) = &self.file.flapping else { return Some(default) };
        let FlappingFile { detect, start, stop } = *written.get_ref();
        let thresholds =
            Thresholds { start: start.unwrap_or(default.start), stop: stop.unwrap_or(default.stop) };
        if !(0.0 < thresholds.stop && thresholds.stop <= thresholds.start && thresholds.start <= 100.0) {
            let message = format!(
                "flapping: stop {} and start {} must be percentages with 0 < stop <= start <= 100",
                thresholds.stop, thresholds.start
            );
            self.problem(written.span(), message);
        }
        (detect != Some(false)).then_some(thresholds)
    }

    fn labels(&mut self, shared: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = shared.clone();
        all.extend(labels(&self.file.labels, self.source, self.problems));
        // alertd adds host and service, and the agent check and thing.
        if all.len() > limits::LABELS_MAX - 4 {
            self.problem(
                self.at.clone(),
                format!("{} labels; at most {}", all.len(), limits::LABELS_MAX - 4),
            );
        }
        all
    }
}

/// Validates label names and values.
pub(in crate::config) fn labels(
    written: &Labels,
    source: &Source,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in written {
        let text = name.get_ref();
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !begins || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            problems.add(
                source,
                name.span(),
                format!("{text:?} is not a label name; use letters, digits and _"),
            );
        } else if matches!(text.as_str(), "host" | "service" | "check" | "thing") {
            problems.add(
                source,
                name.span(),
                format!("dogwatch sets the label {text} itself; use another name"),
            );
        } else if value.get_ref().len() > 256 {
            problems.add(source, value.span(), "a label's value must have at most 256 bytes");
        } else {
            labels.insert(text.clone(), value.get_ref().clone());
        }
    }
    labels
}
