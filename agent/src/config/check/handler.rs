//! `handler = { … }` of a check.

use std::{sync::Arc, time::Duration};

use dogwatch_checks::State;
use dogwatch_daemon::{config::Spanned, duration::Span};

use super::{LONGEST, Reader};
use crate::{
    handler::Handler,
    plugin::{Plugin, PluginError},
};

impl Reader<'_> {
    pub(super) fn handler(&mut self) -> Option<Arc<Handler<Plugin>>> {
        let written = self.file.handler.as_ref()?.get_ref();
        let mut on = Vec::new();
        if let Some(empty) = written.on.as_ref().filter(|on| on.get_ref().is_empty()) {
            self.problem(empty.span(), "handler.on must have at least one state, like [\"CRITICAL\"]");
        }
        for name in written.on.iter().flat_map(Spanned::get_ref) {
            match name.parse() {
                Ok(state) if state != State::Ok => on.push(state),
                _ => {
                    let at = written.on.as_ref().map_or(self.at.clone(), Spanned::span);
                    self.problem(at, format!("handler.on: {name:?} must be WARNING, CRITICAL or UNKNOWN"));
                }
            }
        }
        if on.is_empty() {
            on.push(State::Critical);
        }
        let soft = match written.when.as_ref().map(|when| (when.get_ref().as_str(), when.span())) {
            None | Some(("hard", _)) => false,
            Some(("soft", _)) => true,
            Some((other, at)) => {
                self.problem(at, format!("handler.when: {other:?} must be \"soft\" or \"hard\""));
                false
            }
        };
        let spans = [
            ("timeout", &written.timeout, Duration::from_secs(30), Span::secs(1), Span::secs(600)),
            ("cooldown", &written.cooldown, Duration::from_mins(10), Span::secs(1), LONGEST),
        ];
        let [timeout, cooldown] = spans.map(|(key, written, default, least, most)| match written {
            None => default,
            Some(span) if (least..=most).contains(span.get_ref()) => span.get_ref().0,
            Some(span) => {
                self.problem(span.span(), format!("handler.{key} must be {least} to {most}"));
                default
            }
        });
        let per_day = match &written.per_day {
            None => 3,
            Some(count) if (1..=100).contains(count.get_ref()) => *count.get_ref(),
            Some(count) => {
                self.problem(count.span(), "handler.per_day must be 1 to 100");
                3
            }
        };
        let argv = written.command.get_ref().clone();
        let words = argv.join(" ");
        match Plugin::handler(argv, written.env.clone()) {
            Ok(command) => Some(Arc::new(Handler { command, words, on, soft, timeout, cooldown, per_day })),
            Err(error) => {
                let example = match error {
                    PluginError::Empty => {
                        "; write an array like [\"systemctl\", \"restart\", \"nginx.service\"]"
                    }
                    PluginError::EnvName(_) | PluginError::Nul => "",
                };
                self.problem(written.command.span(), format!("handler.command {error}{example}"));
                None
            }
        }
    }
}
