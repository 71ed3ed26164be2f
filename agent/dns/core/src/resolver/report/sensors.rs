//! The cache's own check results: while it hides an outage from programs, it reports it to the
//! agent.
//!
//! `dns-upstream` is CRITICAL as soon as the breaker opens: one failed refresh, confirmed by a
//! probe, raises the alert before any client notices. `dns-stale` reports how many answers are
//! stale, and how long the cache can go on like this.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Resolver, Restored,
        refreshing::{may_serve, stale_max, use_of},
    },
    words::{
        CRITICAL, DrillStatus, OK, RUNWAY_USED_WITHIN, RecordsText, SensorResult, WARNING, WhyHeld, at,
        clock_time, coarse, verdict_name,
    },
};
use crate::{
    cache::Facts,
    health::{breaker::State, group::Upstream, loss::WINDOW},
    message::{
        name::{self, Key},
        wire::{Question, Verdict},
    },
    moment::Moment,
    policy::{self, Cached, Upstreams},
    zones::{warm, zone::Zone},
};

/// The status of the cache, for `dogwatch dns status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub health: String,
    pub upstreams: Vec<UpstreamStatus>,
    pub names: usize,
    pub bytes: usize,
    pub masking: Masking,
    pub sensors: Vec<SensorResult>,
    /// The running fire drill, if any.
    #[serde(default)]
    pub drill: Option<DrillStatus>,
    #[serde(default)]
    pub restored: Restored,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpstreamStatus {
    pub address: String,
    pub state: String,
    /// The zone it serves; `.` covers every name outside the other zones.
    pub zone: String,
    /// The reason why it is down.
    pub why: Option<String>,
    pub since: Option<Timestamp>,
    pub sent: u64,
    pub answered: u64,
    /// UDP only: whether it copies the letter case of our queries (0x20). `learning`; `kept`: an
    /// answer in other case is rejected; `not_kept`: our queries are in lower case.
    #[serde(default)]
    pub letter_case: Option<String>,
    /// Answers rejected because of their letter case.
    #[serde(default)]
    pub other_case: u64,
    /// Replies that someone else sent in its name; all were rejected.
    #[serde(default)]
    pub forged: u64,
}

/// How much stale data is being served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Masking {
    /// Answers in the last minute.
    pub answers: u32,
    /// How many of them were stale: without the cache, they would have failed.
    pub stale: u32,
    /// Names past their TTL that were asked for in the last five minutes.
    pub stale_names: usize,
    /// How far past its TTL the oldest of these names is.
    pub oldest_stale_s: u64,
    /// Time until the first name used in the last day becomes too old to serve, pinned names
    /// excluded.
    pub runway_s: u64,
    /// Names used in the last day that are already too old to serve.
    #[serde(default)]
    pub lost_names: usize,
    /// Cached answers of pinned names.
    #[serde(default)]
    pub pinned: usize,
    /// How many of these are past their TTL.
    #[serde(default)]
    pub pinned_stale: usize,
    /// Time until the first pinned name becomes too old to serve.
    #[serde(default)]
    pub pinned_runway_s: Option<u64>,
    /// Names in use that become too old to serve within six hours, in zones whose upstreams are
    /// failing.
    #[serde(default)]
    pub at_risk: usize,
}

/// All about one name, for `dogwatch dns why`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    pub name: String,
    pub kind: String,
    /// `fresh`, `stale`, `held`, `too old`, `failed` or `not cached`.
    pub held: String,
    /// What a client would get now, and why.
    pub plan: String,
    pub verdict: Option<String>,
    pub records: Vec<String>,
    pub learned: Option<Timestamp>,
    pub ttl_s: u64,
    /// Seconds left of the TTL; negative: seconds past it.
    pub left_s: i64,
    /// When it becomes too old to serve.
    pub served_until: Option<Timestamp>,
    /// When a failed refresh is retried.
    pub recheck: Option<Timestamp>,
    pub uses: u32,
    /// Why the upstream's answer is not accepted.
    pub guard: Option<WhyHeld>,
    /// Never evicted, always refreshed, and served for seven days in an outage.
    #[serde(default)]
    pub pinned: bool,
    /// Used so often that it is refreshed before it expires, even without a client query.
    #[serde(default)]
    pub kept_warm: bool,
    /// Its forward zone, and the state of that zone's upstreams.
    pub zone: String,
    pub upstreams: String,
}

