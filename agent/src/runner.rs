//! Runs checks, each with a deadline, and reports their results.
//!
//! Every started check is reported exactly once, as [`Report::Finished`] or [`Report::Stuck`],
//! shortly after its deadline at the latest. A panic becomes an UNKNOWN result. No check delays the
//! loop.
//!
//! A check that blocks (reading `/proc`, `statvfs`) runs on its own thread, because the kernel may
//! never return from the call. Such a thread cannot be killed: it is left alone, and the check is
//! not started again until the thread ends ([`Report::Released`]). So a check has at most one
//! thread.
//!
//! When a check runs, and how many run at once, is up to [`crate::schedule`].

use std::{
    any::Any,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use dogwatch_checks::{Blocking, Check, CheckResult, Judgement};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{clock, config::Work, handler::Handler, plugin};

/// The outcome of a started check.
#[derive(Debug)]
pub(crate) enum Report {
    /// It ended. `cpu` is the CPU time it took, as far as known.
    Finished { started: Started, outcome: Judgement, cpu: Duration },
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
}

/// Starts checks; their reports arrive on the channel.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    reports: mpsc::Sender<Report>,
}

impl Runner {
    pub(crate) fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { reports }
    }

    /// Starts a check. The caller must not start a check that is still running.
    pub(crate) fn start(&self, started: Started, work: &Work, deadline: Duration) {
        let reports = self.reports.clone();
        match work {
            Work::Native(Check::Blocking(check)) => {
                tokio::spawn(run_blocking(started, Arc::clone(check), deadline, reports));
            }
            Work::Native(Check::Async(check)) => {
                let check = Arc::clone(check);
                tokio::spawn(run_async(started, async move { check.run(deadline).await }, deadline, reports));
            }
            Work::Plugin(plugin) => {
                let plugin = plugin.clone();
                let run = async move { plugin.run(deadline).await.into() };
                tokio::spawn(run_async(started, run, deadline, reports));
            }
            // Never scheduled.
            Work::Passive(_) | Work::Jobs(_) | Work::Own => {}
        }
    }
}

impl Runner {
    /// Starts the handler of a service.
    pub(crate) fn handle(&self, service: Arc<str>, handler: &Handler) {
        let (command, timeout) = (handler.command.clone(), handler.timeout);
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
    reports: mpsc::Sender<Report>,
) {
    let before = children_cpu();
    // In a separate task, so that a panic ends only that task.
    let mut task = tokio::spawn(run);
    let outcome = match timeout(deadline + OWN_DEADLINE_GRACE, &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => panicked(&*panic).into(),
            Err(error) => CheckResult::unknown(format!("check was aborted: {error}")).into(),
        },
        Err(_) => {
            task.abort();
            CheckResult::unknown(format!("check timed out after {deadline:?}")).into()
        }
    };
    let cpu = children_cpu().saturating_sub(before);
    let _ = reports.send(Report::Finished { started, outcome, cpu }).await;
}

async fn run_blocking(
    started: Started,
    check: Arc<dyn Blocking>,
    deadline: Duration,
    reports: mpsc::Sender<Report>,
) {
    let (answer, mut answered) = oneshot::channel();
    let work = move || {
        let result = catch_unwind(AssertUnwindSafe(|| check.run()));
        let _ = answer.send(result.unwrap_or_else(|panic| panicked(&*panic).into()));
    };
    let thread = thread::Builder::new().name("check".into()).stack_size(STACK_BYTES).spawn(work);
    if let Err(error) = thread {
        let outcome = CheckResult::unknown(format!("cannot start a thread for the check: {error}")).into();
        let _ = reports.send(Report::Finished { started, outcome, cpu: Duration::ZERO }).await;
        return;
    }
    if let Ok(answer) = timeout(deadline, &mut answered).await {
        let outcome = answer.unwrap_or_else(|_| CheckResult::unknown("check ended without a result").into());
        let _ = reports.send(Report::Finished { started, outcome, cpu: Duration::ZERO }).await;
        return;
    }
    let result = CheckResult::unknown(format!(
        "check has been hanging in the kernel for {deadline:?}; it will not be started again until it ends"
    ));
    let _ = reports.send(Report::Stuck { started: started.clone(), result }).await;
    let _ = answered.await;
    let _ = reports.send(Report::Released { name: started.name }).await;
}

fn panicked(panic: &(dyn Any + Send)) -> CheckResult {
    let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    CheckResult::unknown(format!("check panicked (a bug in dogwatch; please report it): {said}"))
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

/// Blocking checks need little stack; network checks do not run on these threads.
const STACK_BYTES: usize = 512 * 1_024;

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use dogwatch_checks::State;

    use super::*;
    use crate::plugin::Plugin;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_panic_in_a_check_is_an_unknown_result() {
        let (runner, mut reports) = runner();
        runner.start(started("bad"), &Work::Native(Check::Blocking(Arc::new(Panics))), DEADLINE);
        let Some(Report::Finished { outcome, .. }) = reports.recv().await else { panic!("a result") };
        let result = outcome.once();
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains("on purpose"), "{}", result.summary);
    }

    #[tokio::test]
    async fn a_hung_check_is_reported_stuck_once_and_released_when_it_ends() {
        let (runner, mut reports) = runner();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let work = Work::Native(Check::Blocking(Arc::new(Hangs(Arc::clone(&gate)))));
        runner.start(started("hung"), &work, Duration::from_millis(20));
        let Some(Report::Stuck { result, .. }) = reports.recv().await else { panic!("stuck") };
        assert_eq!(result.state, State::Unknown);
        // Other checks go on running.
        runner.start(started("bad"), &Work::Native(Check::Blocking(Arc::new(Panics))), DEADLINE);
        assert!(matches!(reports.recv().await, Some(Report::Finished { .. })));
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert!(matches!(reports.recv().await, Some(Report::Released { .. })));
    }

    #[tokio::test]
    async fn a_plugin_runs_and_its_cost_is_known() {
        let (runner, mut reports) = runner();
        let burn = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo burnt";
        let argv = ["/bin/sh", "-c", burn].map(str::to_owned).to_vec();
        let plugin = Plugin::new(argv, [].into(), State::Unknown).unwrap();
        runner.start(started("burn"), &Work::Plugin(plugin), DEADLINE);
        let Some(Report::Finished { outcome, cpu, .. }) = reports.recv().await else { panic!("a result") };
        let result = outcome.once();
        assert_eq!((result.state, result.summary.as_str()), (State::Ok, "burnt"));
        assert!(cpu > Duration::ZERO);
    }

    struct Panics;
    impl Blocking for Panics {
        fn run(&self) -> Judgement {
            panic!("on purpose");
        }
    }

    struct Hangs(Arc<(Mutex<bool>, Condvar)>);
    impl Blocking for Hangs {
        fn run(&self) -> Judgement {
            let mut open = self.0.0.lock().unwrap();
            while !*open {
                open = self.0.1.wait(open).unwrap();
            }
            CheckResult::new(State::Ok, "late").into()
        }
    }

    fn started(name: &str) -> Started {
        Started { name: name.into(), definition: 0 }
    }

    fn runner() -> (Runner, mpsc::Receiver<Report>) {
        let (sender, reports) = mpsc::channel(8);
        (Runner::new(sender), reports)
    }
}
