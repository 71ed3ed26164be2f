//! Runs checks, each with a deadline, and reports their results.
//!
//! Every started check is reported exactly once, as [`Report::Finished`] or [`Report::Stuck`],
//! shortly after its deadline at the latest. A panic becomes an UNKNOWN result. No check delays the
//! loop.
//!
//! A check that blocks (reading `/proc`, `statvfs`) runs on a thread of the [`Pool`], because the
//! kernel may never return from the call. Such a thread cannot be killed: it is left alone, and the
//! check is not started again until the thread ends ([`Report::Released`]). So a check has at most
//! one thread. The loop asks [`Runner::poll`] for these reports; all others arrive on the channel.
//!
//! When a check runs, and how many run at once, is up to [`crate::schedule`].

use std::{
    collections::BTreeMap,
    fs,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use dogwatch_checks::{Check, CheckResult, Judgement, State};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    clock,
    config::Work,
    handler::Handler,
    moment::Moment,
    plugin,
    pool::{Done, Pool, panicked},
};

/// The outcome of a started check.
#[derive(Debug)]
pub(crate) enum Report {
    /// It ended.
    Finished { started: Started, outcome: Judgement, cost: Cost },
    /// It is past its deadline and cannot be stopped.
    Stuck { started: Started, result: CheckResult },
    /// A stuck check has ended after all.
    Released { name: Arc<str> },
    /// A process of `dogwatch job` has ended.
    JobGone { service: Arc<str>, pid: i32 },
    /// A handler of a service ended, with a result as of a plugin, after this time.
    Handled { service: Arc<str>, result: CheckResult, took: Duration },
}

/// Which run a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) name: Arc<str>,
    /// Of the check when it was started; a reload may have changed it since.
    pub(crate) definition: u64,
    /// How long it was due before it was started.
    pub(crate) late: Duration,
}

/// What a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// How long it waited for a thread, after it was started.
    pub(crate) waited: Duration,
    pub(crate) took: Duration,
    /// CPU time, as far as known.
    pub(crate) cpu: Duration,
}

/// Starts checks.
#[derive(Debug)]
pub(crate) struct Runner {
    reports: mpsc::Sender<Report>,
    pool: Pool,
    /// The checks on threads.
    runs: BTreeMap<u64, Run>,
}

#[derive(Debug)]
struct Run {
    started: Started,
    deadline: Duration,
    stuck: bool,
}

impl Runner {
    pub(crate) fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { reports, pool: Pool::default(), runs: BTreeMap::new() }
    }

    /// Starts a check. The caller must not start a check that is still running. After the last of
    /// several, [`Self::kick`] begins those that block.
    pub(crate) fn start(&mut self, started: Started, work: &Work, deadline: Duration, now: Moment) {
        match work {
            Work::Native(Check::Blocking(check)) => {
                let id = self.pool.push(Arc::clone(check), now);
                self.runs.insert(id, Run { started, deadline, stuck: false });
            }
            Work::Native(Check::Async(check)) => {
                let check = Arc::clone(check);
                let run = async move { check.run(deadline).await };
                tokio::spawn(run_async(started, run, deadline, false, self.reports.clone()));
            }
            Work::Plugin(plugin) => {
                let plugin = plugin.clone();
                let run = async move { plugin.run(deadline).await.into() };
                tokio::spawn(run_async(started, run, deadline, true, self.reports.clone()));
            }
            // Never scheduled.
            Work::Passive(_) | Work::Jobs(_) | Work::Own => {}
        }
    }

    /// Begins what was started, and lets another thread help if it has waited.
    pub(crate) fn kick(&self, now: Moment) {
        self.pool.kick(now);
    }

    /// The reports of checks that block.
    pub(crate) fn poll(&mut self, now: Moment) -> Vec<Report> {
        if self.runs.is_empty() {
            return Vec::new();
        }
        let done = self.pool.take_done().into_iter().filter_map(|done| self.ended(done));
        let mut reports: Vec<_> = done.collect();
        for (id, since) in self.pool.running() {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            if now < since + run.deadline || !self.pool.give_up(id) {
                continue;
            }
            run.stuck = true;
            let result = CheckResult::unknown(format!(
                "check has been hanging in the kernel for {:?}; it will not be started again until it ends",
                run.deadline
            ));
            reports.push(Report::Stuck { started: run.started.clone(), result });
        }
        reports
    }

    /// The agent itself did not run for so long: the checks on threads get that time back.
    pub(crate) fn forgive(&self, pause: Duration) {
        self.pool.forgive(pause);
    }

    fn ended(&mut self, done: Done) -> Option<Report> {
        let Run { started, stuck, .. } = self.runs.remove(&done.id)?;
        if stuck {
            return Some(Report::Released { name: started.name });
        }
        let cost = Cost { waited: done.waited, took: done.took, cpu: Duration::ZERO };
        Some(Report::Finished { started, outcome: done.outcome, cost })
    }

    /// When to call [`Self::kick`] and [`Self::poll`] next, at the latest.
    pub(crate) fn next_wakeup(&self) -> Option<Moment> {
        if self.runs.is_empty() {
            return None;
        }
        let running = self.pool.running().into_iter();
        let deadlines = running.filter_map(|(id, since)| Some(since + self.runs.get(&id)?.deadline));
        deadlines.chain(self.pool.next_wakeup()).min()
    }

    /// Returns when [`Self::poll`] has something new. Cancel-safe.
    pub(crate) async fn finished(&self) {
        self.pool.finished().await;
    }
}

