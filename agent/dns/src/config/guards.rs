//! The guard settings: the same five keys in `[dns]` and in `[zone."…"]`.

use std::time::Duration;

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};

use dogwatch_dns_core::{guard, message::name};

/// Applies `guards`, `vanish_grace`, `hot_vanish_grace`, `empty_grace` and `mass_grace` to `rules`.
pub(super) fn apply(
    rules: &mut guard::Rules,
    guards: Option<&Vec<Spanned<String>>>,
    graces: [&Option<Spanned<Span>>; 4],
    source: &Source,
    problems: &mut Problems,
) {
    if let Some(guards) = guards {
        (rules.vanish, rules.mass_vanish, rules.convergence) = (false, false, false);
        for written in guards {
            match written.get_ref().as_str() {
                "vanish" => rules.vanish = true,
                "mass-vanish" => rules.mass_vanish = true,
                "convergence" => rules.convergence = true,
                other => {
                    let message = format!(
                        "unknown guard {other:?}; use \"vanish\", \"mass-vanish\" or \"convergence\", or [] for none"
                    );
                    problems.add(source, written.span(), message);
                }
            }
        }
    }
    let fields =
        [&mut rules.vanish_grace, &mut rules.hot_vanish_grace, &mut rules.empty_grace, &mut rules.mass_grace];
    for (field, written) in fields.into_iter().zip(graces) {
        let Some(written) = written else { continue };
        *field = written.get_ref().0;
        if *field > GRACE_LIMIT {
            let message = "must be at most \"24h\"; longer would hide real changes for days";
            problems.add(source, written.span(), message);
        }
    }
}

/// A domain of `rebinding_allow`.
pub(super) fn suffix(text: &str) -> Result<Box<[u8]>, String> {
    let name = name::from_text(text).filter(|_| !text.contains('/'));
    let name =
        name.ok_or_else(|| format!("{text:?} is not a domain name; write one like \"corp.example\""))?;
    Ok(name.to_ascii_lowercase().into())
}

/// A day is enough to decide, and `dogwatch dns accept` ends any hold.
const GRACE_LIMIT: Duration = Duration::from_hours(24);
