//! Which check runs next.
//!
//! Each check has a grid of slots: `phase + n · interval` since boot, with `phase = hash(machine
//! id, name) mod interval`. So the phase survives restarts and reloads, and it differs from host to
//! host: the hosts of a fleet do not run a check at the same time.
//!
//! - A check runs at most once at a time. Of each lane, at most so many checks run at once; a check
//!   never waits for one of another lane.
//! - A late check runs once and is back on its grid. Missed slots are counted and not made up for.
//! - A stuck check is not started again, but each of its slots still yields a result.
//! - While the status is soft, the next run follows after the retry interval, off the grid.
//!
//! All steps take logarithmic time, so that ten thousand checks cost little. Deadlines are up to
//! [`crate::runner`].

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    sync::Arc,
    time::Duration,
};

use dogwatch_checks::Lane;
use fnv::FnvHasher;

use crate::moment::Moment;

/// How often one check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub interval: Duration,
    /// Between runs while the status is soft.
    pub retry_interval: Duration,
}

/// How many checks of each lane may run at once. Stuck checks do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    pub local: usize,
    pub network: usize,
    pub plugin: usize,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Start it. `late` is how long it waited for the loop and for other checks to end.
    Run { name: Arc<str>, late: Duration },
    /// Its last run has not ended: do not start it, report that instead.
    StillStuck { name: Arc<str>, stuck_for: Duration },
}

/// The slots of all checks.
#[derive(Debug)]
pub struct Schedule {
    /// Seed of all phases, from the id of this host.
    host: u64,
    limits: LaneLimits,
    entries: BTreeMap<Arc<str>, Entry>,
    /// How many run, by lane.
    running: BTreeMap<Lane, usize>,
    /// The idle checks of each lane, the next one first.
    idle: BTreeMap<Lane, BTreeSet<(Moment, Arc<str>)>>,
    /// The stuck checks, by their next slot.
    stuck: BTreeSet<(Moment, Arc<str>)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    timing: Timing,
    lane: Lane,
    phase: Duration,
    due: Moment,
    run: Run,
    skipped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Idle,
    Running { since: Moment },
    Stuck { since: Moment },
}

impl LaneLimits {
    fn of(self, lane: Lane) -> usize {
        match lane {
            Lane::Local => self.local,
            Lane::Network => self.network,
            Lane::Plugin => self.plugin,
        }
    }
}

impl Schedule {
    pub fn new(machine_id: &str, limits: LaneLimits) -> Self {
        Self {
            host: host_hash(machine_id),
            limits,
            entries: BTreeMap::new(),
            running: BTreeMap::new(),
            idle: BTreeMap::new(),
            stuck: BTreeSet::new(),
        }
    }

