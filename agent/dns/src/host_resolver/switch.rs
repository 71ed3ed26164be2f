//! Makes the host use the cache, and undoes that.
//!
//! The order matters. Nothing changes before the cache answers names as the old servers do. The
//! cache gets its upstreams before the host starts to use the cache. Every change is in the journal
//! before it is made. Afterwards, names are looked up as programs do. A failed switch is undone at
//! once, and an interrupted one by the next call. At every point, the host still has its old
//! servers.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    journal::{self, Before, Journal, Phase, PutRecord, StageRecord, Store},
    layout::{Host, Node, RESOLV_CONF},
    plan::{self, Cache, Manager, Plan, Put, Refusal},
    system::{Answer, Died, Lookup, System},
    text,
};

/// The journal's directory.
pub const STATE_DIR: &str = "/var/lib/dogwatch-resolver";

/// Why a switch failed, and the state of the host after it.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("not enabled, nothing was changed: {0}")]
    Refused(String),
    #[error("not enabled, all changes were reverted: {0}")]
    Reverted(String),
    #[error(
        "{why}; reverting failed too: {undo}; the old files are in {STATE_DIR}; to try again, run `dogwatch dns disable`"
    )]
    Stuck { why: String, undo: String },
    /// Internal: becomes one of the others.
    #[error("{0}")]
    Failed(String),
    #[error("another `dogwatch dns enable` or `disable` is running; try again later")]
    Busy,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Died(#[from] Died),
}

impl From<Refusal> for SwitchError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.0)
    }
}

/// The result of `enable`.
#[derive(Debug, Clone, Serialize)]
pub struct Enabled {
    pub manager: Manager,
    pub cache: IpAddr,
    pub old_servers: Vec<IpAddr>,
    /// Empty if it was already enabled.
    pub changed: Vec<PathBuf>,
    /// Names that resolved as programs look them up, before and after.
    pub verified: Vec<String>,
    pub remarks: Vec<String>,
}

/// The result of `disable`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Disabled {
    /// Files restored byte for byte.
    pub restored: Vec<PathBuf>,
    /// Files that were edited since; only our lines were removed.
    pub kept: Vec<PathBuf>,
    /// Commands that failed while undoing.
    pub failed: Vec<String>,
}

/// The changes that `enable` would make.
#[derive(Debug, Clone)]
pub struct Preview {
    pub plan: Plan,
    /// The files that would change.
    pub changes: Vec<Put>,
}

/// Used if no name of the host is known. An NXDOMAIN is a valid result too.
pub(super) const ANY_NAME: &str = "example.com";

pub struct Switch<'a, S> {
    root: &'a Path,
    config: &'a Path,
    cache: Cache,
    store: Store,
    system: &'a mut S,
}

/// The cache must reload, and the manager write its file, within `TRIES` times `PAUSE`.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);
/// The hook of a DHCP client may have to wait for another switch.
const LOCK_TRIES: u32 = 50;

impl<'a, S: System> Switch<'a, S> {
    /// `config` is dns.toml, `cache` the listen address in it.
    pub fn new(root: &'a Path, config: &'a Path, cache: IpAddr, system: &'a mut S) -> Self {
        let store = Store::at(super::layout::below(root, Path::new(STATE_DIR)));
        let drop_in = config.with_extension("d").join("50-host-resolver.toml");
        Self { root, config, cache: Cache { address: cache, drop_in }, store, system }
    }

    pub fn host(&mut self) -> io::Result<Host> {
        let running = self.system.running();
        Host::read(self.root, self.config, &self.cache.drop_in, running)
    }

    pub fn journal(&self) -> io::Result<Option<Journal>> {
        self.store.load()
    }

    /// The cache's address, and its answer for `name`.
    pub fn ask_cache(&mut self, name: &str) -> (IpAddr, Answer) {
        (self.cache.address, self.system.ask(self.cache.address, name))
    }

    /// The changes that `enable` would make, or why it would refuse.
    pub fn preview(&mut self) -> Result<Preview, SwitchError> {
        let host = self.host()?;
        let plan = plan::plan(&host, &self.cache)?;
        let changes = self.differing(&plan)?;
        Ok(Preview { plan, changes })
    }

