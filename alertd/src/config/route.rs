//! `[[route]]`: which policy handles which alerts. Routes are tried in order; a child route
//! inherits every setting that it does not set itself.

use dogwatch_alertd_core::{
    DEFAULT_POLICY,
    rules::{
        escalation::Policy,
        matcher::Matcher,
        route::{GroupBy, Hours, Route, Timing},
    },
};
use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

use super::{
    Parts,
    names::{Names, check_known},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteFile {
    #[serde(default, rename = "match")]
    matchers: Vec<Spanned<String>>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    policy: Option<Spanned<String>>,
    receiver: Option<Spanned<String>>,
    group_by: Option<Vec<String>>,
    group_wait: Option<Span>,
    group_interval: Option<Span>,
    repeat_interval: Option<Spanned<Span>>,
    /// Periods in which the route is muted. `[]` removes inherited periods.
    mute_during: Option<Vec<Spanned<String>>>,
    /// The only periods in which the route is not muted.
    active_during: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    route: Vec<RouteFile>,
}

impl Parts {
    /// Returns the tree of routes under a root that matches every alert.
    pub(super) fn routes(&mut self, names: &Names, problems: &mut Problems) -> Route {
        let mut root = Route::root(DEFAULT_POLICY);
        for (at, file) in std::mem::take(&mut self.routes) {
            let route = resolve_route(file, &root, &self.sources[at], names, problems);
            root.children.push(route);
        }
        root
    }
}

fn resolve_route(
    file: RouteFile,
    parent: &Route,
    source: &Source,
    names: &Names,
    problems: &mut Problems,
) -> Route {
    let mut matchers: Vec<Matcher> = Vec::new();
    for text in &file.matchers {
        match text.get_ref().parse() {
            Ok(matcher) => matchers.push(matcher),
            Err(words) => problems.add(source, text.span(), words),
        }
    }
    let policy = match (&file.policy, &file.receiver) {
        (Some(policy), Some(_)) => {
            problems.add(
                source,
                policy.span(),
                "a route can have a policy or a receiver, not both; remove one",
            );
            None
        }
        (Some(policy), None) => {
            check_known(policy, "policy", &names.policies, source, problems).then(|| policy.get_ref().clone())
        }
        (None, Some(receiver)) => check_known(receiver, "receiver", &names.receivers, source, problems)
            .then(|| Policy::name_of_receiver(receiver.get_ref())),
        (None, None) => None,
    };
    let group_by = match file.group_by {
        None => parent.group_by.clone(),
        Some(labels) if labels == ["..."] => GroupBy::All,
        Some(labels) => GroupBy::Labels(labels),
    };
    let mut periods = |written: Option<Vec<Spanned<String>>>, inherited: &Vec<String>| {
        let Some(written) = written else { return inherited.clone() };
        let known =
            written.into_iter().filter(|name| check_known(name, "period", &names.periods, source, problems));
        known.map(Spanned::into_inner).collect()
    };
    let hours = Hours {
        mute_during: periods(file.mute_during, &parent.hours.mute_during),
        active_during: periods(file.active_during, &parent.hours.active_during),
    };
    let inherited = parent.timing;
    if let Some(zero) = file.repeat_interval.as_ref().filter(|span| span.get_ref().0.is_zero()) {
        problems.add(
            source,
            zero.span(),
            "must be more than 0s, like \"4h\": it is the time between reminders",
        );
    }
    let mut route = Route {
        matchers,
        goes_on: file.goes_on,
        group_by,
        timing: Timing {
            group_wait: file.group_wait.map_or(inherited.group_wait, |span| span.0),
            group_interval: file.group_interval.map_or(inherited.group_interval, |span| span.0),
            repeat_interval: file.repeat_interval.map_or(inherited.repeat_interval, |span| span.get_ref().0),
        },
        hours,
        policy: policy.unwrap_or_else(|| parent.policy.clone()),
        children: Vec::new(),
    };
    for child in file.route {
        let child = resolve_route(child, &route, source, names, problems);
        route.children.push(child);
    }
    route
}
