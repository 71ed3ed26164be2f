//! Makes the host use the cache, and takes that back.
//!
//! The order is the promise. Nothing is touched before the cache has answered what the old servers answer; the cache is told
//! its upstreams before the host is told of the cache; every change is in the journal before it is made; names are looked up
//! as programs do afterwards; what fails is undone at once, and what died in the middle is undone by the next call. At every
//! point in between the host has its old servers.

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

/// Where the journal is.
pub const STATE_DIR: &str = "/var/lib/dogwatch-resolver";

/// Why the host is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("not done, nothing was changed: {0}")]
    Refused(String),
    #[error("not done, everything is as it was: {0}")]
    Reverted(String),
    #[error(
        "{why}; and undoing it failed: {undo}; what was there is in {STATE_DIR}, `dogwatch dns disable` tries again"
    )]
    Stuck { why: String, undo: String },
    /// On the way; what comes of it says one of the others.
    #[error("{0}")]
    Failed(String),
    #[error("another `dogwatch dns enable` or `disable` runs; wait for it")]
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

/// What `enable` did.
#[derive(Debug, Clone, Serialize)]
pub struct Enabled {
    pub manager: Manager,
    pub cache: IpAddr,
    pub old_servers: Vec<IpAddr>,
    /// Empty if it was enabled before.
    pub changed: Vec<PathBuf>,
    /// Names that were looked up as programs do, before and after.
    pub verified: Vec<String>,
    pub remarks: Vec<String>,
}

/// What `disable` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Disabled {
    /// As they were before, to the byte.
    pub restored: Vec<PathBuf>,
    /// Somebody changed these since; only our lines were taken out.
    pub kept: Vec<PathBuf>,
    /// Commands that failed on the way back.
    pub failed: Vec<String>,
}

/// What `enable` would do.
#[derive(Debug, Clone)]
pub struct Preview {
    pub plan: Plan,
    /// Those files that would change.
    pub changes: Vec<Put>,
}

/// Asked if the host is not known to use any name: "no such name" proves as much.
pub(super) const ANY_NAME: &str = "example.com";

pub struct Switch<'a, S> {
    root: &'a Path,
    config: &'a Path,
    cache: Cache,
    store: Store,
    system: &'a mut S,
}

/// The cache takes its new upstreams, the manager writes its file: within this, or not at all.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);
/// A DHCP client's hook may find somebody at it.
const LOCK_TRIES: u32 = 50;

impl<'a, S: System> Switch<'a, S> {
    /// `config` is dns.toml; `cache` its listen address.
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

    /// The cache's address, and what it makes of `name`.
    pub fn ask_cache(&mut self, name: &str) -> (IpAddr, Answer) {
        (self.cache.address, self.system.ask(self.cache.address, name))
    }

    /// What would be done, and what is in the way.
    pub fn preview(&mut self) -> Result<Preview, SwitchError> {
        let host = self.host()?;
        let plan = plan::plan(&host, &self.cache)?;
        let changes = self.differing(&plan)?;
        Ok(Preview { plan, changes })
    }

    /// Switches, proves it, or undoes it. `names` replaces the names that the host is known to use.
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
            // Left in the middle, or the host has another manager by now: back first.
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

    /// What is there, kept.
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

    /// Journal first, then the change.
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