/// Enough time for one shift to react.
const AT_RISK_WITHIN: Duration = Duration::from_hours(6);
/// From this [`Zone::health_number`] on, the upstreams cannot refresh names.
const ILL: u8 = 2;
const STALE_USED_WITHIN: Duration = Duration::from_mins(5);

impl Resolver {
    /// The check results `dns-upstream`, `dns-stale` and `dns-guard`. `wall` is the wall-clock time
    /// at `now`.
    pub fn sensors(&mut self, now: Moment, wall: Timestamp) -> Vec<SensorResult> {
        self.report(now, wall).1
    }

    /// Counts the stale answers and makes the check results in one walk over the entries.
    pub fn report(&mut self, now: Moment, wall: Timestamp) -> (Masking, Vec<SensorResult>) {
        let (masking, held) = self.walk(now);
        let mut sensors = vec![
            self.upstream_sensor(&masking, &held, now, wall),
            self.stale_sensor(&masking, now, wall),
            self.guard_sensor(now, wall),
        ];
        if let Some(drill) = self.drill_status(now, wall) {
            // Whoever gets the alert should read this first.
            for sensor in sensors.iter_mut().filter(|sensor| sensor.state != OK) {
                let until = clock_time(drill.until, wall);
                sensor.text = format!("FIRE DRILL by {} until {until}: {}", drill.by, sensor.text);
            }
        }
        (masking, sensors)
    }

    /// Walks all entries: call it every few seconds, not per query.
    pub fn masking(&mut self, now: Moment) -> Masking {
        self.walk(now).0
    }

    /// Counts stale answers, and the names of each zone in the order of the zones. It blocks the
    /// loop, so it reads only the fields stored in the entry itself and follows no pointers.
    fn walk(&mut self, now: Moment) -> (Masking, Vec<ZoneRunway>) {
        let (answers, stale) = self.last_minute.totals(now);
        let mut masking = Masking { answers, stale, ..Masking::default() };
        let mut held: Vec<ZoneRunway> = self
            .zones
            .iter()
            .map(|zone| {
                let (max_stale, ill) = (zone.max_stale(), zone.health_number() >= ILL);
                ZoneRunway { names: 0, ends: now + max_stale, max_stale, ill }
            })
            .collect();
        let stale_used_since = now - STALE_USED_WITHIN;
        let at_risk_until = now + AT_RISK_WITHIN;
        let mut oldest_stale = now;
        let zones = &self.zones;
        self.cache.visit(|entry| {
            let zone_id = zones.of_entry(entry);
            let zone = zones.get(zone_id);
            let Some(holding) = held.get_mut(zone_id.place()) else { return };
            holding.names += 1;
            let (last_used, expires) = (entry.last_used(), entry.expires());
            let stale = now >= expires;
            if stale && last_used >= stale_used_since && entry.uses() > 0 {
                masking.stale_names += 1;
                oldest_stale = oldest_stale.min(expires);
            }
            let used = self.used_within(&entry, RUNWAY_USED_WITHIN, now);
            let pinned = entry.pinned();
            if !used && !pinned {
                return;
            }
            let ends = expires + if pinned { stale_max(&entry, zone) } else { holding.max_stale };
            let lives = ends > now;
            if lives && ends <= at_risk_until && holding.ill {
                masking.at_risk += 1;
            }
            if pinned {
                masking.pinned += 1;
                masking.pinned_stale += usize::from(stale);
                let left = masking.pinned_runway_s.unwrap_or(u64::MAX).min(now.until(ends).as_secs());
                masking.pinned_runway_s = Some(left);
            } else if lives {
                holding.ends = holding.ends.min(ends);
            } else if zone.settings.serve_stale {
                masking.lost_names += 1;
            }
        });
        masking.oldest_stale_s = now.since(oldest_stale).as_secs();
        // A zone with `serve_stale = false` has no runway.
        let lasting = self.zones.iter().zip(&held).filter(|(zone, _)| zone.settings().serve_stale);
        masking.runway_s = lasting.map(|(_, holding)| holding.runway(now).as_secs()).min().unwrap_or(0);
        (masking, held)
    }