    /// Replaces the set of checks. A check with the same timing keeps its next slot; a new check
    /// runs soon.
    pub fn apply<'a>(&mut self, checks: impl IntoIterator<Item = (&'a Arc<str>, Lane, Timing)>, now: Moment) {
        let mut before = std::mem::take(&mut self.entries);
        self.running.clear();
        self.idle.clear();
        self.stuck.clear();
        for (name, lane, timing) in checks {
            let hash = hash(self.host, name);
            let entry = match before.remove(name) {
                Some(entry) if entry.timing == timing => Entry { lane, ..entry },
                Some(mut entry) => {
                    entry.timing = timing;
                    entry.lane = lane;
                    entry.phase = phase(hash, timing.interval);
                    entry.due = entry.due.min(entry.next_slot(now));
                    entry
                }
                None => Entry {
                    timing,
                    lane,
                    phase: phase(hash, timing.interval),
                    due: now + phase(hash.rotate_left(32), timing.interval.min(FIRST_RUN_WITHIN)),
                    run: Run::Idle,
                    skipped: 0,
                },
            };
            self.put(name, entry);
        }
    }

    /// The check that is due, the longest waiting first. It counts as started.
    pub fn poll_due(&mut self, now: Moment) -> Option<Due> {
        if let Some((_, name)) = self.stuck.first().filter(|(due, _)| *due <= now) {
            let name = Arc::clone(name);
            let (name, mut entry) = self.take(&name)?;
            let Run::Stuck { since } = entry.run else { return None };
            entry.skip_to_after(now);
            self.put(&name, entry);
            return Some(Due::StillStuck { name, stuck_for: now.since(since) });
        }
        let (_, name) = self.next_idle().filter(|(due, _)| *due <= now)?;
        let name = Arc::clone(name);
        let (name, mut entry) = self.take(&name)?;
        entry.run = Run::Running { since: now };
        self.put(&name, entry);
        Some(Due::Run { name, late: now.since(entry.due) })
    }

    /// The run that `poll_due` ordered has ended. `soft`: its result must be confirmed soon. `cpu`
    /// is the CPU time of the run: an expensive check is retried less often, so that monitoring
    /// does not become the load.
    pub fn on_finished(&mut self, name: &str, soft: bool, cpu: Duration, now: Moment) {
        let Some(Run::Running { since }) = self.entries.get(name).map(|entry| entry.run) else { return };
        let Some((name, mut entry)) = self.take(name) else { return };
        entry.run = Run::Idle;
        entry.skip_to_after(now);
        if soft {
            let retry = entry.timing.retry_interval.max(cpu.saturating_mul(RETRY_PER_COST));
            entry.due = entry.due.min((since + retry).max(now));
        }
        self.put(&name, entry);
    }

    /// The run is past its deadline and cannot be stopped. The check is not started again until
    /// [`Self::on_released`].
    pub fn on_stuck(&mut self, name: &str, now: Moment) {
        let Some(Run::Running { since }) = self.entries.get(name).map(|entry| entry.run) else { return };
        let Some((name, mut entry)) = self.take(name) else { return };
        entry.run = Run::Stuck { since };
        entry.skip_to_after(now);
        self.put(&name, entry);
    }

    /// The stuck run has ended. The check is started again at its next slot.
    pub fn on_released(&mut self, name: &str) {
        if self.entries.get(name).is_some_and(|entry| matches!(entry.run, Run::Stuck { .. }))
            && let Some((name, mut entry)) = self.take(name)
        {
            entry.run = Run::Idle;
            self.put(&name, entry);
        }
    }

    /// Runs an idle check now.
    pub fn run_now(&mut self, name: &str, now: Moment) {
        if self.entries.get(name).is_some_and(|entry| entry.run == Run::Idle)
            && let Some((name, entry)) = self.take(name)
        {
            self.put(&name, Entry { due: now, ..entry });
        }
    }

    /// When to call [`Self::poll_due`] next; `None` until a run ends or a check is added.
    pub fn next_wakeup(&self) -> Option<Moment> {
        let stuck = self.stuck.first().map(|(due, _)| *due);
        let idle = self.next_idle().map(|(due, _)| *due);
        stuck.into_iter().chain(idle).min()
    }

    /// The check that waits longest, and for how long it has been due.
    pub fn longest_waiting(&self, now: Moment) -> Option<(&Arc<str>, Lane, Duration)> {
        let first =
            self.idle.iter().filter_map(|(lane, queue)| queue.first().map(|(due, name)| (due, name, *lane)));
        first.min().map(|(due, name, lane)| (name, lane, now.since(*due)))
    }

    pub fn is_running(&self) -> bool {
        self.running.values().any(|count| *count > 0)
    }

    /// The checks that run now.
    pub fn running(&self) -> impl Iterator<Item = &Arc<str>> {
        let runs = |entry: &Entry| matches!(entry.run, Run::Running { .. });
        self.entries.iter().filter(move |(_, entry)| runs(entry)).map(|(name, _)| name)
    }

    /// When this check runs next; `None` while it runs, and for checks without a schedule.
    pub fn next_run(&self, name: &str) -> Option<Moment> {
        let waits = |entry: &&Entry| !matches!(entry.run, Run::Running { .. });
        self.entries.get(name).filter(waits).map(|entry| entry.due)
    }

    /// How many slots of this check passed without a run.
    pub fn skipped(&self, name: &str) -> u64 {
        self.entries.get(name).map_or(0, |entry| entry.skipped)
    }

    /// The next idle check of all lanes that are not full.
    fn next_idle(&self) -> Option<&(Moment, Arc<str>)> {
        let free = |lane: Lane| self.running.get(&lane).copied().unwrap_or(0) < self.limits.of(lane);
        self.idle.iter().filter(|(lane, _)| free(**lane)).filter_map(|(_, queue)| queue.first()).min()
    }

    /// Adds an entry and what follows from it.
    fn put(&mut self, name: &Arc<str>, entry: Entry) {
        match entry.run {
            Run::Idle => {
                self.idle.entry(entry.lane).or_default().insert((entry.due, Arc::clone(name)));
            }
            Run::Running { .. } => *self.running.entry(entry.lane).or_default() += 1,
            Run::Stuck { .. } => {
                self.stuck.insert((entry.due, Arc::clone(name)));
            }
        }
        self.entries.insert(Arc::clone(name), entry);
    }

    /// Removes an entry and what followed from it.
    fn take(&mut self, name: &str) -> Option<(Arc<str>, Entry)> {
        let (name, entry) = self.entries.remove_entry(name)?;
        match entry.run {
            Run::Idle => {
                if let Some(queue) = self.idle.get_mut(&entry.lane) {
                    queue.remove(&(entry.due, Arc::clone(&name)));
                }
            }
            Run::Running { .. } => {
                if let Some(count) = self.running.get_mut(&entry.lane) {
                    *count = count.saturating_sub(1);
                }
            }
            Run::Stuck { .. } => {
                self.stuck.remove(&(entry.due, Arc::clone(&name)));
            }
        }
        Some((name, entry))
    }
}

