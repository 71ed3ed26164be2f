//! What an operator says about the guards: the same five keys in `[dns]` and for one zone.

use std::time::Duration;

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};

use dogwatch_dns_core::guard;

/// `guards`, `vanish_grace`, `hot_vanish_grace`, `empty_grace`, `mass_grace`: the same keys for all names and for one zone.
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
                        "there is no guard {other:?}; write \"vanish\", \"mass-vanish\", \"convergence\", or [] for none"
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
            let message = "a grace above 24h would hide real changes for days; write \"24h\" or less";
            problems.add(source, written.span(), message);
        }
    }
}

/// Nobody should need more than a day to decide, and `dogwatch dns accept` ends any grace.
const GRACE_LIMIT: Duration = Duration::from_hours(24);