    /// Switches, verifies, and reverts on failure. `names` replaces the names found on the host.
    pub fn enable(&mut self, names: &[String]) -> Result<Enabled, SwitchError> {
        self.store.create()?;
        let _lock = self.lock()?;
        let result = self.enable_locked(names);
        if matches!(result, Err(SwitchError::Refused(_))) && self.store.load()?.is_none() {
            self.store.clear()?;
        }
        result
    }

    fn enable_locked(&mut self, names: &[String]) -> Result<Enabled, SwitchError> {
        let host = self.host()?;
        let plan = plan::plan(&host, &self.cache);
        if let Some(journal) = self.store.load()? {
            let same = journal.phase == Phase::Enabled
                && journal.cache == self.cache.address
                && plan.as_ref().is_ok_and(|plan| plan.manager == journal.manager);
            if same {
                return self.renew(journal, &plan?, names);
            }
            // Interrupted, or the host has another manager now: undo first.
            let address = self.cache.address;
            self.undo(journal)?;
            self.cache.address = address;
            self.store.create()?;
            return self.enable_locked(names);
        }
        let plan = plan?;
        let names = self.answered(&plan, if names.is_empty() { &host.names } else { names })?;
        let before: Vec<_> = names.iter().map(|name| (name.clone(), self.system.look_up(name))).collect();

        let mut journal = Journal {
            phase: Phase::Switching,
            manager: plan.manager,
            cache: self.cache.address,
            old_servers: plan.old_servers.clone(),
            since: self.system.now(),
            stages: Vec::new(),
        };
        let pins = host.own_upstreams.is_none();
        let switched = self.switch(&plan, &mut journal, &before, pins);
        match switched {
            Ok(()) => {}
            Err(SwitchError::Died(died)) => return Err(died.into()),
            Err(error) => return Err(self.revert(journal, error.to_string())),
        }
        journal.phase = Phase::Enabled;
        self.store.save(&journal)?;
        Ok(self.enabled(plan, paths(&journal), names))
    }

    fn enabled(&self, plan: Plan, changed: Vec<PathBuf>, verified: Vec<String>) -> Enabled {
        let Plan { manager, old_servers, remarks, .. } = plan;
        Enabled { manager, cache: self.cache.address, old_servers, changed, verified, remarks }
    }

    fn switch(
        &mut self,
        plan: &Plan,
        journal: &mut Journal,
        before: &[(String, Lookup)],
        pins: bool,
    ) -> Result<(), SwitchError> {
        for (number, stage) in plan.stages.iter().enumerate() {
            journal.stages.push(StageRecord { puts: Vec::new(), then: stage.then.clone() });
            for put in &stage.puts {
                let record = self.record(put)?;
                journal.stages[number].puts.push(record);
                self.make(journal, number, put)?;
            }
            if let (Some(command), false) = (&stage.then, stage.puts.is_empty()) {
                self.system.step()?;
                self.system.run(command).map_err(SwitchError::Failed)?;
                self.system.step()?;
            }
            if number == 0 {
                self.cache_is_ready(plan, before, pins)?;
            }
        }
        self.host_resolves(before)
    }

    /// Saves the current state of a file.
    fn record(&mut self, put: &Put) -> Result<PutRecord, SwitchError> {
        let before = self.before(put, <[u8]>::to_vec)?;
        let placed = self.store.keep(&put.bytes, "placed")?;
        Ok(PutRecord {
            path: put.path.clone(),
            before,
            placed,
            made: journal::missing_folders(self.root, &put.path),
        })
    }

    fn before(&mut self, put: &Put, clean: impl Fn(&[u8]) -> Vec<u8>) -> Result<Before, SwitchError> {
        Ok(match Node::read(self.root, &put.path)? {
            Node::Absent => Before::Absent,
            Node::Link(target) => Before::Link { target },
            Node::File(file) => {
                let saved = self.store.keep(&clean(&file.bytes), "before")?;
                Before::File { saved, mode: file.mode, uid: file.uid, gid: file.gid }
            }
            Node::Other => {
                return Err(SwitchError::Failed(format!("{} is not a file", put.path.display())));
            }
        })
    }