impl Entry {
    /// The first slot after `now`.
    fn next_slot(&self, now: Moment) -> Moment {
        let interval = self.timing.interval.as_nanos().max(1);
        let into = (now.0.as_nanos() + interval - self.phase.as_nanos() % interval) % interval;
        now + nanos(interval - into)
    }

    /// Moves to the next slot after `now`. The slots in between are skipped.
    fn skip_to_after(&mut self, now: Moment) {
        let next = self.next_slot(now);
        let slots = next.since(self.due).as_nanos() / self.timing.interval.as_nanos().max(1);
        self.skipped += u64::try_from(slots.saturating_sub(1)).unwrap_or(u64::MAX);
        self.due = next;
    }
}

/// A new check runs within this time, however long its interval is. So do all checks after a start.
const FIRST_RUN_WITHIN: Duration = Duration::from_secs(10);

/// While its status is soft, a check takes at most a twentieth of a core. Without this limit an apt
/// check (3.7 CPU seconds) that is retried every 30 s takes 12 % of a core.
const RETRY_PER_COST: u32 = 20;

/// In whole seconds, or tenths of a second, if the interval allows it: checks that are due at the
/// same time share a wakeup.
pub(crate) fn phase(hash: u64, interval: Duration) -> Duration {
    let phase = u128::from(hash) % interval.as_nanos().max(1);
    let grid = match interval.as_secs() {
        10.. => Duration::from_secs(1),
        1..10 => Duration::from_millis(100),
        0 => Duration::from_nanos(1),
    };
    nanos(phase - phase % grid.as_nanos())
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// FNV-1a, then the finalizer of splitmix64, so that names that differ in one letter get phases far
/// apart.
/// Spreads what hosts do at the same time.
pub(crate) fn host_hash(id: &str) -> u64 {
    hash(0, id)
}

fn hash(seed: u64, text: &str) -> u64 {
    let mut fnv = FnvHasher::with_key(FnvHasher::default().finish() ^ seed);
    fnv.write(text.as_bytes());
    let mut hash = fnv.finish();
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const NO_COST: Duration = Duration::ZERO;

    #[test]
    fn a_check_keeps_its_phase_through_upgrades() {
        assert_eq!(hash(hash(0, "host"), "disk"), 0xb1e0_5bae_5690_d48b);
    }

    #[test]
    fn a_check_keeps_its_phase_through_restarts() {
        let first = World::new("host-a", &["disk"]).run(10 * MINUTE, NO_COST);
        let mut later = World::new("host-a", &[]);
        later.now = at(67 * 60 + 13);
        later.apply(&["disk"]);
        let second = later.run(10 * MINUTE, NO_COST);
        let phase = |starts: &[(Moment, Arc<str>)]| starts.last().unwrap().0.0.as_secs() % 60;
        assert_eq!(phase(&first), phase(&second));
    }

    #[test]
    fn hosts_and_checks_do_not_run_in_step() {
        let names: Vec<String> = (0..600).map(|n| format!("check{n}")).collect();
        let mut per_second = [0_u32; 60];
        for name in &names {
            let starts = World::new("host-a", &[name]).run(2 * MINUTE, NO_COST);
            per_second[usize::try_from(starts.last().unwrap().0.0.as_secs() % 60).unwrap()] += 1;
        }
        // 600 checks over 60 seconds: 10 in each on average; three times that would be a cluster.
        assert!(per_second.iter().all(|&count| count < 30), "{per_second:?}");
        let phases: BTreeSet<u64> = (0..100)
            .map(|n| {
                let starts = World::new(&format!("host{n}"), &["disk"]).run(2 * MINUTE, NO_COST);
                starts.last().unwrap().0.0.as_secs() % 60
            })
            .collect();
        assert!(phases.len() > 40, "{} of 60 phases used by 100 hosts", phases.len());
    }

    #[test]
    fn checks_of_one_host_share_their_wakeups() {
        let wakeups = |interval: Duration| {
            let all: BTreeSet<_> = (0..1_000_u32).map(|n| phase(hash(7, &n.to_string()), interval)).collect();
            all.len()
        };
        assert_eq!(wakeups(MINUTE), 60);
        assert_eq!(wakeups(Duration::from_secs(1)), 10);
        assert_eq!(wakeups(Duration::from_millis(900)), 1_000, "too short to share");
    }

    #[test]
    fn a_late_check_runs_once_and_returns_to_its_grid() {
        let mut world = World::new("host-a", &["disk"]);
        world.run(3 * MINUTE, NO_COST);
        let slot = world.schedule.next_wakeup().unwrap();
        // The host was suspended for ten and a half slots.
        world.now = slot + 10 * MINUTE + MINUTE / 2;
        let starts = world.run(2 * MINUTE, NO_COST);
        let times: Vec<_> = starts.iter().map(|(at, _)| at.since(slot)).collect();
        assert_eq!(times, [10 * MINUTE + MINUTE / 2, 11 * MINUTE, 12 * MINUTE]);
        assert_eq!(world.schedule.skipped("disk"), 10);
    }

    #[test]
    fn a_soft_check_runs_after_the_retry_interval_and_then_returns_to_its_grid() {
        let mut world = World::new("host-a", &["disk"]);
        world.run(2 * MINUTE, NO_COST);
        let slot = world.schedule.next_wakeup().unwrap();
        world.now = slot;
        let mut starts = Vec::new();
        for soft in [true, true, false, false] {
            world.now = world.schedule.next_wakeup().unwrap();
            assert!(matches!(world.schedule.poll_due(world.now), Some(Due::Run { .. })));
            starts.push(world.now.since(slot).as_secs());
            world.schedule.on_finished("disk", soft, NO_COST, world.now);
        }
        assert_eq!(starts, [0, 15, 30, 60]);
        assert_eq!(world.schedule.skipped("disk"), 0);
    }

    #[test]
    fn an_expensive_check_is_retried_less_often() {
        let mut world = World::new("host-a", &["apt"]);
        world.now = world.schedule.next_wakeup().unwrap();
        let start = world.now;
        world.schedule.poll_due(world.now);
        world.schedule.on_finished("apt", true, Duration::from_secs(2), world.now);
        assert_eq!(world.schedule.next_wakeup().unwrap().since(start), Duration::from_secs(40));
    }

    #[test]
    fn a_running_check_is_not_started_again_and_its_missed_slots_are_counted() {
        let mut world = World::new("host-a", &["slow"]);
        world.now = world.schedule.next_wakeup().unwrap();
        assert!(world.schedule.poll_due(world.now).is_some());
        world.now = world.now + 3 * MINUTE;
        assert_eq!(world.schedule.poll_due(world.now), None);
        assert_eq!(world.schedule.next_wakeup(), None);
        world.schedule.on_finished("slow", false, NO_COST, world.now);
        assert!(world.schedule.skipped("slow") >= 2, "{}", world.schedule.skipped("slow"));
        assert!(world.schedule.next_wakeup().unwrap() > world.now);
    }

    #[test]
    fn the_number_of_running_checks_is_limited_and_the_longest_waiting_runs_next() {
        let mut schedule = Schedule::new("host-a", limits(2));
        let names: Vec<Arc<str>> = ["a", "b", "c", "d"].map(Arc::from).to_vec();
        schedule.apply(names.iter().map(|name| (name, Lane::Local, TIMING)), at(100));
        let order: Vec<Moment> = names.iter().map(|name| schedule.next_run(name).unwrap()).collect();
        let now = at(200);
        assert!(schedule.poll_due(now).is_some());
        let Some(Due::Run { name: second, .. }) = schedule.poll_due(now) else { panic!("room for two") };
        assert_eq!(schedule.poll_due(now), None);
        schedule.on_finished(&second, false, NO_COST, now);
        let Some(Due::Run { name, late }) = schedule.poll_due(now) else { panic!("a place is free") };
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(late, now.since(sorted[2]), "{name} was third in line");
    }

    #[test]
    fn a_stuck_check_is_not_restarted_does_not_count_and_still_yields_results() {
        let mut schedule = Schedule::new("host-a", limits(1));
        let names: Vec<Arc<str>> = ["hung", "fine"].map(Arc::from).to_vec();
        schedule.apply(names.iter().map(|name| (name, Lane::Local, TIMING)), at(0));
        let (mut hung, mut fine, mut said) = (0, 0, 0);
        while let Some(now) = schedule.next_wakeup().filter(|&next| next < at(600)) {
            match schedule.poll_due(now) {
                Some(Due::Run { name, .. }) if &*name == "hung" => {
                    hung += 1;
                    schedule.on_stuck("hung", now + Duration::from_secs(1));
                }
                Some(Due::Run { name, .. }) => {
                    fine += 1;
                    schedule.on_finished(&name, false, NO_COST, now);
                }
                Some(Due::StillStuck { .. }) => said += 1,
                None => panic!("woken for nothing"),
            }
        }
        assert_eq!(hung, 1);
        assert!(fine >= 9 && said >= 9, "{fine} {said}");
        schedule.on_released("hung");
        let now = schedule.next_run("hung").unwrap();
        assert!(matches!(schedule.poll_due(now), Some(Due::Run { .. })));
    }

    #[test]
    fn a_reload_keeps_the_phase_of_unchanged_checks() {
        let mut world = World::new("host-a", &["disk", "load"]);
        world.run(2 * MINUTE, NO_COST);
        let before = world.schedule.next_run("disk").unwrap();
        world.apply(&["disk", "new"]);
        assert_eq!(world.schedule.next_run("disk"), Some(before));
        assert_eq!(world.schedule.next_run("load"), None);
        assert!(world.schedule.next_run("new").unwrap().since(world.now) <= FIRST_RUN_WITHIN);
    }

    const TIMING: Timing = Timing { interval: MINUTE, retry_interval: Duration::from_secs(15) };

    fn limits(each: usize) -> LaneLimits {
        LaneLimits { local: each, network: each, plugin: each }
    }

    #[test]
    fn a_lane_that_is_full_does_not_delay_another_lane() {
        let mut schedule = Schedule::new("host-a", limits(2));
        let checks: Vec<(Arc<str>, Lane)> = (0..40)
            .map(|n| (format!("tcp{n}").into(), Lane::Network))
            .chain([("disk".into(), Lane::Local)])
            .collect();
        schedule.apply(checks.iter().map(|(name, lane)| (name, *lane, TIMING)), at(0));
        let now = at(20);
        let mut started = Vec::new();
        while let Some(Due::Run { name, .. }) = schedule.poll_due(now) {
            started.push(name);
        }
        assert_eq!(started.len(), 3, "two of 40 that wait for the network, and the one that does not");
        assert!(started.iter().any(|name| &**name == "disk"));
        assert_eq!(schedule.next_wakeup(), None);
        let (waiting, lane, waits) = schedule.longest_waiting(now).unwrap();
        assert!(waiting.starts_with("tcp") && lane == Lane::Network && waits > Duration::from_secs(10));
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    struct World {
        schedule: Schedule,
        now: Moment,
    }

    impl World {
        fn new(host: &str, names: &[&str]) -> Self {
            let mut world = Self { schedule: Schedule::new(host, limits(4)), now: at(1_000) };
            world.apply(names);
            world
        }

        fn apply(&mut self, names: &[&str]) {
            let names: Vec<Arc<str>> = names.iter().map(|&name| name.into()).collect();
            self.schedule.apply(names.iter().map(|name| (name, Lane::Local, TIMING)), self.now);
        }

        /// Runs all checks for this time. Each run takes no time and `cpu`. Returns all starts.
        fn run(&mut self, span: Duration, cpu: Duration) -> Vec<(Moment, Arc<str>)> {
            let end = self.now + span;
            let mut starts = Vec::new();
            while let Some(next) = self.schedule.next_wakeup().filter(|&next| next <= end) {
                self.now = next.max(self.now);
                while let Some(Due::Run { name, .. }) = self.schedule.poll_due(self.now) {
                    starts.push((self.now, Arc::clone(&name)));
                    self.schedule.on_finished(&name, false, cpu, self.now);
                }
            }
            self.now = end;
            starts
        }
    }
}
