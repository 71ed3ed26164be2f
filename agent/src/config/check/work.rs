//! What a check does: the keys that depend on its kind.

use dogwatch_checks::{OptionError, Options, State, Value};
use dogwatch_daemon::config::{Spanned, hint};

use super::{COMMON, Context, LONGEST_VALID, Reader};
use crate::{
    config::{Passive, Work},
    dns_sensor::DnsSensor,
    plugin::{Plugin, PluginError},
};

impl<'a> Reader<'a> {
    pub(super) fn work(&mut self, kind: &str, context: &Context<'_>) -> Option<Work> {
        match kind {
            "passive" => self.passive().map(Work::Passive),
            "job" => self.passive().map(Work::Jobs),
            "dns" => Some(self.dns(context)),
            "plugin" => self.plugin(context),
            "self-check" => {
                self.refuse_unknown(&kind_options("self-check"));
                Some(Work::Own)
            }
            _ => self.native(kind, context),
        }
    }

    fn passive(&mut self) -> Option<Passive> {
        self.refuse_unknown(&kind_options("passive"));
        let freshness = self.span_up_to("freshness", LONGEST_VALID);
        let submitters = match self.entry("submitters") {
            None => Vec::new(),
            Some((_, value)) => match value.get_ref() {
                Value::List(names) => names.clone(),
                Value::Text(name) => vec![name.clone()],
                _ => {
                    self.problem(value.span(), "submitters must be a list of user names");
                    return None;
                }
            },
        };
        Some(Passive { freshness, submitters })
    }

    fn dns(&mut self, context: &Context<'_>) -> Work {
        self.refuse_unknown(&kind_options("dns"));
        let sensor = self.text("sensor").unwrap_or(self.name).to_owned();
        Work::Native(DnsSensor { control: context.dns_control.clone(), sensor }.into_check())
    }

    fn plugin(&mut self, context: &Context<'_>) -> Option<Work> {
        self.refuse_unknown(&kind_options("plugin"));
        let timeout_state = match self.text("timeout_state").map(str::parse) {
            None => Some(State::Unknown),
            Some(Ok(state)) => Some(state),
            Some(Err(message)) => {
                let at = self.entry("timeout_state").map_or(self.at.clone(), |(_, value)| value.span());
                self.problem(at, format!("timeout_state: {message}"));
                None
            }
        };
        let Some((_, value)) = self.entry("command") else {
            self.problem(
                self.at.clone(),
                "command is missing; write an array like [\"check_ping\", \"-H\", \"db1\"]",
            );
            return None;
        };
        let Value::List(argv) = value.get_ref() else {
            self.problem(value.span(), "command must be an array of strings, because no shell splits it");
            return None;
        };
        let env = self.file.env.as_ref().map(|env| env.get_ref().clone()).unwrap_or_default();
        match Plugin::new(argv.clone(), env, timeout_state?) {
            Ok(plugin) => Some(Work::Plugin(plugin.with_state_directory(&context.state_dir, self.name))),
            Err(error) => {
                let at = match error {
                    PluginError::EnvName(_) => self.file.env.as_ref().map_or(value.span(), Spanned::span),
                    PluginError::Empty | PluginError::Nul => value.span(),
                };
                let example = match error {
                    PluginError::Empty => "; write an array like [\"check_ping\", \"-H\", \"db1\"]",
                    PluginError::EnvName(_) | PluginError::Nul => "",
                };
                self.problem(at, format!("command {error}{example}"));
                None
            }
        }
    }

    fn native(&mut self, kind: &str, context: &Context<'_>) -> Option<Work> {
        let kind = dogwatch_checks::kind(kind)?;
        let known: Vec<_> = kind.options.iter().map(|option| option.name).collect();
        self.refuse_unknown(&known.iter().copied());
        let options = self.own_entries().filter(|(key, _)| known.contains(&key.get_ref().as_str()));
        let mut options: Options =
            options.map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect();
        for (pattern, table) in &self.file.things {
            let mut part = self.part(pattern, table);
            part.refuse_unknown(&known.iter().copied());
            let own = part.own_entries().filter(|(key, _)| known.contains(&key.get_ref().as_str()));
            let own: Options =
                own.map(|(key, value)| (key.get_ref().clone(), value.get_ref().clone())).collect();
            options.set_for(pattern.get_ref(), own);
        }
        match kind.build(&options, context.host) {
            Ok(check) => Some(Work::Native(check)),
            Err(errors) => {
                for OptionError { things, option, message } in errors {
                    let table = things.and_then(|things| {
                        self.file.things.iter().find(|(pattern, _)| *pattern.get_ref() == things)
                    });
                    let entries = table.map_or(&self.file.entries, |(_, table)| &table.entries);
                    let entry = entries.iter().find(|(key, _)| *key.get_ref() == option);
                    let at = entry.map_or(self.at.clone(), |(_, value)| value.span());
                    self.problem(at, format!("{option}: {message}"));
                }
                None
            }
        }
    }

    fn own_entries(&self) -> impl Iterator<Item = &'a (Spanned<String>, Spanned<Value>)> {
        self.file.entries.iter().filter(|(key, _)| !COMMON.contains(&key.get_ref().as_str()))
    }

    fn refuse_unknown(&mut self, own: &(impl Iterator<Item = &'static str> + Clone)) {
        let unknown: Vec<_> =
            self.own_entries().filter(|(key, _)| !own.clone().any(|own| own == key.get_ref())).collect();
        for (key, _) in unknown {
            let hint = hint(key.get_ref(), own.clone().chain(COMMON));
            self.problem(key.span(), format!("unknown key `{}`; {hint}", key.get_ref()));
        }
    }
}

/// The keys of the agent's own kinds.
pub(super) fn kind_options(kind: &str) -> impl Iterator<Item = &'static str> + Clone {
    let options: &'static [&'static str] = match kind {
        "passive" => &["freshness", "submitters"],
        "dns" => &["sensor"],
        "plugin" => &["command", "env", "timeout_state"],
        _ => &[],
    };
    options.iter().copied()
}