    pub fn status(&mut self, now: Moment, wall: Timestamp) -> Status {
        let (masking, sensors) = self.report(now, wall);
        let worst = self.zones.iter().max_by_key(|zone| zone.health_number()).map(Zone::upstreams);
        let upstreams = self.zones.iter().flat_map(|zone| {
            zone.group.all().iter().map(|upstream| upstream_status(zone, upstream, now, wall))
        });
        Status {
            health: health_name(worst.unwrap_or(Upstreams::Healthy)).into(),
            upstreams: upstreams.collect(),
            names: self.cache.len(),
            bytes: self.cache.bytes(),
            masking,
            sensors,
            drill: self.drill_status(now, wall),
            restored: self.restored,
        }
    }

    /// The [`Zone::health_number`] of the worst zone.
    pub fn health_number(&self) -> u8 {
        self.zones.iter().map(Zone::health_number).max().unwrap_or(0)
    }

    /// Explains one name (in wire format, any letter case) and type.
    pub fn why(
        &mut self,
        name: &[u8],
        kind: u16,
        records: RecordsText,
        now: Moment,
        wall: Timestamp,
    ) -> Explanation {
        let question = Question { name, kind, class: 1 };
        // Without DO and CD first, as most programs ask; then the other combinations.
        let keys = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(d, c)| Key::new(&question, d, c));
        let found = keys.iter().find_map(|key| self.cache.find(key.as_bytes()));
        let key = keys[0].as_bytes();
        // The key that is cached: the guard holds by key.
        let found_key = keys.iter().find(|key| self.cache.find(key.as_bytes()).is_some());
        let found_key = found_key.map_or(key, Key::as_bytes);
        let zone_id = self.zones.of_key(key);
        let cached = self.cached(found, key, self.zones.get(zone_id), now);
        let cached = self.guarded(cached, found_key, zone_id, now);
        let guard = self.why_held(found_key, now, wall).filter(|_| matches!(cached, Cached::Held { .. }));
        let zone = self.zones.get(zone_id);
        let patience = zone.group.patience(self.settings.client_timer);
        let plan = policy::plan(cached, zone.upstreams(), patience, now);
        let found_entry = found.and_then(|slot| self.cache.get(slot));
        let records = found_entry.as_ref().map(|entry| records(entry.kept().message));
        let entry = found_entry.as_deref();
        let stale_for = entry.and_then(|entry| entry.stale_for(now));
        let held = match (entry, stale_for) {
            (None, _) if self.failures.get(key, now).is_some() => "failed",
            (None, _) => "not cached",
            (Some(_), None) => "fresh",
            (Some(_), Some(_)) if guard.is_some() => "held",
            (Some(entry), Some(_)) if may_serve(entry, zone, now) => "stale",
            (Some(_), Some(_)) => "too old",
        };
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        Explanation {
            name: name::to_text(name),
            kind: name::type_to_text(kind),
            held: held.into(),
            plan: if self.settings.local.answer(name::name_of(key), &question).is_some() {
                "answered by the cache itself (hosts_file, localhost or invalid); never sent to an upstream"
                    .into()
            } else {
                plan.to_string()
            },
            verdict: entry.map(|entry| verdict_name(entry.verdict).into()),
            records: records.unwrap_or_default(),
            learned: entry.map(|entry| at(entry.learned(), now, wall)),
            ttl_s: entry.map_or(0, |entry| entry.ttl().as_secs()),
            left_s: entry.map_or(0, |entry| match stale_for {
                None => seconds(now.until(entry.expires())),
                Some(stale) => -seconds(stale),
            }),
            served_until: entry.map(|entry| at(entry.expires() + stale_max(entry, zone), now, wall)),
            recheck: entry
                .filter(|entry| entry.recheck_at() > now)
                .map(|entry| at(entry.recheck_at(), now, wall)),
            uses: entry.map_or(0, Facts::popularity),
            guard,
            pinned: keys.iter().any(|key| self.pins.contains(key.as_bytes())),
            kept_warm: entry.is_some_and(|entry| stale_for.is_none() && is_kept_warm(entry, now)),
            zone: zone.name(),
            upstreams: upstreams_text(zone, None, now, wall),
        }
    }

    /// Describes the worst zone and lists the other failing zones.
    fn upstream_sensor(
        &self,
        masking: &Masking,
        held: &[ZoneRunway],
        now: Moment,
        wall: Timestamp,
    ) -> SensorResult {
        let why = self.settings.no_upstreams.as_ref().map(|none| none.why.as_str());
        let mut reports: Vec<Report> = self
            .zones
            .iter()
            .zip(held)
            .map(|(zone, holding)| report(zone, holding, why, now, wall))
            .collect();
        let usable: usize = reports.iter().map(|report| report.usable).sum();
        let all: usize = self.zones.iter().map(|zone| zone.group.all().len()).sum();
        let perfdata = format!("upstreams_usable={usable};;;0;{all} runway={}s", masking.runway_s);
        // Of equally bad zones, the first is described: the root, then in config order.
        reports.sort_by_key(|report| std::cmp::Reverse((report.state, report.health)));
        let zones = reports.len();
        let blind = self.no_upstreams_hint();
        // Without upstreams the host does not use this cache, so nothing is hidden from anyone.
        let mut ill =
            reports.into_iter().filter(|report| report.state != OK && !(report.is_empty && blind.is_some()));
        let (state, text) = match ill.next() {
            None if let Some(hint) = &blind => (OK, hint.clone()),
            None if zones == 1 => (OK, format!("{usable} of {usable} upstreams up")),
            None => (OK, format!("{usable} of {usable} upstreams up, in {zones} zones")),
            Some(worst) => {
                let others: Vec<String> = ill.map(|other| other.short).collect();
                let also =
                    if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
                (worst.state, worst.text + &also)
            }
        };
        let (state, text) = match self.forging(now, wall) {
            Some(forging) if state == OK => (WARNING, forging),
            Some(forging) => (state, format!("{text}; {forging}")),
            None => (state, text),
        };
        SensorResult { name: "dns-upstream".into(), state, text, perfdata, blind }
    }

    /// Why there are no upstreams, if that is no outage.
    fn no_upstreams_hint(&self) -> Option<String> {
        let none = self.settings.no_upstreams.as_ref().filter(|none| !none.is_outage)?;
        Some(format!(
            "no upstream is configured: {}; set upstreams in dns.toml if programs are to use this cache",
            none.why
        ))
    }

    /// Says that someone forges answers, in whose name, and what helps.
    fn forging(&self, now: Moment, wall: Timestamp) -> Option<String> {
        let upstreams = self.zones.iter().flat_map(|zone| zone.group.all());
        let mut waves: Vec<_> =
            upstreams.filter_map(|one| Some((one.forgeries.wave(now)?, &one.endpoint))).collect();
        // An upstream of several zones counts once.
        waves.sort_by_key(|(wave, endpoint)| (endpoint.address, wave.since));
        waves.dedup_by_key(|(_, endpoint)| endpoint.address);
        let since = waves.iter().map(|(wave, _)| wave.since).min()?;
        let packets: u64 = waves.iter().map(|(wave, _)| wave.packets).sum();
        let names: Vec<String> = waves.iter().map(|(_, endpoint)| endpoint.address.to_string()).collect();
        let example =
            waves.first().map_or_else(String::new, |(_, endpoint)| endpoint.address.ip().to_string());
        Some(format!(
            "someone is forging answers of {} since {}: {packets} false replies so far, all rejected; until the sender \
             is found, use an upstream that cannot be forged, such as \"tcp://{example}\" or tls://",
            names.join(" and "),
            clock_time(at(since, now, wall), wall)
        ))
    }

    fn stale_sensor(&self, masking: &Masking, now: Moment, wall: Timestamp) -> SensorResult {
        let &Masking { answers, stale, stale_names, oldest_stale_s, runway_s, .. } = masking;
        let ratio = if answers == 0 { 0.0 } else { f64::from(stale) * 100.0 / f64::from(answers) };
        let (state, text) = if stale == 0 {
            (
                OK,
                format!(
                    "no stale answers in the last minute ({answers} answers, {} names cached)",
                    self.cache.len()
                ),
            )
        } else {
            // The oldest outage explains the most stale names.
            let down = self
                .zones
                .iter()
                .filter_map(|zone| Some((zone.group.down_since()?, zone)))
                .min_by_key(|down| down.0);
            let outage = down.map_or_else(String::new, |(since, zone)| {
                let of = if zone.is_root() { String::new() } else { format!(" of zone {}", zone.name()) };
                format!("; upstreams{of} down since {}", clock_time(at(since, now, wall), wall))
            });
            let oldest = coarse(Duration::from_secs(oldest_stale_s));
            let runway = coarse(Duration::from_secs(runway_s));
            let text = format!(
                "serving stale answers: {ratio:.0}% in the last minute ({stale} of {answers}), {stale_names} names past \
                 their TTL, the oldest by {oldest}; runway {runway}{outage}"
            );
            (WARNING, text)
        };
        let (state, text) = self.louder(masking, state, text, now, wall);
        let perfdata = format!(
            "stale_ratio={ratio:.1}%;0 stale_names={stale_names} oldest_stale={oldest_stale_s}s runway={runway_s}s \
             lost_names={} pinned_stale={};;;0;{}",
            masking.lost_names, masking.pinned_stale, masking.pinned
        );
        SensorResult { name: "dns-stale".into(), state, text, perfdata, blind: None }
    }
}

