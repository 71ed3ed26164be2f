//! Forward zones: the names below one suffix, the upstreams that answer for them, and their health.
//!
//! Zones share the cache and nothing else. A zone whose upstreams are dead serves stale, probes,
//! and is refreshed at its own rate, and other zones are not affected. Two zones that name the same
//! upstream each judge it by their own queries. The root zone (`.`) always exists and gets every
//! name that no other zone covers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    cache::{Entry, Facts},
    guard::{self, Guard},
    health::{
        group::Group,
        pace::{Meter, Pace},
        recovery::Recovery,
    },
    message::{name, wire::Verdict},
    moment::Moment,
    policy::Upstreams,
    settings::{Settings, ZoneSettings},
    zones::warm,
};

/// Identifies a zone. Valid until the next [`Zones::set`], which returns the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(u16);

impl ZoneId {
    pub const ROOT: Self = Self(0);

    fn new(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(0))
    }

    /// Index in [`Zones::iter`].
    pub fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// What the policy needs to know about a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZoneState {
    pub(crate) upstreams: Upstreams,
    /// `None`: do not serve stale.
    pub(crate) max_stale: Option<Duration>,
    /// The guard holds names, so only the core can decide about expired entries.
    pub(crate) guarded: bool,
    /// Public names must not lead to private addresses.
    pub(crate) rebinding: bool,
    /// How long the name in question is held, if it had a good answer. `None` if it is not held, or
    /// if this describes a whole zone.
    pub(crate) frozen: Option<guard::Frozen>,
}

impl ZoneState {
    /// Whether an answer this far past its TTL may be served without asking the core.
    pub(crate) fn serves(&self, past: Duration) -> bool {
        !self.guarded && self.max_stale.is_some_and(|most| past <= most)
    }

    /// The state for this name, given the domains below which all names are held.
    pub(crate) fn for_name<'a>(
        self,
        name: &[u8],
        frozen: impl Iterator<Item = (&'a [u8], guard::Frozen)>,
    ) -> Self {
        let ours = frozen.filter(|(domain, _)| guard::is_below(name, domain));
        Self { frozen: ours.map(|(_, frozen)| frozen).max(), ..self }
    }

    /// Whether an entry this far past its TTL is held, decided without asking the core.
    pub(crate) fn freezes(&self, entry: &Facts, past: Duration, now: Moment) -> bool {
        self.frozen.is_some_and(|frozen| now < frozen.until && entry.learned() < frozen.since)
            && self.max_stale.is_some_and(|most| past <= most)
            && entry.verdict == Verdict::Positive
            && !entry.of_other_view()
    }
}

/// Maps a name to its zone: the longest suffix wins (RFC 1034 §4.3.2 finds zones the same way).
/// Cheap to clone for use on other threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suffixes(BTreeMap<Box<[u8]>, ZoneId>);

impl Suffixes {
    /// The suffixes of all zones but the root, in order.
    pub(crate) fn new<'a>(others: impl Iterator<Item = &'a [u8]>) -> Self {
        Self(others.zip(1..).map(|(suffix, place)| (suffix.into(), ZoneId::new(place))).collect())
    }

    /// `name`: wire format, lower case. Free while there is only the root zone.
    pub fn of(&self, name: &[u8]) -> ZoneId {
        if self.0.is_empty() {
            return ZoneId::ROOT;
        }
        let mut rest = name;
        while let [len, tail @ ..] = rest {
            if let Some(&zone) = self.0.get(rest) {
                return zone;
            }
            let Some(parent) = tail.get(usize::from(*len)..) else { break };
            rest = parent;
        }
        ZoneId::ROOT
    }
}

/// One zone: its upstreams, their health, and queries due.
pub struct Zone {
    pub(crate) settings: ZoneSettings,
    pub(crate) group: Group,
    /// The group's health as last reviewed.
    pub(crate) health: Upstreams,
    /// When it last changed.
    pub(crate) health_since: Moment,
    /// When the current outage began; it ends when the recovery ends.
    pub(crate) down_at: Option<Moment>,
    /// Refreshes after an outage, and their rate.
    pub(crate) recovery: Recovery,
    /// The budget for keeping names warm.
    pub(crate) warm: warm::Budget,
    /// Rate limit for unknown names while all upstreams are down.
    pub(crate) hopeless_pace: Pace,
    /// Query rate to the upstreams in normal times.
    pub(crate) baseline: Meter,
    /// Recently resolved questions to probe with, one per domain, since a domain tends to break as
    /// a whole.
    canaries: VecDeque<Box<[u8]>>,
    canary_at: Moment,
    pub(crate) guard: Guard,
}

