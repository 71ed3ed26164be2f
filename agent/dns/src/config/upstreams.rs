//! `upstreams` and `[zone."…"]`, which can be checked only after all files are read.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use dogwatch_dns_core::{guard, health::endpoint::Endpoint, message::name, settings::ZoneSettings};
use serde::Deserialize;

use super::{Config, ConfigFile, UpstreamSource, check_max_stale, guards};
use crate::transport;

/// `[zone."corp.example"]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZoneTable {
    upstreams: Option<Vec<Spanned<String>>>,
    ca_file: Option<Spanned<PathBuf>>,
    max_stale: Option<Spanned<Span>>,
    serve_stale: Option<bool>,
    guards: Option<Vec<Spanned<String>>>,
    vanish_grace: Option<Spanned<Span>>,
    hot_vanish_grace: Option<Spanned<Span>>,
    empty_grace: Option<Spanned<Span>>,
    mass_grace: Option<Spanned<Span>>,
    rebinding_guard: Option<bool>,
}

/// A value and the file it comes from.
type At<'a, T> = Option<(&'a Source, &'a T)>;

/// The upstream settings of all files; the last value of each key wins.
#[derive(Default)]
pub(super) struct Written<'a> {
    upstreams: At<'a, Vec<Spanned<String>>>,
    ca_file: At<'a, Spanned<PathBuf>>,
    /// In the order of their first appearance.
    zones: Vec<WrittenZone<'a>>,
}

struct WrittenZone<'a> {
    /// In wire format. `None`: an invalid name, already reported; the rest of its table is still
    /// checked.
    suffix: Option<Box<[u8]>>,
    source: &'a Source,
    name: &'a Spanned<String>,
    upstreams: At<'a, Vec<Spanned<String>>>,
    ca_file: At<'a, Spanned<PathBuf>>,
    max_stale: Option<&'a Spanned<Span>>,
    serve_stale: Option<bool>,
    rebinding_guard: Option<bool>,
    /// As written; missing keys come from [dns].
    guards: Vec<(&'a Source, &'a ZoneTable)>,
}

impl<'a> Written<'a> {
    pub(super) fn take(&mut self, source: &'a Source, file: &'a ConfigFile, problems: &mut Problems) {
        self.upstreams = file.dns.upstreams.as_ref().map(|list| (source, list)).or(self.upstreams);
        self.ca_file = file.dns.ca_file.as_ref().map(|path| (source, path)).or(self.ca_file);
        let mut zones: Vec<_> = file.zone.iter().collect();
        zones.sort_by_key(|(name, _)| name.span().start);
        for (name, table) in zones {
            let written = name.get_ref();
            let (suffix, wrong) = match name::from_text(written) {
                Some(wire) if wire.len() > 1 => (Some(wire.to_ascii_lowercase().into_boxed_slice()), None),
                Some(_) => {
                    (None, Some("the root zone is not a forward zone; put its settings in [dns]".to_owned()))
                }
                None => {
                    let message =
                        format!("{written:?} is not a domain name; write one like [zone.\"corp.example\"]");
                    (None, Some(message))
                }
            };
            let known = self.zones.iter().position(|zone| zone.suffix.is_some() && zone.suffix == suffix);
            let twice = known
                .and_then(|place| self.zones.get(place))
                .filter(|first| std::ptr::eq(first.source, source) && first.name.get_ref() != written);
            let twice =
                twice.map(|first| format!("{written:?} is the same zone as {:?}", first.name.get_ref()));
            let place = match (known, wrong.or(twice)) {
                (Some(place), None) => place,
                (_, wrong) => {
                    let suffix = suffix.filter(|_| wrong.is_none());
                    if let Some(message) = wrong {
                        problems.add(source, name.span(), message);
                    }
                    self.zones.push(WrittenZone::new(suffix, source, name));
                    self.zones.len() - 1
                }
            };
            let Some(zone) = self.zones.get_mut(place) else { continue };
            if let Some(max_stale) = &table.max_stale {
                check_max_stale(max_stale, source, problems);
            }
            zone.upstreams = table.upstreams.as_ref().map(|list| (source, list)).or(zone.upstreams);
            zone.ca_file = table.ca_file.as_ref().map(|path| (source, path)).or(zone.ca_file);
            zone.max_stale = table.max_stale.as_ref().or(zone.max_stale);
            zone.serve_stale = table.serve_stale.or(zone.serve_stale);
            zone.rebinding_guard = table.rebinding_guard.or(zone.rebinding_guard);
            zone.guards.push((source, table));
        }
    }