impl Resolver {
    /// Raises the state in a long outage, and says how soon names stop resolving, how many already
    /// have, and how long the pinned names last.
    fn louder(
        &self,
        masking: &Masking,
        state: u8,
        text: String,
        now: Moment,
        wall: Timestamp,
    ) -> (u8, String) {
        let outage = self.zones.iter().any(|zone| zone.group.down_since().is_some());
        if !outage {
            return (state, text);
        }
        let most = self.zones.max_stale();
        let runway = Duration::from_secs(masking.runway_s);
        let mut text = text;
        let mut state = state;
        // Writing to a string cannot fail.
        if masking.lost_names > 0 {
            let lost = masking.lost_names;
            let most = coarse(most);
            let _ = write!(
                text,
                "; names in use that are too old to serve (max_stale {most}) and no longer resolve: {lost}"
            );
            state = CRITICAL;
        } else if masking.stale > 0 && runway < most / RUNWAY_SHORT {
            let _ = write!(
                text,
                "; the first names stop resolving in {}: restore an upstream, or raise max_stale (at most 7d) and reload",
                coarse(runway)
            );
            state = CRITICAL;
        }
        if let (true, Some(left)) = (masking.pinned_stale > 0, masking.pinned_runway_s) {
            let until = clock_time(at(now + Duration::from_secs(left), now, wall), wall);
            let _ =
                write!(text, "; pinned names that are stale: {}, served until {until}", masking.pinned_stale);
        }
        (state, text)
    }
}