/// Most questions kept to probe with.
pub(crate) const CANARIES_MAX: usize = 8;
/// A canary is chosen at most this often, so that the hot path rarely copies a name.
const CANARY_GAP: Duration = Duration::from_secs(1);
/// Queries for unknown names while all upstreams are down: a few, because an upstream may be back.
const HOPELESS_PER_SECOND: u32 = 4;
const ROOT_SUFFIX: &[u8] = &[0];

impl Zone {
    fn new(settings: ZoneSettings, host: u64, now: Moment) -> Self {
        Self {
            group: Group::new(&settings.upstreams, now),
            guard: Guard::new(&settings.suffix, settings.guard.clone()),
            settings,
            health: Upstreams::Healthy,
            health_since: now,
            down_at: None,
            recovery: Recovery::new(host),
            warm: warm::Budget::new(now),
            hopeless_pace: Pace::new(f64::from(HOPELESS_PER_SECOND), HOPELESS_PER_SECOND, now),
            baseline: Meter::new(now),
            canaries: VecDeque::new(),
            canary_at: now,
        }
    }

    pub fn settings(&self) -> &ZoneSettings {
        &self.settings
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    pub fn is_root(&self) -> bool {
        *self.settings.suffix == *ROOT_SUFFIX
    }

    /// `corp.example`, or `.`.
    pub fn name(&self) -> String {
        name::to_text(&self.settings.suffix)
    }

    /// The upstreams' health in the policy's terms.
    pub fn upstreams(&self) -> Upstreams {
        match self.health {
            Upstreams::Healthy if self.recovery.running() => Upstreams::Recovering,
            health => health,
        }
    }

    /// 0 healthy, 1 recovering, 2 slow, 3 down: for a gauge, and for finding the worst.
    pub fn health_number(&self) -> u8 {
        match self.upstreams() {
            Upstreams::Healthy => 0,
            Upstreams::Recovering => 1,
            Upstreams::Slow => 2,
            Upstreams::Down => 3,
        }
    }

    /// Whether an answer this far past its TTL may be served.
    pub fn may_serve(&self, stale_for: Duration) -> bool {
        self.settings.serve_stale && stale_for <= self.settings.max_stale
    }

    pub(crate) fn state(&self) -> ZoneState {
        let settings = &self.settings;
        ZoneState {
            upstreams: self.upstreams(),
            max_stale: settings.serve_stale.then_some(settings.max_stale),
            guarded: !self.guard.is_idle(),
            rebinding: settings.rebinding.on,
            frozen: None,
        }
    }

    /// The same for one of its names (wire format, lower case).
    pub(crate) fn state_for(&self, name: &[u8]) -> ZoneState {
        self.state().for_name(name, self.guard.frozen_domains())
    }

    /// How far past its TTL an answer may be served.
    pub fn max_stale(&self) -> Duration {
        if self.settings.serve_stale { self.settings.max_stale } else { Duration::ZERO }
    }

    /// Counts a query to an upstream if the time is normal.
    pub(crate) fn note_sent(&mut self, now: Moment) {
        if self.upstreams() == Upstreams::Healthy && !self.guard.tripped() {
            self.baseline.on_event(now);
        }
    }

    /// Keeps the question to probe with.
    pub(crate) fn note_canary(&mut self, key: &[u8], verdict: Verdict, now: Moment) {
        if verdict != Verdict::Positive || now < self.canary_at {
            return;
        }
        self.canary_at = now + CANARY_GAP;
        self.canaries.retain(|known| name::zone_of(known) != name::zone_of(key));
        if self.canaries.len() >= CANARIES_MAX {
            self.canaries.pop_front();
        }
        self.canaries.push_back(key.into());
    }

    fn wants_canary(&self) -> bool {
        self.canaries.len() < CANARIES_MAX
    }

    /// Keeps a question from the snapshot to probe with, if there is nothing better.
    pub(crate) fn restore_canary(&mut self, key: &[u8]) {
        if self.wants_canary() && self.canaries.iter().all(|known| name::zone_of(known) != name::zone_of(key))
        {
            self.canaries.push_back(key.into());
        }
    }

    /// The key to probe with next. They rotate, so that one broken name does not condemn an
    /// upstream.
    pub(crate) fn next_canary(&mut self) -> Box<[u8]> {
        let Some(canary) = self.canaries.pop_front() else { return self.apex_question() };
        self.canaries.push_back(canary.clone());
        canary
    }

    /// A question that every upstream of this zone can answer, for use when no other is known: NS
    /// for the root, SOA for a zone. Any answer will do.
    pub(crate) fn apex_question(&self) -> Box<[u8]> {
        let kind = if self.is_root() { TYPE_NS } else { TYPE_SOA };
        let question = crate::message::wire::Question { name: &self.settings.suffix, kind, class: 1 };
        name::Key::new(&question, false, false).as_bytes().into()
    }

    pub(crate) fn next_wakeup(&self) -> Option<Moment> {
        let refresh = self.recovery.next_wakeup().filter(|_| self.health != Upstreams::Down);
        [refresh, self.group.next_wakeup(), self.guard.next_wakeup()].into_iter().flatten().min()
    }
}

const TYPE_NS: u16 = 2;
const TYPE_SOA: u16 = 6;

/// All zones, always including the root zone.
pub struct Zones {
    root: Zone,
    others: Vec<Zone>,
    suffixes: Suffixes,
}

impl Zones {
    pub fn new(settings: &Settings, now: Moment) -> Self {
        let mut zones = Self {
            root: Zone::new(root_settings(settings), settings.host_phase, now),
            others: settings
                .zones
                .iter()
                .map(|zone| Zone::new(zone.clone(), settings.host_phase, now))
                .collect(),
            suffixes: Suffixes::default(),
        };
        zones.index();
        zones
    }