    /// Writes the journal, then makes the change.
    fn make(&mut self, journal: &Journal, stage: usize, put: &Put) -> Result<(), SwitchError> {
        self.system.step()?;
        self.store.save(journal)?;
        self.system.step()?;
        if let Some(record) = journal.stages[stage].puts.iter().find(|record| record.path == put.path) {
            journal::make_folders(self.root, &record.made)?;
        }
        journal::put(self.root, &put.path, &put.bytes, put.mode)
            .map_err(|error| SwitchError::Failed(format!("cannot write {}: {error}", put.path.display())))?;
        self.system.step()?;
        Ok(())
    }

    /// The names for which the cache gives a conclusive answer. Refuses if it answers worse than an
    /// old server.
    fn answered(&mut self, plan: &Plan, names: &[String]) -> Result<Vec<String>, SwitchError> {
        let ours = self.cache.address;
        let mut good = Vec::new();
        let mut seen = Answer::Silence;
        let asked: Vec<String> = if names.is_empty() { vec![ANY_NAME.into()] } else { names.to_vec() };
        for name in &asked {
            seen = self.system.ask(ours, name);
            if seen.settles() {
                good.push(name.clone());
                continue;
            }
            if seen == Answer::PortClosed {
                return Err(SwitchError::Refused(format!(
                    "the cache does not answer on {ours} (port closed): see `systemctl status dogwatch-dns`"
                )));
            }
            if seen == Answer::Silence {
                return Err(SwitchError::Refused(format!(
                    "the cache on {ours} did not answer for {name} within 3 s: to check its upstreams, run \
                     `dogwatch dns status`; to check the cache, run `systemctl status dogwatch-dns`"
                )));
            }
            let old = plan.old_servers.iter().find(|server| self.system.ask(**server, name).settles());
            if let Some(old) = old {
                return Err(SwitchError::Refused(format!(
                    "for {name}, the cache returns {}, but {old} answers: see `dogwatch dns status`",
                    seen.text()
                )));
            }
        }
        if good.is_empty() {
            return Err(SwitchError::Refused(format!(
                "for {}, the cache returns {}, and no old server answers either, so nothing shows that names \
                 would resolve; give a name that does with --name",
                asked.join(", "),
                seen.text()
            )));
        }
        Ok(good)
    }

    /// Waits until the reloaded cache forwards to the old servers, without a loop, and answers.
    fn cache_is_ready(
        &mut self,
        plan: &Plan,
        names: &[(String, Lookup)],
        pins: bool,
    ) -> Result<(), SwitchError> {
        let ours = self.cache.address;
        let mut why = String::new();
        for _ in 0..TRIES {
            why = match self.system.cache_upstreams() {
                Err(error) => error,
                Ok(upstreams) if upstreams.is_empty() => "the cache has no upstreams".into(),
                Ok(upstreams) if upstreams.contains(&ours) => {
                    format!("the cache's upstream is its own address {ours}: queries would loop")
                }
                Ok(upstreams)
                    if plan.manager == Manager::SystemdResolved
                        && upstreams.iter().any(|server| plan::is_resolved_stub(*server)) =>
                {
                    "the cache's upstream is systemd-resolved, which would query the cache: queries would loop; \
                     set other upstreams in dns.toml"
                        .into()
                }
                Ok(upstreams)
                    if pins && !upstreams.iter().any(|server| plan.old_servers.contains(server)) =>
                {
                    let all: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
                    format!(
                        "the cache does not use the old servers as its upstreams; it uses {}",
                        all.join(", ")
                    )
                }
                Ok(_) => match names.iter().find(|(name, _)| !self.system.ask(ours, name).settles()) {
                    None => return Ok(()),
                    Some((name, _)) => format!("the cache does not answer for {name} with its new upstreams"),
                },
            };
            self.system.pause(PAUSE);
        }
        Err(SwitchError::Failed(why))
    }

