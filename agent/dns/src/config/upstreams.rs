//! `upstreams` and `[zone."…"]`: what can be told only once every file is read.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

use super::{Config, ConfigFile, UpstreamSource, check_max_stale, guards};
use crate::{endpoint::Endpoint, name, upstream, zone::ZoneSettings};

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
}

/// A value and the file it stands in.
type At<'a, T> = Option<(&'a Source, &'a T)>;

/// What the files say of upstreams; of each key the last word counts.
#[derive(Default)]
pub(super) struct Written<'a> {
    upstreams: At<'a, Vec<Spanned<String>>>,
    ca_file: At<'a, Spanned<PathBuf>>,
    /// As first written, each with its suffix in wire format.
    zones: Vec<(Box<[u8]>, WrittenZone<'a>)>,
}

struct WrittenZone<'a> {
    source: &'a Source,
    name: &'a Spanned<String>,
    upstreams: At<'a, Vec<Spanned<String>>>,
    ca_file: At<'a, Spanned<PathBuf>>,
    max_stale: Option<&'a Spanned<Span>>,
    serve_stale: Option<bool>,
    /// As written; what nobody wrote is as in [dns].
    guards: Vec<(&'a Source, &'a ZoneTable)>,
}

impl<'a> Written<'a> {
    pub(super) fn take(&mut self, source: &'a Source, file: &'a ConfigFile, problems: &mut Problems) {
        self.upstreams = file.dns.upstreams.as_ref().map(|list| (source, list)).or(self.upstreams);
        self.ca_file = file.dns.ca_file.as_ref().map(|path| (source, path)).or(self.ca_file);
        let mut zones: Vec<_> = file.zone.iter().collect();
        zones.sort_by_key(|(name, _)| name.span().start);
        for (name, table) in zones {
            let suffix = match name::from_text(name.get_ref()) {
                Some(wire) if wire.len() > 1 => wire.to_ascii_lowercase().into_boxed_slice(),
                Some(_) => {
                    problems.add(source, name.span(), "the root zone's upstreams stand in [dns]");
                    continue;
                }
                None => {
                    let message = format!(
                        "{:?} is not a domain name; write one like [zone.\"corp.example\"]",
                        name.get_ref()
                    );
                    problems.add(source, name.span(), message);
                    continue;
                }
            };
            if !self.zones.iter().any(|(known, _)| *known == suffix) {
                self.zones.push((suffix.clone(), WrittenZone::new(source, name)));
            }
            let Some((_, zone)) = self.zones.iter_mut().find(|(known, _)| *known == suffix) else { continue };
            if std::ptr::eq(zone.source, source) && zone.name.get_ref() != name.get_ref() {
                let message = format!("{:?} is the same zone as {:?}", name.get_ref(), zone.name.get_ref());
                problems.add(source, name.span(), message);
                continue;
            }
            if let Some(max_stale) = &table.max_stale {
                check_max_stale(max_stale, source, problems);
            }
            zone.upstreams = table.upstreams.as_ref().map(|list| (source, list)).or(zone.upstreams);
            zone.ca_file = table.ca_file.as_ref().map(|path| (source, path)).or(zone.ca_file);
            zone.max_stale = table.max_stale.as_ref().or(zone.max_stale);
            zone.serve_stale = table.serve_stale.or(zone.serve_stale);
            zone.guards.push((source, table));
        }
    }

    /// Puts what was written into `config`, whose other values are final.
    pub(super) fn resolve(self, config: &mut Config, problems: &mut Problems) {
        let authorities = self.ca_file.and_then(|at| read_authorities(at, problems));
        if let Some(written) = self.upstreams {
            config.upstreams =
                UpstreamSource::Listed(endpoints(written, authorities.as_ref(), config, problems));
        }
        for (suffix, zone) in self.zones {
            let Some(written) = zone.upstreams.filter(|(_, list)| !list.is_empty()) else {
                let message = format!(
                    "zone {:?} has no upstreams; write upstreams = [\"192.0.2.1\"]",
                    zone.name.get_ref()
                );
                problems.add(zone.source, zone.name.span(), message);
                continue;
            };
            let own = zone.ca_file.and_then(|at| read_authorities(at, problems));
            let mut guard = config.guard.clone();
            for (source, table) in zone.guards {
                let graces =
                    [&table.vanish_grace, &table.hot_vanish_grace, &table.empty_grace, &table.mass_grace];
                guards::apply(&mut guard, table.guards.as_ref(), graces, source, problems);
            }
            let zone = ZoneSettings {
                suffix,
                upstreams: endpoints(written, own.as_ref().or(authorities.as_ref()), config, problems),
                max_stale: zone.max_stale.map_or(config.max_stale, |written| written.get_ref().0),
                serve_stale: zone.serve_stale.unwrap_or(true),
                guard,
            };
            config.zones.push(zone);
        }
    }
}

impl<'a> WrittenZone<'a> {
    fn new(source: &'a Source, name: &'a Spanned<String>) -> Self {
        Self {
            source,
            name,
            upstreams: None,
            ca_file: None,
            max_stale: None,
            serve_stale: None,
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
                    format!("upstream {endpoint} is our own listen address; queries would go in circles");
                problems.add(source, item.span(), message);
            }
            Ok(endpoint) if all.contains(&endpoint) => {
                problems.add(source, item.span(), format!("upstream {endpoint} is named twice"));
            }
            Ok(endpoint) => all.push(endpoint),
            Err(message) => problems.add(source, item.span(), message),
        }
    }
    all
}

/// The certificates of a `ca_file`, read now: a file that changes takes effect with the next reload.
fn read_authorities(
    (source, path): (&Source, &Spanned<PathBuf>),
    problems: &mut Problems,
) -> Option<Arc<str>> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        upstream::check_authorities(&text)?;
        Ok::<_, String>(text)
    };
    match read(path.get_ref()) {
        Ok(text) => Some(text.into()),
        Err(error) => {
            let message = format!("ca_file {} cannot be used: {error}", path.get_ref().display());
            problems.add(source, path.span(), message);
            None
        }
    }
}