    /// Applies new settings. Zones that stay keep the state of their upstreams. Returns, for each
    /// old id, the new id if the zone still exists and asks the same upstreams.
    pub fn set(&mut self, settings: &Settings, now: Moment) -> Kept {
        let mut old: Vec<Option<Zone>> = std::mem::take(&mut self.others).into_iter().map(Some).collect();
        let root_kept = self.root.take_settings(root_settings(settings), now).then_some(ZoneId::ROOT);
        let mut kept = vec![None; old.len()];
        for (place, wanted) in settings.zones.iter().enumerate() {
            let same = old
                .iter()
                .position(|zone| zone.as_ref().is_some_and(|zone| zone.settings.suffix == wanted.suffix));
            let known = same.and_then(|at| Some((at, old.get_mut(at)?.take()?)));
            let zone = match known {
                Some((at, mut zone)) => {
                    if zone.take_settings(wanted.clone(), now) {
                        kept[at] = Some(ZoneId::new(place + 1));
                    }
                    zone
                }
                None => Zone::new(wanted.clone(), settings.host_phase, now),
            };
            self.others.push(zone);
        }
        self.index();
        self.rehome();
        kept.insert(0, root_kept);
        Kept(kept)
    }

    /// The zone of a name (wire format, lower case).
    pub fn of(&self, name: &[u8]) -> ZoneId {
        self.suffixes.of(name)
    }

    /// The zone of a cache key.
    pub fn of_key(&self, key: &[u8]) -> ZoneId {
        self.suffixes.of(name::name_of(key))
    }

    /// The zone of a cached answer. With only the root zone, the name is not looked at.
    pub(crate) fn of_entry(&self, entry: Entry<'_>) -> ZoneId {
        self.of_known(|| entry.name())
    }

    /// The same for a name that is costly to obtain.
    pub(crate) fn of_known<'a>(&self, name: impl FnOnce() -> &'a [u8]) -> ZoneId {
        if self.others.is_empty() { ZoneId::ROOT } else { self.of(name()) }
    }

    /// For finding the zone of a name elsewhere.
    pub fn suffixes(&self) -> &Suffixes {
        &self.suffixes
    }

    pub fn get(&self, id: ZoneId) -> &Zone {
        id.place().checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.root)
    }

    pub fn get_mut(&mut self, id: ZoneId) -> &mut Zone {
        id.place().checked_sub(1).and_then(|at| self.others.get_mut(at)).unwrap_or(&mut self.root)
    }

    /// The root zone first.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        std::iter::once(&self.root).chain(&self.others)
    }

    pub fn ids(&self) -> impl Iterator<Item = ZoneId> + use<> {
        (0..=self.others.len()).map(ZoneId::new)
    }

    /// The longest time past its TTL that any answer may be kept.
    pub fn max_stale(&self) -> Duration {
        self.iter().map(Zone::max_stale).max().unwrap_or_default()
    }

    fn index(&mut self) {
        self.suffixes = Suffixes::new(self.others.iter().map(|zone| &*zone.settings.suffix));
    }

    /// Names may belong to another zone now: a zone probes only with its own names.
    fn rehome(&mut self) {
        for (place, zone) in (0..).zip(std::iter::once(&mut self.root).chain(&mut self.others)) {
            let belongs = |key: &[u8]| self.suffixes.of(name::name_of(key)) == ZoneId::new(place);
            zone.canaries.retain(|key| belongs(key));
        }
    }
}

