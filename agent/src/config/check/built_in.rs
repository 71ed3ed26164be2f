//! The checks that need no configuration.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use dogwatch_checks::Options;

use super::{BUILT_IN_DNS, Context, default_attempts, default_timing, definition, has_things, lane};
use crate::{
    config::{Check, Origin, Passive, Settings, Work, file::CheckFile},
    dns_sensor::DnsSensor,
    flapping::Thresholds,
};

/// The built-in checks for what this host has.
pub(in crate::config) fn built_in(context: &Context<'_>) -> Vec<(Arc<str>, Check)> {
    let native = dogwatch_checks::built_in(context.host).filter_map(|kind| {
        let check = kind.build(&Options::default(), context.host).ok()?;
        Some((kind.name, kind.name, Work::Native(check)))
    });
    let dns = BUILT_IN_DNS.into_iter().filter(|_| has_cache(context)).map(|name| {
        let sensor = DnsSensor { control: context.dns_control.clone(), sensor: name.to_owned() };
        (name, "dns", Work::Native(sensor.into_check()))
    });
    native
        .chain(dns)
        .chain([
            ("self-check", "self-check", Work::Own),
            ("job", "job", Work::Jobs(Passive { freshness: None, submitters: Vec::new() })),
        ])
        .map(|(name, kind, work)| {
            let check = Check {
                kind: kind.to_owned(),
                work,
                lane: lane(kind),
                has_things: has_things(kind),
                timing: default_timing(kind, context.defaults),
                timeout: context.defaults.timeout,
                settings: Settings {
                    max_attempts: default_attempts(kind, context.defaults),
                    lasting: None,
                    counts: false,
                    flapping: Some(Thresholds::default()),
                    labels: context.labels.clone(),
                    annotations: BTreeMap::new(),
                    handler: None,
                },
                things: Vec::new(),
                origin: Origin::Auto,
                definition: definition(kind, &CheckFile::default()),
            };
            (Arc::from(name), check)
        })
        .collect()
}

/// Why the built-in check of this name and kind has nothing to do on this host.
pub(in crate::config) fn absent(name: &str, kind: &str, context: &Context<'_>) -> Option<String> {
    if kind == "dns" && BUILT_IN_DNS.contains(&name) && !has_cache(context) {
        let control = context.dns_control.display();
        return Some(format!("the DNS cache is not enabled on this host ({control} does not exist)"));
    }
    dogwatch_checks::kind(kind).filter(|kind| kind.name == name)?.absent(context.host)
}

fn has_cache(context: &Context<'_>) -> bool {
    context.dns_control.exists() || cache_is_enabled()
}

/// Whether systemd starts the DNS cache of the package. Then its checks do not go away with its
/// socket: a cache that is stopped is what they are for.
fn cache_is_enabled() -> bool {
    ["sockets.target.wants/dogwatch-dns.socket", "multi-user.target.wants/dogwatch-dns.service"]
        .iter()
        .any(|link| std::fs::symlink_metadata(Path::new("/etc/systemd/system").join(link)).is_ok())
}