impl Runner {
    /// Starts the handler of a service.
    pub(crate) fn handle(
        &self,
        service: Arc<str>,
        check: &str,
        state: State,
        handler: &Handler<plugin::Plugin>,
    ) {
        let command = handler.command.clone().about([
            ("DOGWATCH_SERVICE", service.to_string()),
            ("DOGWATCH_CHECK", check.to_owned()),
            ("DOGWATCH_STATE", state.name().to_owned()),
        ]);
        let timeout = handler.timeout;
        let reports = self.reports.clone();
        tokio::spawn(async move {
            let began = clock::since_boot();
            let result = tokio::spawn(async move { command.run(timeout).await }).await;
            let result = result.unwrap_or_else(|error| CheckResult::unknown(format!("aborted: {error}")));
            let took = clock::since_boot().saturating_sub(began);
            let _ = reports.send(Report::Handled { service, result, took }).await;
        });
    }
}

impl Runner {
    /// Reports when a process that is not a child ends. Returns whether that is possible.
    pub(crate) fn watch_job(&self, service: &Arc<str>, pid: i32) -> bool {
        let Some(id) = Pid::from_raw(pid) else { return false };
        let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return false };
        let Ok(ended) = plugin::watch(process) else { return false };
        let (reports, service) = (self.reports.clone(), Arc::clone(service));
        tokio::spawn(async move {
            if ended.readable().await.is_ok() {
                let _ = reports.send(Report::JobGone { service, pid }).await;
            }
        });
        true
    }
}

async fn run_async(
    started: Started,
    run: impl Future<Output = Judgement> + Send + 'static,
    deadline: Duration,
    is_plugin: bool,
    reports: mpsc::Sender<Report>,
) {
    let began = clock::since_boot();
    let before = if is_plugin { children_cpu() } else { Duration::ZERO };
    let mut run = pin!(run);
    let polled = poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(context))) {
            Ok(poll) => poll,
            // It is not polled again.
            Err(panic) => Poll::Ready(panicked(&*panic).into()),
        }
    });
    let outcome = timeout(deadline + OWN_DEADLINE_GRACE, polled).await;
    let outcome = outcome
        .unwrap_or_else(|_| CheckResult::unknown(format!("check timed out after {deadline:?}")).into());
    let cpu = if is_plugin { children_cpu().saturating_sub(before) } else { Duration::ZERO };
    let cost = Cost { waited: Duration::ZERO, took: clock::since_boot().saturating_sub(began), cpu };
    let _ = reports.send(Report::Finished { started, outcome, cost }).await;
}

/// CPU time of all plugins that have ended: `cutime + cstime` in `/proc/self/stat` (proc(5)), in
/// ticks of 10 ms. If several plugins run at once, each is charged for all of them; that errs on
/// the side of fewer retries.
fn children_cpu() -> Duration {
    let ticks = || {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The command may contain spaces. The first field after it is field 3.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(ticks)
    };
    Duration::from_millis(10 * ticks().unwrap_or(0))
}

