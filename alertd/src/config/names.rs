//! Names in the config: which names are valid, where entries are defined, and did-you-mean hints
//! for unknown names.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use dogwatch_daemon::config::{Problems, Source, Spanned, closest};

/// All defined names.
pub(super) struct Names {
    pub(super) policies: BTreeSet<String>,
    pub(super) receivers: BTreeSet<String>,
    pub(super) periods: BTreeSet<String>,
    pub(super) users: BTreeSet<String>,
    /// Receivers, users and schedules: the names that a step of a policy may use.
    pub(super) targets: BTreeSet<String>,
}

/// A named entry and where it is defined.
pub(super) struct Entry<T> {
    /// Index into `Parts::sources`.
    pub(super) source: usize,
    /// The position of the name, in bytes.
    pub(super) span: Range<usize>,
    pub(super) file: T,
}

/// All entries of one kind from all files.
pub(super) type Section<T> = BTreeMap<String, Entry<T>>;

/// Adds the entries of one kind from one file. `at` is the index of the file, `what` names the
/// kind.
pub(super) fn take_named<T>(
    section: &mut Section<T>,
    entries: BTreeMap<Spanned<String>, T>,
    what: &str,
    (at, source): (usize, &Source),
    problems: &mut Problems,
) {
    for (name, file) in entries {
        let span = name.span();
        let Some(name) = usable(name, what, source, problems) else { continue };
        let entry = Entry { source: at, span: span.clone(), file };
        if section.insert(name.clone(), entry).is_some() {
            problems.add(source, span, format!("{what} {name:?} is defined twice; keep one"));
        }
    }
}

/// Returns the name if it can be used in labels, paths and command lines.
pub(super) fn usable(
    name: Spanned<String>,
    what: &str,
    source: &Source,
    problems: &mut Problems,
) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let span = name.span();
    let name = name.into_inner();
    if !name.is_empty() && name.chars().all(good) {
        return Some(name);
    }
    problems.add(source, span, format!("{what} {name:?}: names may contain letters, digits, - _ and . only"));
    None
}

/// How error messages call a name that a step of a policy may use.
pub(super) const TARGET: &str = "receiver, user or schedule";

pub(super) fn check_known(
    name: &Spanned<String>,
    what: &str,
    known: &BTreeSet<String>,
    source: &Source,
    problems: &mut Problems,
) -> bool {
    let name_text = name.get_ref();
    if known.contains(name_text) {
        return true;
    }
    let hint = match closest(name_text, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => match what {
            TARGET => format!("define [receiver.{name_text}], [user.{name_text}] or [schedule.{name_text}]"),
            _ => format!("define it with [{what}.{name_text}]"),
        },
    };
    problems.add(source, name.span(), format!("there is no {what} {name_text:?}; {hint}"));
    false
}

/// Why a time zone is refused.
pub(super) fn no_zone(text: &str) -> String {
    let names: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let hint = match closest(text, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "use an IANA name like \"Europe/Berlin\" or \"UTC\"".to_owned(),
    };
    format!("there is no time zone {text:?}; {hint}")
}
