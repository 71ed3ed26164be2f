//! `[policy.NAME]`: whom to notify, step by step.

use std::{collections::BTreeMap, ops::Range};

use dogwatch_alertd_core::rules::escalation::{Policy, Step};
use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

use super::{
    Parts,
    names::{Names, TARGET, check_known},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFile {
    step: Vec<Spanned<StepFile>>,
    #[serde(default)]
    repeat: u32,
    repeat_every: Option<Spanned<Span>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepFile {
    /// Counted from the start of the round.
    #[serde(default = "no_time")]
    after: Span,
    notify: Vec<Spanned<String>>,
}

fn no_time() -> Span {
    Span::secs(0)
}

impl Parts {
    pub(super) fn policies(&mut self, names: &Names, problems: &mut Problems) -> BTreeMap<String, Policy> {
        let mut policies = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.policies) {
            let source = &self.sources[entry.source];
            let policy = resolve_policy(&name, entry.span, entry.file, source, names, problems);
            policies.insert(name, policy);
        }
        policies
    }
}

fn resolve_policy(
    name: &str,
    span: Range<usize>,
    file: PolicyFile,
    source: &Source,
    names: &Names,
    problems: &mut Problems,
) -> Policy {
    if file.step.is_empty() {
        problems.add(source, span, format!("policy {name:?} has no steps; add [[policy.{name}.step]]"));
    }
    let check = |target: &Spanned<String>, problems: &mut Problems| {
        check_known(target, TARGET, &names.targets, source, problems);
    };
    let steps = resolve_steps(file.step, source, &check, problems);
    let last = steps.iter().map(|step| step.after).max().unwrap_or_default();
    let repeat_every = match file.repeat_every {
        None => last + Policy::REPEAT_PAUSE_DEFAULT,
        Some(every) => {
            if every.get_ref().0 <= last {
                let words = format!("repeat_every must be longer than the last step's after, {}", Span(last));
                problems.add(source, every.span(), words);
            }
            every.get_ref().0
        }
    };
    Policy { name: name.into(), steps, repeat: file.repeat, repeat_every }
}

/// Resolves the steps of a policy or the rules of a user. `check` is called for each name.
pub(super) fn resolve_steps(
    files: Vec<Spanned<StepFile>>,
    source: &Source,
    check: &dyn Fn(&Spanned<String>, &mut Problems),
    problems: &mut Problems,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for step in files {
        let span = step.span();
        let StepFile { after, notify } = step.into_inner();
        if notify.is_empty() {
            problems.add(source, span.clone(), "this step notifies nobody; add a name to notify = [\"…\"]");
        }
        if let Some(before) = steps.last().filter(|before| before.after > after.0) {
            let before = Span(before.after);
            let words =
                format!("after = {after} follows {before}, but after counts from the start; sort the steps");
            problems.add(source, span, words);
        }
        for target in &notify {
            check(target, problems);
        }
        let notify = notify.into_iter().map(Spanned::into_inner).collect();
        steps.push(Step { after: after.0, notify });
    }
    steps
}
