//! `[receiver.NAME]`: fallback and rate limit. The settings for sending are in `notify`.

use std::{collections::BTreeMap, path::Path};

use dogwatch_alertd_core::{LOCAL_RECEIVER, ReceiverRules, rules::ratelimit::Rate};
use dogwatch_daemon::config::{Problems, Source, Spanned, parse};

use super::{
    ConfigFile, Parts,
    names::{Names, check_known, usable},
};
use crate::notify::{Receiver, ReceiverFile};

pub(super) struct ReceiverPart {
    source: usize,
    fallback: Option<Spanned<String>>,
    rate: Rate,
}

impl Parts {
    pub(super) fn take_receiver(
        &mut self,
        at: usize,
        source: &Source,
        name: Spanned<String>,
        mut file: ReceiverFile,
        problems: &mut Problems,
    ) {
        let span = name.span();
        let Some(name) = usable(name, "receiver", source, problems) else { return };
        let rate = file.rate.take().map_or(Rate::OF_RECEIVER, |rate| rate.resolve(source, problems));
        let part = ReceiverPart { source: at, fallback: file.fallback.take(), rate };
        if self.receivers.insert(name.clone(), part).is_some() {
            problems.add(source, span.clone(), format!("receiver {name:?} is defined twice; keep one"));
        }
        if let Some(receiver) = file.resolve(&name, span, source, problems) {
            self.resolved.insert(name, receiver);
        }
    }

    /// Adds the receiver that needs no account.
    pub(super) fn add_local_receiver(&mut self, path: &Path, state_dir: &Path, problems: &mut Problems) {
        let maildir = toml::Value::String(state_dir.join("mail").display().to_string());
        let text = format!("[receiver.{LOCAL_RECEIVER}.maildir]\npath = {maildir}\n");
        let source = Source { path: path.to_owned(), text };
        if let Some(file) = parse::<ConfigFile>(&source, problems) {
            self.take(source, file, problems);
        }
    }

    pub(super) fn receiver_rules(
        &self,
        names: &Names,
        problems: &mut Problems,
    ) -> BTreeMap<String, ReceiverRules> {
        let mut rules = BTreeMap::new();
        for (name, part) in &self.receivers {
            let source = &self.sources[part.source];
            let fallback = part.fallback.as_ref().filter(|fallback| {
                let known = check_known(fallback, "receiver", &names.receivers, source, problems);
                let loops = known && self.comes_back_to(name, fallback.get_ref());
                if loops {
                    let words = format!(
                        "fallback of {name:?} leads back to itself; remove one fallback of the circle"
                    );
                    problems.add(source, fallback.span(), words);
                }
                known && !loops
            });
            let fallback = fallback.map(|fallback| fallback.get_ref().clone());
            let keeps_state = self.resolved.get(name).is_some_and(Receiver::keeps_state);
            rules.insert(name.clone(), ReceiverRules { fallback, rate: part.rate, keeps_state });
        }
        rules
    }

    fn comes_back_to<'a>(&'a self, start: &str, mut at: &'a str) -> bool {
        for _ in 0..=self.receivers.len() {
            if at == start {
                return true;
            }
            let next = self.receivers.get(at).and_then(|part| part.fallback.as_ref());
            let Some(next) = next else { return false };
            at = next.get_ref();
        }
        false
    }
}
