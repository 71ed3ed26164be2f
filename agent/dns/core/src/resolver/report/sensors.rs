//! The cache as a sensor: what it hides from the host's programs it says to the host's watch.
//!
//! `dns-upstream` is CRITICAL from the moment the breaker opens: the first failed refresh, confirmed by a probe, is news,
//! although no client has noticed anything yet. `dns-stale` says how much is masked, and for how long that can go on.

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

/// The cache on one screen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub health: String,
    pub upstreams: Vec<UpstreamStatus>,
    pub names: usize,
    pub bytes: usize,
    pub masking: Masking,
    pub sensors: Vec<SensorResult>,
    /// The fire drill that runs, if one does.
    #[serde(default)]
    pub drill: Option<DrillStatus>,
    #[serde(default)]
    pub restored: Restored,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpstreamStatus {
    pub address: String,
    pub state: String,
    /// The zone it answers for; `.` takes every name that no other zone takes.
    pub zone: String,
    /// Why it is down.
    pub why: Option<String>,
    pub since: Option<Timestamp>,
    pub sent: u64,
    pub answered: u64,
    /// UDP: whether it repeats the case of our letters (0x20): `learning`; `kept`: what comes in other letters is not
    /// believed; `not_kept`: it is asked in lower case. Other transports need no such thing.
    #[serde(default)]
    pub letter_case: Option<String>,
    /// Answers not believed for their letters.
    #[serde(default)]
    pub other_case: u64,
}

/// How much stale data is being served.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Masking {
    /// Answers of the last minute.
    pub answers: u32,
    /// Those of them that would have failed without the cache.
    pub stale: u32,
    /// Names past their TTL that were asked for in the last five minutes.
    pub stale_names: usize,
    /// How far past its TTL the oldest of those is.
    pub oldest_stale_s: u64,
    /// Until the first name asked for in the last day becomes too old to serve; pinned names aside.
    pub runway_s: u64,
    /// Names asked for in the last day that are too old to serve already.
    #[serde(default)]
    pub lost_names: usize,
    /// Answers of pinned names.
    #[serde(default)]
    pub pinned: usize,
    /// Those of them that are past their TTL.
    #[serde(default)]
    pub pinned_stale: usize,
    /// Until the first of them becomes too old to serve.
    #[serde(default)]
    pub pinned_runway_s: Option<u64>,
    /// Names in use whose upstreams are ill and that become too old to serve within six hours.
    #[serde(default)]
    pub at_risk: usize,
}

/// Everything about one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    pub name: String,
    pub kind: String,
    /// `fresh`, `stale`, `held`, `too old`, `failed` or `not cached`.
    pub held: String,
    /// What a client asking now would get, and why.
    pub plan: String,
    pub verdict: Option<String>,
    pub records: Vec<String>,
    pub learned: Option<Timestamp>,
    pub ttl_s: u64,
    /// Left of the TTL, or past it.
    pub left_s: i64,
    /// When it becomes too old to serve.
    pub served_until: Option<Timestamp>,
    /// A refresh that failed is tried again then.
    pub recheck: Option<Timestamp>,
    pub uses: u32,
    /// Why upstream's word is not taken.
    pub guard: Option<WhyHeld>,
    /// Never evicted, always refreshed, and served for seven days in an outage.
    #[serde(default)]
    pub pinned: bool,
    /// Used so much that it is refreshed before it expires, client or not.
    #[serde(default)]
    pub kept_warm: bool,
    /// Its forward zone, and how that zone's upstreams do.
    pub zone: String,
    pub upstreams: String,
}

/// A shift's time to do something about it.
const AT_RISK_WITHIN: Duration = Duration::from_hours(6);
/// [`Zone::health_number`] from which on upstreams are no help.
const ILL: u8 = 2;
const STALE_USED_WITHIN: Duration = Duration::from_mins(5);

impl Resolver {
    /// The check results `dns-upstream`, `dns-stale` and `dns-guard`. `wall` is what people call `now`.
    pub fn sensors(&mut self, now: Moment, wall: Timestamp) -> Vec<SensorResult> {
        self.report(now, wall).1
    }

    /// What is masked, and the check results that say so, from one walk over the entries.
    pub fn report(&mut self, now: Moment, wall: Timestamp) -> (Masking, Vec<SensorResult>) {
        let (masking, held) = self.walk(now);
        let mut sensors = vec![
            self.upstream_sensor(&masking, &held, now, wall),
            self.stale_sensor(&masking, now, wall),
            self.guard_sensor(now, wall),
        ];
        if let Some(drill) = self.drill_status(now, wall) {
            // Whoever is woken by it should read this first.
            for sensor in sensors.iter_mut().filter(|sensor| sensor.state != OK) {
                let until = clock_time(drill.until);
                sensor.text = format!("FIRE DRILL by {} until {until}: {}", drill.by, sensor.text);
            }
        }
        (masking, sensors)
    }

    /// Walks all entries: for a question every few seconds, not for one a query.
    pub fn masking(&mut self, now: Moment) -> Masking {
        self.walk(now).0
    }