    /// Looks up names as programs do: the result must be no worse than before, and the queries must
    /// reach the cache.
    fn host_resolves(&mut self, before: &[(String, Lookup)]) -> Result<(), SwitchError> {
        for (name, before) in before {
            let mut tries = 0..TRIES;
            let fine = tries.any(|_| {
                let now = self.system.look_up(name);
                let fine = now == *before || now == Lookup::Found || *before == Lookup::Failed;
                if !fine {
                    self.system.pause(PAUSE);
                }
                fine
            });
            if !fine {
                return Err(SwitchError::Failed(format!(
                    "{name} resolved before the switch, but not after it"
                )));
            }
        }
        let Some((name, _)) = before.first() else { return Ok(()) };
        let mut why = String::new();
        for _ in 0..TRIES {
            let fresh = format!("{}.{name}", self.system.fresh_label());
            self.system.look_up(&fresh);
            match self.system.cache_knows(&fresh) {
                Ok(true) => return Ok(()),
                Ok(false) => why = "lookups do not reach the cache".into(),
                Err(error) => why = error,
            }
            self.system.pause(PAUSE);
        }
        Err(SwitchError::Failed(why))
    }

    /// Already enabled: repairs files that changed since (a new lease, an edit).
    fn renew(&mut self, mut journal: Journal, plan: &Plan, names: &[String]) -> Result<Enabled, SwitchError> {
        let changed = self.refresh_locked(&mut journal, plan)?;
        let mut verified = Vec::new();
        for name in names {
            if self.system.look_up(name) == Lookup::Failed {
                return Err(SwitchError::Failed(format!("already enabled, but {name} does not resolve")));
            }
            verified.push(name.clone());
        }
        Ok(self.enabled(plan.clone(), changed, verified))
    }

    /// For the hooks of DHCP clients: adopts the manager's current servers, without verifying or
    /// reverting. A lease can change during an outage, and going back to dead servers would be
    /// worse. `None` if not enabled.
    pub fn refresh(&mut self) -> Result<Option<Vec<PathBuf>>, SwitchError> {
        if self.store.load()?.is_none_or(|journal| journal.phase != Phase::Enabled) {
            return Ok(None);
        }
        let _lock = self.lock()?;
        let Some(mut journal) = self.store.load()?.filter(|journal| journal.phase == Phase::Enabled) else {
            return Ok(None);
        };
        let host = self.host()?;
        let plan = plan::plan(&host, &self.cache)?;
        if plan.manager != journal.manager {
            return Err(SwitchError::Failed(format!(
                "enabled while resolv.conf was managed by {}, but now it is managed by {}: run `dogwatch dns enable`",
                journal.manager, plan.manager
            )));
        }
        self.refresh_locked(&mut journal, &plan).map(Some)
    }

    fn refresh_locked(&mut self, journal: &mut Journal, plan: &Plan) -> Result<Vec<PathBuf>, SwitchError> {
        let mut changed = Vec::new();
        let ours = self.cache.address;
        for (number, stage) in plan.stages.iter().enumerate() {
            let mut here = false;
            for put in &stage.puts {
                let current = Node::read(self.root, &put.path)?;
                if current.bytes() == Some(&put.bytes) {
                    continue;
                }
                let placed = self.store.keep(&put.bytes, "placed")?;
                let Some(stage) = journal.stages.get_mut(number) else { continue };
                let made = journal::missing_folders(self.root, &put.path);
                match stage.puts.iter().position(|record| record.path == put.path) {
                    None => {
                        let before = self.before(put, <[u8]>::to_vec)?;
                        stage.puts.push(PutRecord { path: put.path.clone(), before, placed, made });
                    }
                    Some(index) => {
                        let was = self.store.kept(&stage.puts[index].placed)?;
                        // Another program rewrote the file: its content without our lines is the
                        // new original.
                        if current.bytes().is_some_and(|bytes| bytes != was) {
                            stage.puts[index].before = self.before(put, |bytes| without_us(bytes, ours))?;
                        }
                        stage.puts[index].placed = placed;
                    }
                }
                self.make(journal, number, put)?;
                changed.push(put.path.clone());
                // glibc notices a new resolv.conf, and NetworkManager's hook must not call
                // NetworkManager.
                here |= put.path != Path::new(RESOLV_CONF);
            }
            if let (Some(command), true) = (&stage.then, here) {
                self.system.run(command).map_err(SwitchError::Failed)?;
            }
        }
        if !changed.is_empty() {
            journal.old_servers.clone_from(&plan.old_servers);
            self.store.save(journal)?;
        }
        Ok(changed)
    }

    /// Undoes everything. `None` if not enabled.
    pub fn disable(&mut self) -> Result<Option<Disabled>, SwitchError> {
        if self.store.load()?.is_none() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        match self.store.load()? {
            Some(journal) => self.undo(journal).map(Some),
            None => Ok(None),
        }
    }

