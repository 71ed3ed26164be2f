//! Records where the cache on disk came from: which upstreams answered for which zone, and how much
//! they were asked in normal times.
//!
//! Stored beside the cache, so that after a restart we know which loaded names now belong to other
//! upstreams (the config changed while the daemon was down), and how fast to recover from an outage
//! that is still going on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    message::name,
    moment::Moment,
    zones::{
        views::{View, Views},
        zone::Zones,
    },
};

/// One zone, in human-readable form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Zone {
    /// `corp.example`, or `.`.
    suffix: String,
    upstreams: Vec<String>,
    /// Queries per second to its upstreams in normal times, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
}

/// All zones, the root first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origin(Vec<Zone>);

/// Above any real host's rate.
const PER_SECOND_MAX: f64 = 1e6;
/// Rates closer than this count as the same.
const SAME_RATE: f64 = 0.2;
/// A changed rate is written at most this often.
const RATE_WRITTEN_EVERY: Duration = Duration::from_mins(1);

impl Origin {
    pub fn of(zones: &Zones) -> Self {
        Self(
            zones
                .iter()
                .map(|zone| Zone {
                    suffix: zone.name(),
                    upstreams: zone.settings().upstreams.iter().map(ToString::to_string).collect(),
                    per_second: zone.baseline.remembered(),
                })
                .collect(),
        )
    }

    /// Parses the output of [`Self::to_bytes`]; the input may be any bytes. The error is for
    /// humans.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let origin: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let rate_is_one =
            |zone: &Zone| zone.per_second.is_none_or(|rate| (0.0..=PER_SECOND_MAX).contains(&rate));
        if !origin.0.iter().all(rate_is_one) {
            return Err("a rate is out of range".into());
        }
        match origin.views() {
            Some(_) => Ok(origin),
            None => Err("a zone is not a valid name, or the first zone is not the root".into()),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // It holds only strings and numbers, so this cannot fail.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Each zone and its upstreams at that time.
    pub(crate) fn views(&self) -> Option<Views> {
        let view = |zone: &Zone| {
            Some(View { suffix: name::from_text(&zone.suffix)?.into(), upstreams: zone.upstreams.clone() })
        };
        Views::new(self.0.iter().map(view).collect::<Option<_>>()?)
    }

    /// Queries per second to the upstreams of each zone in normal times; zone names in wire format.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (Vec<u8>, f64)> {
        self.0.iter().filter_map(|zone| Some((name::from_text(&zone.suffix)?, zone.per_second?)))
    }

    /// Whether the same upstreams are asked for the same zones.
    fn same_views(&self, other: &Self) -> bool {
        let view = |zone: &Zone| (zone.suffix.clone(), zone.upstreams.clone());
        self.0.iter().map(view).eq(other.0.iter().map(view))
    }

    fn same_rates(&self, other: &Self) -> bool {
        let same = |(a, b): (&Zone, &Zone)| match (a.per_second, b.per_second) {
            (Some(a), Some(b)) => (a - b).abs() <= SAME_RATE * a.max(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        self.0.iter().zip(&other.0).all(same)
    }
}

/// Decides when to write the origin.
#[derive(Debug, Default)]
pub struct Watch(Option<(Origin, Moment)>);

impl Watch {
    /// Returns what to write now, if anything.
    pub fn look(&mut self, zones: &Zones, now: Moment) -> Option<&Origin> {
        let origin = Origin::of(zones);
        let known = self.0.as_ref().is_some_and(|(written, at)| {
            origin.same_views(written) && (origin.same_rates(written) || now.since(*at) < RATE_WRITTEN_EVERY)
        });
        if known {
            return None;
        }
        Some(&self.0.insert((origin, now)).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::endpoint::Endpoint,
        settings::{Settings, ZoneSettings},
    };

    fn settings(zones: &[(&str, &str)]) -> Settings {
        let zone = |&(suffix, upstream): &(&str, &str)| ZoneSettings {
            suffix: name::from_text(suffix).unwrap().into(),
            upstreams: vec![Endpoint::parse(upstream, None).unwrap()],
            max_stale: Duration::from_hours(1),
            serve_stale: true,
            guard: crate::guard::Rules::default(),
            rebinding: crate::guard::Rebinding::default(),
        };
        Settings {
            upstreams: vec![Endpoint::parse("192.0.2.1", None).unwrap()],
            zones: zones.iter().map(zone).collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn it_round_trips_and_nonsense_is_refused() {
        let zones = Zones::new(&settings(&[("corp.example", "tls://192.0.2.2#dns.example")]), Moment::START);
        let origin = Origin::of(&zones);
        assert_eq!(Origin::from_bytes(&origin.to_bytes()), Ok(origin));
        for nonsense in [
            "",
            "[]",
            r#"[{"suffix":"corp.example","upstreams":[]}]"#,
            r#"[{"suffix":".","upstreams":[]},{"suffix":"a..b","upstreams":[]}]"#,
            r#"[{"suffix":".","upstreams":[],"per_second":-1}]"#,
            r#"[{"suffix":".","upstreams":[],"per_second":1e300}]"#,
            r#"[{"suffix":".","upstreams":[]},{"suffix":".","upstreams":[]}]"#,
        ] {
            assert!(Origin::from_bytes(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn it_is_written_when_zones_change_and_seldom_when_rates_do() {
        let mut now = Moment::START;
        let mut zones = Zones::new(&settings(&[]), now);
        let mut watch = Watch::default();
        assert!(watch.look(&zones, now).is_some());
        assert!(watch.look(&zones, now).is_none());
        let root = zones.ids().next().unwrap();
        zones.get_mut(root).baseline.resume(10.0);
        assert!(watch.look(&zones, now).is_none(), "not at once");
        now = now + RATE_WRITTEN_EVERY;
        assert!(watch.look(&zones, now).is_some());
        zones.get_mut(root).baseline.resume(11.0);
        now = now + RATE_WRITTEN_EVERY * 2;
        assert!(watch.look(&zones, now).is_none(), "nearly the same");
        zones.set(&settings(&[("corp.example", "192.0.2.2")]), now);
        assert!(watch.look(&zones, now).is_some());
    }
}