    /// What is masked, and what each zone holds, in the zones' order. All else waits for it, so it looks at what lies side by
    /// side in the entries and at nothing behind them.
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
        // A zone that is never served stale has no runway to lose.
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

    /// The worst zone's [`Zone::health_number`].
    pub fn health_number(&self) -> u8 {
        self.zones.iter().map(Zone::health_number).max().unwrap_or(0)
    }

    /// Explains one name (as people write it) and type.
    pub fn why(
        &mut self,
        name: &[u8],
        kind: u16,
        records: RecordsText,
        now: Moment,
        wall: Timestamp,
    ) -> Explanation {
        let question = Question { name, kind, class: 1 };
        // Asked without DO and CD first, as programs on the host do; then the other ways.
        let keys = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(d, c)| Key::new(&question, d, c));
        let found = keys.iter().find_map(|key| self.cache.find(key.as_bytes()));
        let key = keys[0].as_bytes();
        // The one that is cached: the guard holds by key.
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
                "answered by the cache itself (hosts_file, localhost or invalid), never asked upstream".into()
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
            upstreams: upstreams_text(zone, now, wall),
        }
    }

    /// Speaks of the worst zone, and names the others that are ill.
    fn upstream_sensor(
        &self,
        masking: &Masking,
        held: &[ZoneRunway],
        now: Moment,
        wall: Timestamp,
    ) -> SensorResult {
        let mut reports: Vec<Report> =
            self.zones.iter().zip(held).map(|(zone, holding)| report(zone, holding, now, wall)).collect();
        let usable: usize = reports.iter().map(|report| report.usable).sum();
        let all: usize = self.zones.iter().map(|zone| zone.group.all().len()).sum();
        let perfdata = format!("upstreams_usable={usable};;;0;{all} runway={}s", masking.runway_s);
        // Of equally ill zones the first is spoken of: the root, then as configured.
        reports.sort_by_key(|report| std::cmp::Reverse((report.state, report.health)));
        let zones = reports.len();
        let mut ill = reports.into_iter().filter(|report| report.state != OK);
        let (state, text) = match ill.next() {
            None if zones == 1 => (OK, format!("{usable} of {usable} upstreams answer")),
            None => (OK, format!("{usable} of {usable} upstreams answer, in {zones} zones")),
            Some(worst) => {
                let others: Vec<String> = ill.map(|other| other.short).collect();
                let also =
                    if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
                (worst.state, worst.text + &also)
            }
        };
        SensorResult { name: "dns-upstream".into(), state, text, perfdata }
    }

    fn stale_sensor(&self, masking: &Masking, now: Moment, wall: Timestamp) -> SensorResult {
        let &Masking { answers, stale, stale_names, oldest_stale_s, runway_s, .. } = masking;
        let ratio = if answers == 0 { 0.0 } else { f64::from(stale) * 100.0 / f64::from(answers) };
        let (state, text) = if stale == 0 {
            (
                OK,
                format!("no stale answer in the last minute ({answers} answers, {} names)", self.cache.len()),
            )
        } else {
            // The oldest outage explains the most.
            let down = self
                .zones
                .iter()
                .filter_map(|zone| Some((zone.group.down_since()?, zone)))
                .min_by_key(|down| down.0);
            let outage = down.map_or_else(String::new, |(since, zone)| {
                let of = if zone.is_root() { String::new() } else { format!(" of zone {}", zone.name()) };
                format!("; upstreams{of} down since {}", clock_time(at(since, now, wall)))
            });
            let oldest = coarse(Duration::from_secs(oldest_stale_s));
            let runway = coarse(Duration::from_secs(runway_s));
            let text = format!(
                "masking: {ratio:.0}% of answers in the last minute are stale ({stale} of {answers}), {stale_names} names, \
                 oldest {oldest} past its TTL, runway {runway}{outage}"
            );
            (WARNING, text)
        };
        let (state, text) = self.louder(masking, state, text, now, wall);
        let perfdata = format!(
            "stale_ratio={ratio:.1}%;0 stale_names={stale_names} oldest_stale={oldest_stale_s}s runway={runway_s}s \
             lost_names={} pinned_stale={};;;0;{}",
            masking.lost_names, masking.pinned_stale, masking.pinned
        );
        SensorResult { name: "dns-stale".into(), state, text, perfdata }
    }
}

impl Resolver {
    /// A long outage, in louder words: how soon names end, which have ended, and how long the pinned ones last.
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
        // Writing to a string does not fail.
        if masking.lost_names > 0 {
            let lost = masking.lost_names;
            let most = coarse(most);
            let _ =
                write!(text, "; {lost} names in use are too old to serve (max_stale {most}) and fail now");
            state = CRITICAL;
        } else if masking.stale > 0 && runway < most / RUNWAY_SHORT {
            let _ = write!(
                text,
                "; the first names fail in {}: bring an upstream back, or raise max_stale (7d at most) and reload",
                coarse(runway)
            );
            state = CRITICAL;
        }
        if let (true, Some(left)) = (masking.pinned_stale > 0, masking.pinned_runway_s) {
            let until = clock_time(at(now + Duration::from_secs(left), now, wall));
            let _ = write!(text, "; {} pinned names are stale, and last until {until}", masking.pinned_stale);
        }
        (state, text)
    }
}