    fn revert(&mut self, journal: Journal, why: String) -> SwitchError {
        match self.undo(journal) {
            Ok(_) => SwitchError::Reverted(why),
            Err(SwitchError::Died(died)) => died.into(),
            Err(undo) => SwitchError::Stuck { why, undo: undo.to_string() },
        }
    }

    /// Undoes the stages in reverse order: first the files, then the command that makes a program
    /// reread them.
    fn undo(&mut self, mut journal: Journal) -> Result<Disabled, SwitchError> {
        journal.phase = Phase::Reverting;
        self.store.save(&journal)?;
        // The config may have another address by now, or be invalid.
        self.cache.address = journal.cache;
        let mut done = Disabled::default();
        for stage in journal.stages.iter().rev() {
            for record in stage.puts.iter().rev() {
                self.system.step()?;
                self.put_back(record, &mut done)?;
                self.system.step()?;
            }
            if let (Some(command), false) = (&stage.then, stage.puts.is_empty())
                && let Err(error) = self.system.run(command)
            {
                done.failed.push(error);
            }
        }
        self.system.step()?;
        self.store.clear()?;
        Ok(done)
    }

    fn put_back(&mut self, record: &PutRecord, done: &mut Disabled) -> Result<(), SwitchError> {
        let PutRecord { path, before, placed, made } = record;
        journal::remove_torn(self.root, path);
        let current = Node::read(self.root, path)?;
        let placed = self.store.kept(placed)?;
        match &current {
            Node::File(file) if file.bytes == placed || placed.starts_with(&file.bytes) => {
                journal::restore(self.root, path, before, &self.store)?;
                done.restored.push(path.clone());
            }
            // Our own file, edited by someone: keep a copy of the edits.
            Node::File(file) if *before == Before::Absent && text::is_marked(&file.bytes) => {
                let aside = PathBuf::from(format!("{}.edited", path.display()));
                journal::put(self.root, &aside, &file.bytes, file.mode)?;
                journal::restore(self.root, path, before, &self.store)?;
                done.kept.push(aside);
            }
            // Edited since: keep the edits, remove our lines.
            Node::File(file) => {
                let saved = match before {
                    Before::File { saved, .. } => Some(self.store.kept(saved)?),
                    Before::Absent | Before::Link { .. } => None,
                };
                let theirs = without_us(&file.bytes, self.cache.address);
                if saved.as_ref() == Some(&file.bytes) {
                    // The change was never made, or is already undone.
                } else if theirs != file.bytes {
                    journal::put(self.root, path, &theirs, file.mode)?;
                    done.kept.push(path.clone());
                } else {
                    done.kept.push(path.clone());
                }
            }
            // Deleted or replaced by a link since, or never made.
            Node::Absent if *before != Before::Absent => done.kept.push(path.clone()),
            Node::Link(target) if !matches!(before, Before::Link { target: was } if was == target) => {
                done.kept.push(path.clone());
            }
            Node::Absent | Node::Link(_) | Node::Other => {}
        }
        journal::remove_folders(self.root, made);
        Ok(())
    }

    fn differing(&self, plan: &Plan) -> Result<Vec<Put>, SwitchError> {
        let mut differing = Vec::new();
        for put in plan.stages.iter().flat_map(|stage| &stage.puts) {
            if Node::read(self.root, &put.path)?.bytes() != Some(&put.bytes) {
                differing.push(put.clone());
            }
        }
        Ok(differing)
    }

    fn lock(&mut self) -> Result<std::fs::File, SwitchError> {
        for _ in 0..LOCK_TRIES {
            if let Some(lock) = self.store.lock()? {
                return Ok(lock);
            }
            self.system.pause(PAUSE);
        }
        Err(SwitchError::Busy)
    }
}

fn without_us(bytes: &[u8], ours: IpAddr) -> Vec<u8> {
    if text::has_block(bytes) { text::without_block(bytes) } else { text::without_cache(bytes, ours) }
}

fn paths(journal: &Journal) -> Vec<PathBuf> {
    journal.stages.iter().flat_map(|stage| &stage.puts).map(|record| record.path.clone()).collect()
}