/// Plugins and network checks keep their deadline themselves and need a moment to clean up. After
/// this time they are aborted.
const OWN_DEADLINE_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{Condvar, Mutex},
    };

    use dogwatch_checks::{Async, Blocking, State};

    use super::*;
    use crate::plugin::Plugin;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_panic_in_a_check_is_an_unknown_result() {
        let (mut runner, _reports) = runner();
        runner.start(started("bad"), &Work::Native(Check::Blocking(Arc::new(Panics))), DEADLINE, now());
        runner.kick(now());
        runner.finished().await;
        let reports = runner.poll(now());
        let [Report::Finished { outcome, .. }] = <[_; 1]>::try_from(reports).unwrap() else {
            panic!("a result")
        };
        let result = outcome.once();
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains("on purpose"), "{}", result.summary);
        assert_eq!(runner.next_wakeup(), None);
    }

    #[tokio::test]
    async fn a_panic_in_a_network_check_is_an_unknown_result() {
        let (mut runner, mut reports) = runner();
        runner.start(started("bad"), &Work::Native(Check::Async(Arc::new(Panics))), DEADLINE, now());
        let Some(Report::Finished { outcome, .. }) = reports.recv().await else { panic!("a result") };
        let result = outcome.once();
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains("on purpose"), "{}", result.summary);
    }

    #[tokio::test]
    async fn a_hung_check_is_reported_stuck_once_and_released_when_it_ends() {
        let (mut runner, _reports) = runner();
        let gate = Arc::new(Gate::default());
        let work = Work::Native(Check::Blocking(Arc::new(Hangs(Arc::clone(&gate)))));
        runner.start(started("hung"), &work, DEADLINE, now());
        runner.kick(now());
        gate.wait_until_entered();
        assert!(runner.poll(now()).is_empty());
        let due = runner.next_wakeup().unwrap();
        assert!(due <= now() + DEADLINE);
        let stuck = runner.poll(due);
        let [Report::Stuck { result, .. }] = &stuck[..] else { panic!("{stuck:?}") };
        assert_eq!(result.state, State::Unknown);
        assert!(runner.poll(due + DEADLINE).is_empty(), "once");
        assert_eq!(runner.next_wakeup(), None);
        // Other checks go on running.
        runner.start(started("bad"), &Work::Native(Check::Blocking(Arc::new(Panics))), DEADLINE, now());
        runner.kick(now());
        runner.finished().await;
        assert!(matches!(runner.poll(now())[..], [Report::Finished { .. }]));
        gate.open();
        runner.finished().await;
        assert!(matches!(runner.poll(now())[..], [Report::Released { .. }]));
    }

    #[tokio::test]
    async fn a_plugin_runs_and_its_cost_is_known() {
        let (mut runner, mut reports) = runner();
        let burn = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo burnt";
        let argv = ["/bin/sh", "-c", burn].map(str::to_owned).to_vec();
        let plugin = Plugin::new(argv, [].into(), State::Unknown).unwrap();
        runner.start(started("burn"), &Work::Plugin(plugin), DEADLINE, now());
        let Some(Report::Finished { outcome, cost, .. }) = reports.recv().await else { panic!("a result") };
        let result = outcome.once();
        assert_eq!((result.state, result.summary.as_str()), (State::Ok, "burnt"));
        assert!(cost.cpu > Duration::ZERO && cost.took > Duration::ZERO);
    }

    struct Panics;
    impl Blocking for Panics {
        fn run(&self) -> Judgement {
            panic!("on purpose");
        }
    }

    impl Async for Panics {
        fn run(self: Arc<Self>, _: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
            Box::pin(async { panic!("on purpose") })
        }
    }

    #[derive(Default)]
    struct Gate {
        /// Whether a thread is inside, and whether it may leave.
        inner: Mutex<(bool, bool)>,
        changed: Condvar,
    }

    impl Gate {
        fn open(&self) {
            self.inner.lock().unwrap().1 = true;
            self.changed.notify_all();
        }

        fn wait_until_entered(&self) {
            let inner = self.inner.lock().unwrap();
            drop(self.changed.wait_while(inner, |(inside, _)| !*inside).unwrap());
        }
    }

    struct Hangs(Arc<Gate>);
    impl Blocking for Hangs {
        fn run(&self) -> Judgement {
            let mut inner = self.0.inner.lock().unwrap();
            inner.0 = true;
            self.0.changed.notify_all();
            drop(self.0.changed.wait_while(inner, |(_, open)| !*open).unwrap());
            CheckResult::new(State::Ok, "late").into()
        }
    }

    fn now() -> Moment {
        Moment(clock::since_boot())
    }

    fn started(name: &str) -> Started {
        Started { name: name.into(), definition: 0, late: Duration::ZERO }
    }

    fn runner() -> (Runner, mpsc::Receiver<Report>) {
        let (sender, reports) = mpsc::channel(8);
        (Runner::new(sender), reports)
    }
}
