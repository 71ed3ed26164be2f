//! `[receiver.NAME]` as far as it is about rules: its fallback and its rate. How to reach it is in `notify`.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, time::Duration};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned, parse},
    duration::Span,
};
use serde::Deserialize;

use super::{
    ConfigFile, LOCAL_RECEIVER, Parts,
    names::{Names, check_known, usable},
};
use crate::{core::ReceiverRules, notify::ReceiverFile, ratelimit::Rate};

/// `rate = { burst = 5, every = "1m" }`: that many at once, then one in each interval; what is over goes into a digest.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    burst: NonZeroU32,
    every: Span,
}

/// Enough to be sure that the host is watched and told of, little enough that a phone stays usable.
const RATE_DEFAULT: Rate = Rate { burst: NonZeroU32::new(10).unwrap(), every: Duration::from_secs(30) };

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
        let rate = match file.rate.take() {
            Some(rate) if rate.get_ref().every.0.is_zero() => {
                problems.add(source, rate.span(), "rate: every must be longer than 0s, like \"1m\"");
                RATE_DEFAULT
            }
            Some(rate) => Rate { burst: rate.get_ref().burst, every: rate.get_ref().every.0 },
            None => RATE_DEFAULT,
        };
        let part = ReceiverPart { source: at, fallback: file.fallback.take(), rate };
        if self.receivers.insert(name.clone(), part).is_some() {
            problems.add(source, span.clone(), format!("receiver {name:?} is defined twice; keep one"));
        }
        if let Some(receiver) = file.resolve(&name, span, source, problems) {
            self.resolved.insert(name, receiver);
        }
    }

    /// The receiver that works without any account.
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
                    let words =
                        format!("fallback of {name:?} leads back to it; the last one has no fallback");
                    problems.add(source, fallback.span(), words);
                }
                known && !loops
            });
            let fallback = fallback.map(|fallback| fallback.get_ref().clone());
            rules.insert(name.clone(), ReceiverRules { fallback, rate: part.rate });
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