    /// The names that the cache settles as the old servers do. Refuses if it does not.
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
                    "the cache does not answer on {ours} (its port is closed): `systemctl status dogwatch-dns`"
                )));
            }
            if seen == Answer::Silence {
                return Err(SwitchError::Refused(format!(
                    "the cache on {ours} has no answer for {name} within 3 s: \
                     `dogwatch dns status` tells whether its upstreams are dead, `systemctl status dogwatch-dns` whether it is"
                )));
            }
            let old = plan.old_servers.iter().find(|server| self.system.ask(**server, name).settles());
            if let Some(old) = old {
                return Err(SwitchError::Refused(format!(
                    "for {name} the cache says {}, but {old} answers: `dogwatch dns status` tells why",
                    seen.text()
                )));
            }
        }
        if good.is_empty() {
            return Err(SwitchError::Refused(format!(
                "for {} the cache says {}, and no old server answers either: \
                 there is no proof that names would resolve; name one that does with --name",
                asked.join(", "),
                seen.text()
            )));
        }
        Ok(good)
    }

    /// After its reload the cache forwards to the old servers and to no circle, and answers.
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
                Ok(upstreams) if upstreams.is_empty() => "the cache has no upstream".into(),
                Ok(upstreams) if upstreams.contains(&ours) => {
                    format!("the cache's upstream is its own address {ours}: queries would go in circles")
                }
                Ok(upstreams)
                    if plan.manager == Manager::SystemdResolved
                        && upstreams.iter().any(|server| plan::is_resolved_stub(*server)) =>
                {
                    "the cache's upstream is systemd-resolved, which would ask the cache: a circle; \
                     name other upstreams in dns.toml"
                        .into()
                }
                Ok(upstreams)
                    if pins && !upstreams.iter().any(|server| plan.old_servers.contains(server)) =>
                {
                    let all: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
                    format!(
                        "the cache has not taken the old servers as its upstreams, it asks {}",
                        all.join(", ")
                    )
                }
                Ok(_) => match names.iter().find(|(name, _)| !self.system.ask(ours, name).settles()) {
                    None => return Ok(()),
                    Some((name, _)) => format!("with its new upstreams the cache does not answer for {name}"),
                },
            };
            self.system.pause(PAUSE);
        }
        Err(SwitchError::Failed(why))
    }

    /// Looks names up as programs do: no worse than before, and through the cache.
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

    /// It is enabled: what has moved since (a lease, an edit) is put right.
    fn renew(&mut self, mut journal: Journal, plan: &Plan, names: &[String]) -> Result<Enabled, SwitchError> {
        let changed = self.refresh_locked(&mut journal, plan)?;
        let mut verified = Vec::new();
        for name in names {
            if self.system.look_up(name) == Lookup::Failed {
                return Err(SwitchError::Failed(format!("it is enabled, but {name} does not resolve")));
            }
            verified.push(name.clone());
        }
        Ok(self.enabled(plan.clone(), changed, verified))
    }

    /// For hooks of DHCP clients: follows what the host's manager says now, proves nothing, reverts nothing. In an outage a
    /// lease may change too, and going back to the dead servers would be worse. `None` if it is not enabled.
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
                "enabled under {}, but now {} manages resolv.conf: run `dogwatch dns enable`",
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
                        // Another's new words, less ours, are what there would be without us.
                        if current.bytes().is_some_and(|bytes| bytes != was) {
                            stage.puts[index].before = self.before(put, |bytes| without_us(bytes, ours))?;
                        }
                        stage.puts[index].placed = placed;
                    }
                }
                self.make(journal, number, put)?;
                changed.push(put.path.clone());
                // glibc sees a new resolv.conf by itself, and NetworkManager's hook must not call NetworkManager.
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

    /// Everything back. `None` if it was not enabled.
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

    /// The last stage first; in each the files first, then the command that makes their reader see it.
    fn undo(&mut self, mut journal: Journal) -> Result<Disabled, SwitchError> {
        journal.phase = Phase::Reverting;
        self.store.save(&journal)?;
        // The config may name another by now, or nothing that can be read.
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
            // A file that was ours altogether: of no use without us, but the words are theirs.
            Node::File(file) if *before == Before::Absent && text::is_marked(&file.bytes) => {
                let aside = PathBuf::from(format!("{}.edited", path.display()));
                journal::put(self.root, &aside, &file.bytes, file.mode)?;
                journal::restore(self.root, path, before, &self.store)?;
                done.kept.push(aside);
            }
            // Somebody has written here since: theirs stays, ours goes.
            Node::File(file) => {
                let saved = match before {
                    Before::File { saved, .. } => Some(self.store.kept(saved)?),
                    Before::Absent | Before::Link { .. } => None,
                };
                let theirs = without_us(&file.bytes, self.cache.address);
                if saved.as_ref() == Some(&file.bytes) {
                    // The change was never made, or is undone already.
                } else if theirs != file.bytes {
                    journal::put(self.root, path, &theirs, file.mode)?;
                    done.kept.push(path.clone());
                } else {
                    done.kept.push(path.clone());
                }
            }
            // Taken away or made a link by somebody, or never made.
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