    /// Resolves the upstream settings into `config`, whose other values are final.
    pub(super) fn resolve(self, config: &mut Config, problems: &mut Problems) {
        let authorities = self.ca_file.and_then(|at| read_authorities(at, problems));
        if let Some(written) = self.upstreams {
            config.upstreams =
                UpstreamSource::Listed(endpoints(written, authorities.as_ref(), config, problems));
        }
        for zone in self.zones {
            let written = zone.upstreams.filter(|(_, list)| !list.is_empty());
            if written.is_none() && zone.suffix.is_some() {
                let message = format!(
                    "zone {:?} has no upstreams; write upstreams = [\"192.0.2.1\"]",
                    zone.name.get_ref()
                );
                problems.add(zone.source, zone.name.span(), message);
            }
            let own = zone.ca_file.and_then(|at| read_authorities(at, problems));
            let mut guard = config.guard.clone();
            for (source, table) in zone.guards {
                let graces =
                    [&table.vanish_grace, &table.hot_vanish_grace, &table.empty_grace, &table.mass_grace];
                guards::apply(&mut guard, table.guards.as_ref(), graces, source, problems);
            }
            let authorities = own.as_ref().or(authorities.as_ref());
            let upstreams =
                written.map_or_else(Vec::new, |written| endpoints(written, authorities, config, problems));
            let Some(suffix) = zone.suffix else { continue };
            let zone = ZoneSettings {
                suffix,
                upstreams,
                max_stale: zone.max_stale.map_or(config.max_stale, |written| written.get_ref().0),
                serve_stale: zone.serve_stale.unwrap_or(true),
                guard,
                // Whoever sends names to other servers expects addresses of theirs.
                rebinding: guard::Rebinding {
                    on: zone.rebinding_guard.unwrap_or(false),
                    allow: config.rebinding.allow.clone(),
                },
            };
            config.zones.push(zone);
        }
    }
}

impl<'a> WrittenZone<'a> {
    fn new(suffix: Option<Box<[u8]>>, source: &'a Source, name: &'a Spanned<String>) -> Self {
        Self {
            suffix,
            source,
            name,
            upstreams: None,
            ca_file: None,
            max_stale: None,
            serve_stale: None,
            rebinding_guard: None,
            guards: Vec::new(),
        }
    }
}

fn endpoints(
    (source, written): (&Source, &Vec<Spanned<String>>),
    authorities: Option<&Arc<str>>,
    config: &Config,
    problems: &mut Problems,
) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = Vec::new();
    for item in written {
        match Endpoint::parse(item.get_ref(), authorities) {
            Ok(endpoint) if config.listen.contains(&endpoint.address) => {
                let message =
                    format!("upstream {endpoint} is the cache's own listen address; queries would loop");
                problems.add(source, item.span(), message);
            }
            Ok(endpoint) if all.contains(&endpoint) => {
                problems.add(source, item.span(), format!("upstream {endpoint} is listed twice"));
            }
            Ok(endpoint) => all.push(endpoint),
            Err(message) => problems.add(source, item.span(), message),
        }
    }
    all
}

/// Reads the certificates of a `ca_file` now; changes of the file take effect at the next reload.
fn read_authorities(
    (source, path): (&Source, &Spanned<PathBuf>),
    problems: &mut Problems,
) -> Option<Arc<str>> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        transport::check_authorities(&text)?;
        Ok::<_, String>(text)
    };
    match read(path.get_ref()) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            let message = format!("cannot use ca_file {}: {error}", path.get_ref().display());
            problems.add(source, path.span(), message);
            None
        }
    }
}