/// Below this fraction of `max_stale`, the runway is short enough to alert.
const RUNWAY_SHORT: u32 = 4;

/// The cached names of one zone.
struct ZoneRunway {
    names: usize,
    /// When the first one becomes too old to serve.
    ends: Moment,
    max_stale: Duration,
    /// Its upstreams cannot refresh names.
    ill: bool,
}

impl ZoneRunway {
    fn runway(&self, now: Moment) -> Duration {
        now.until(self.ends)
    }
}

/// The state of one zone's upstreams.
struct Report {
    state: u8,
    health: u8,
    usable: usize,
    is_empty: bool,
    text: String,
    /// For a list after another zone's text.
    short: String,
}

fn report(
    zone: &Zone,
    holding: &ZoneRunway,
    no_upstreams: Option<&str>,
    now: Moment,
    wall: Timestamp,
) -> Report {
    let all = zone.group.all();
    let usable = all.iter().filter(|upstream| upstream.breaker.usable()).count();
    let sound = all.iter().filter(|upstream| upstream.breaker.sound()).count();
    let ill = upstreams_text(zone, zone.group.down_since(), now, wall);
    let since =
        zone.group.down_since().map(|since| clock_time(at(since, now, wall), wall)).unwrap_or_default();
    let lasts = if zone.settings().serve_stale {
        format!("serving cached answers for up to {} ({} names)", coarse(holding.runway(now)), holding.names)
    } else {
        "names stop resolving when their TTL expires (serve_stale = false)".to_owned()
    };
    let progress = zone.recovery.progress();
    let (state, text) = match zone.group.health(now) {
        _ if all.is_empty() => {
            let why = no_upstreams.map_or_else(String::new, |why| format!("{why}: "));
            (
                CRITICAL,
                format!("no upstreams: {why}set upstreams in dns.toml, or name servers in resolv.conf"),
            )
        }
        Upstreams::Healthy if zone.recovery.running() => {
            let after = zone.down_at.map_or_else(
                // A guard let go; no upstream was down.
                || "upstream answers are accepted again".to_owned(),
                |since| {
                    let since = clock_time(at(since, now, wall), wall);
                    format!("upstreams are up again after an outage since {since}")
                },
            );
            let text = format!(
                "{after}; refreshing cached names at a limited rate: {} of {} hot names done, {} names waiting",
                progress.verified, progress.hot, progress.waiting
            );
            (WARNING, text)
        }
        Upstreams::Healthy if sound == all.len() => (OK, format!("{sound} of {sound} upstreams up")),
        Upstreams::Healthy if usable == all.len() => {
            (WARNING, format!("packet loss on {} of {usable} upstreams ({ill})", usable - sound))
        }
        Upstreams::Healthy => (WARNING, format!("only {usable} of {} upstreams up ({ill})", all.len())),
        Upstreams::Recovering if all.iter().any(|upstream| upstream.breaker.relapsed()) => {
            (CRITICAL, format!("upstreams flapping since {since} ({ill}); {lasts}"))
        }
        Upstreams::Recovering => {
            (WARNING, format!("upstreams recovering from an outage since {since} ({ill}); {lasts}"))
        }
        Upstreams::Slow if let Some(since) = zone.group.lossy_since() => {
            let since = clock_time(at(since, now, wall), wall);
            (WARNING, format!("packet loss on all upstreams since {since} ({ill}); {lasts}"))
        }
        Upstreams::Slow => (CRITICAL, format!("all upstreams too slow since {since} ({ill}); {lasts}")),
        Upstreams::Down => (CRITICAL, format!("all upstreams down since {since} ({ill}); {lasts}")),
    };
    let text = if zone.is_root() { text } else { format!("zone {}: {text}", zone.name()) };
    let short = match zone.group.health(now) {
        Upstreams::Healthy if all.is_empty() => "no upstreams".to_owned(),
        Upstreams::Healthy => format!("{usable} of {} upstreams up", all.len()),
        ill => health_name(ill).to_owned(),
    };
    let short = format!("zone {}: {short}", zone.name());
    Report { state, health: zone.health_number(), usable, is_empty: all.is_empty(), text, short }
}