impl Zone {
    /// True if it asks the same upstreams as before.
    fn take_settings(&mut self, settings: ZoneSettings, now: Moment) -> bool {
        let same = settings.upstreams == self.settings.upstreams;
        if !same {
            self.group.set(&settings.upstreams, now);
            self.guard.forget_evidence();
        }
        self.guard.set_rules(settings.guard.clone(), now);
        self.settings = settings;
        same
    }
}

/// What happened to each zone when new settings were applied.
pub struct Kept(Vec<Option<ZoneId>>);

impl Kept {
    /// The new id of a zone that still asks the same upstreams.
    pub fn get(&self, old: ZoneId) -> Option<ZoneId> {
        self.0.get(old.place()).copied().flatten()
    }
}

fn root_settings(settings: &Settings) -> ZoneSettings {
    ZoneSettings {
        suffix: ROOT_SUFFIX.into(),
        upstreams: settings.upstreams.clone(),
        max_stale: settings.max_stale,
        serve_stale: true,
        guard: settings.guard.clone(),
        rebinding: settings.rebinding.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{guard::Rules, health::endpoint::Endpoint};

    fn settings(zones: &[(&str, u8)]) -> Settings {
        let upstream = |number| Endpoint::from(SocketAddr::from(([192, 0, 2, number], 53)));
        let zone = |&(suffix, number): &(&str, u8)| ZoneSettings {
            suffix: name::from_text(suffix).unwrap().into(),
            upstreams: vec![upstream(number)],
            max_stale: Duration::from_hours(1),
            serve_stale: true,
            guard: Rules::default(),
            rebinding: guard::Rebinding::default(),
        };
        Settings {
            upstreams: vec![upstream(1)],
            zones: zones.iter().map(zone).collect(),
            ..Settings::default()
        }
    }

    fn key(text: &str) -> Box<[u8]> {
        let name = name::from_text(text).unwrap();
        name::Key::new(&crate::message::wire::Question { name: &name, kind: 1, class: 1 }, false, false)
            .as_bytes()
            .into()
    }

    fn zone_of(zones: &Zones, text: &str) -> String {
        zones.get(zones.of_key(&key(text))).name()
    }

    #[test]
    fn a_name_belongs_to_the_longest_suffix_and_only_at_a_label() {
        let zones = Zones::new(&settings(&[("corp.example", 2), ("lab.corp.example", 3)]), Moment::START);
        for (name, zone) in [
            ("www.example", "."),
            ("corp.example", "corp.example"),
            ("a.b.corp.example", "corp.example"),
            ("notcorp.example", "."),
            ("x.LAB.corp.example", "lab.corp.example"),
            (".", "."),
        ] {
            assert_eq!(zone_of(&zones, name), zone, "{name}");
        }
        let plain = Zones::new(&settings(&[]), Moment::START);
        assert_eq!(zone_of(&plain, "a.b.corp.example"), ".");
    }

    #[test]
    fn new_settings_report_which_zones_are_unchanged_and_names_move_to_their_new_zone() {
        let now = Moment::START;
        let mut zones = Zones::new(&settings(&[("a.example", 2), ("b.example", 3)]), now);
        let (a, b) = (zones.of_key(&key("x.a.example")), zones.of_key(&key("x.b.example")));
        zones.get_mut(a).note_canary(&key("x.a.example"), Verdict::Positive, now);
        let kept = zones.set(&settings(&[("c.example", 4), ("b.example", 3)]), now);
        assert_eq!(kept.get(ZoneId::ROOT), Some(ZoneId::ROOT));
        assert_eq!((kept.get(a), kept.get(b)), (None, Some(zones.of_key(&key("x.b.example")))));
        let c = zones.of_key(&key("c.example"));
        // Without known names, a zone probes with its own SOA, the root with its NS.
        let probe = |zones: &mut Zones, id| zones.get_mut(id).next_canary();
        assert_eq!(*probe(&mut zones, c), *b"\x01c\x07example\0\0\x06\0\x01\0");
        assert_eq!(*probe(&mut zones, ZoneId::ROOT), [0, 0, 2, 0, 1, 0]);
    }
}