/// Below this share of `max_stale` the runway is short enough to wake somebody.
const RUNWAY_SHORT: u32 = 4;

/// What a zone would lose.
struct ZoneRunway {
    names: usize,
    /// When the first of them becomes too old to serve.
    ends: Moment,
    max_stale: Duration,
    /// Its upstreams are no help.
    ill: bool,
}

impl ZoneRunway {
    fn runway(&self, now: Moment) -> Duration {
        now.until(self.ends)
    }
}

/// How one zone's upstreams do.
struct Report {
    state: u8,
    health: u8,
    usable: usize,
    text: String,
    /// For beside another zone's text.
    short: String,
}

fn report(zone: &Zone, holding: &ZoneRunway, now: Moment, wall: Timestamp) -> Report {
    let all = zone.group.all();
    let usable = all.iter().filter(|upstream| upstream.breaker.usable()).count();
    let sound = all.iter().filter(|upstream| upstream.breaker.sound()).count();
    let ill = upstreams_text(zone, now, wall);
    let since = zone.group.down_since().map(|since| clock_time(at(since, now, wall))).unwrap_or_default();
    let lasts = if zone.settings().serve_stale {
        format!("serving last known good for {} names; runway {}", holding.names, coarse(holding.runway(now)))
    } else {
        "its names end with their TTL (serve_stale = false)".to_owned()
    };
    let progress = zone.recovery.progress();
    let (state, text) = match zone.group.health(now) {
        _ if all.is_empty() => (CRITICAL, "no upstream is configured or found in resolv.conf".to_owned()),
        Upstreams::Healthy if zone.recovery.running() => {
            let after = zone.down_at.map_or_else(
                // A lie is over, and nobody was ever down.
                || "upstreams are believed again".to_owned(),
                |since| {
                    let since = clock_time(at(since, now, wall));
                    format!("upstreams answer again after an outage since {since}")
                },
            );
            let text = format!(
                "{after}; names are refreshed at a pace: {} of {} hot names verified, {} wait",
                progress.verified, progress.hot, progress.waiting
            );
            (WARNING, text)
        }
        Upstreams::Healthy if sound == all.len() => (OK, format!("{sound} of {sound} upstreams answer")),
        Upstreams::Healthy if usable == all.len() => {
            (WARNING, format!("{} of {usable} upstreams lose packets: {ill}", usable - sound))
        }
        Upstreams::Healthy => (WARNING, format!("{usable} of {} upstreams answer: {ill}", all.len())),
        Upstreams::Recovering if all.iter().any(|upstream| upstream.breaker.relapsed()) => {
            (CRITICAL, format!("upstreams come and go since {since}: {ill}; {lasts}"))
        }
        Upstreams::Recovering => {
            (WARNING, format!("upstreams come back after an outage since {since}: {ill}; {lasts}"))
        }
        Upstreams::Slow if let Some(since) = zone.group.lossy_since() => {
            let since = clock_time(at(since, now, wall));
            (WARNING, format!("every upstream loses packets since {since}: {ill}; {lasts}"))
        }
        Upstreams::Slow => (CRITICAL, format!("every upstream is too slow since {since}: {ill}; {lasts}")),
        Upstreams::Down => (CRITICAL, format!("no upstream answers since {since}: {ill}; {lasts}")),
    };
    let text = if zone.is_root() { text } else { format!("zone {}: {text}", zone.name()) };
    let short = match zone.group.health(now) {
        Upstreams::Healthy if all.is_empty() => "no upstream".to_owned(),
        Upstreams::Healthy => format!("{usable} of {} upstreams answer", all.len()),
        ill => health_name(ill).to_owned(),
    };
    let short = format!("zone {}: {short}", zone.name());
    Report { state, health: zone.health_number(), usable, text, short }
}

fn upstreams_text(zone: &Zone, now: Moment, wall: Timestamp) -> String {
    let describe = |upstream: &Upstream| {
        let status = upstream_status(zone, upstream, now, wall);
        match (status.why, status.since) {
            (Some(why), Some(since)) => format!("{} {why} since {}", status.address, clock_time(since)),
            _ => format!("{} {}", status.address, status.state),
        }
    };
    zone.group.all().iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn upstream_status(zone: &Zone, upstream: &Upstream, now: Moment, wall: Timestamp) -> UpstreamStatus {
    let breaker = &upstream.breaker;
    let (state, why, since) = match breaker.state() {
        State::Healthy | State::Suspect { .. } if let Some(since) = breaker.lossy_since() => {
            let why = format!("leaves {} of its last {WINDOW} questions unanswered", breaker.unanswered());
            ("lossy", Some(why), Some(since))
        }
        State::Healthy => ("healthy", None, None),
        State::Suspect { since, .. } => ("suspect", None, Some(since)),
        State::Down { since, .. } if breaker.slow(now) => {
            ("slow", Some("answers too late".to_owned()), Some(since))
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