/// The state of each upstream. Leaves out the time if it is the minute of `outage`.
fn upstreams_text(zone: &Zone, outage: Option<Moment>, now: Moment, wall: Timestamp) -> String {
    let outage = outage.map(|since| clock_time(at(since, now, wall), wall));
    let describe = |upstream: &Upstream| {
        let status = upstream_status(zone, upstream, now, wall);
        let since = status.since.map(|since| clock_time(since, wall));
        match (status.why, since) {
            (Some(why), since) if since == outage => format!("{} {why}", status.address),
            (Some(why), Some(since)) => format!("{} {why} since {since}", status.address),
            _ => format!("{} {}", status.address, status.state),
        }
    };
    zone.group.all().iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn upstream_status(zone: &Zone, upstream: &Upstream, now: Moment, wall: Timestamp) -> UpstreamStatus {
    let breaker = &upstream.breaker;
    let (state, why, since) = match breaker.state() {
        State::Healthy | State::Suspect { .. } if let Some(since) = breaker.lossy_since() => {
            let why = format!("{} of the last {WINDOW} queries unanswered", breaker.unanswered());
            ("lossy", Some(why), Some(since))
        }
        State::Healthy => ("healthy", None, None),
        State::Suspect { since, .. } => ("suspect", None, Some(since)),
        State::Down { since, .. } if breaker.slow(now) => {
            ("slow", Some("answers too slowly".to_owned()), Some(since))
        }
        State::Down { since, why, .. } => ("down", Some(why.text().to_owned()), Some(since)),
        State::Recovering { down_since, why, .. } => {
            ("recovering", Some(why.text().to_owned()), Some(down_since))
        }
    };
    UpstreamStatus {
        address: upstream.endpoint.to_string(),
        state: state.into(),
        zone: zone.name(),
        why,
        since: since.map(|since| at(since, now, wall)),
        sent: upstream.counts.sent,
        answered: upstream.counts.answered,
        letter_case: (!upstream.endpoint.is_stream()).then(|| upstream.letter_case.name().into()),
        other_case: upstream.counts.other_case,
        forged: upstream.forgeries.total(),
    }
}

fn health_name(upstreams: Upstreams) -> &'static str {
    match upstreams {
        Upstreams::Healthy => "healthy",
        Upstreams::Recovering => "recovering",
        Upstreams::Slow => "slow",
        Upstreams::Down => "down",
    }
}

fn is_kept_warm(entry: &Facts, now: Moment) -> bool {
    entry.verdict == Verdict::Positive
        && entry.ttl() >= policy::PREFETCH_TTL_MIN
        && warm::worth_it(use_of(entry, now))
}
