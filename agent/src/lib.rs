//! The agent: runs the checks of a host, keeps the status of each service as Nagios does, and
//! reports every change to alertd.
//!
//! | module | job |
//! | --- | --- |
//! | [`engine`] | the main loop, which owns everything below |
//! | [`schedule`], [`status`], [`flapping`], [`service`], [`passive`], [`report::outbox`] | pure: what runs next, the status of each service, what to send |
//! | [`runner`], [`pool`], [`plugin`] | run checks, each with a deadline |
//! | [`store`], [`report::spool`], [`state`] | the state on disk |
//! | [`report::client`], [`api`], [`metrics`] | alertd, the socket of the agent, Prometheus |
//! | [`config`], [`cli`] | config file and command line |
//!
//! Every hard change of a service reaches alertd exactly once and in order, whatever is killed or
//! full in between. Nothing that hangs (a check, a disk, an alertd) stops the loop. The agent does
//! not decide who is notified: that is up to alertd.

pub mod api;
mod changes;
pub mod cli;
pub mod clock;
pub mod config;
mod dns_sensor;
mod engine;
pub mod flapping;
pub mod handler;
pub mod history;
pub mod lasting;
mod measures;
mod metrics;
pub mod moment;
pub mod passive;
pub mod pause;
pub mod plot;
pub mod plugin;
mod pool;
pub mod recent;
pub mod refused;
pub mod replay;
pub mod report;
mod runner;
pub mod schedule;
pub mod self_check;
pub mod service;
pub mod state;
pub mod status;
pub mod store;

use std::{
    io::{self, Write as _},
    path::Path,
};

use dogwatch_checks::Host;
use dogwatch_daemon::{
    bounds,
    config::Problems,
    metrics_page::Metrics,
    replace::{NewFile, replace_file},
    signals::Signals,
    systemd, unix_http,
};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub use cli::command;
use history::writer::Writer;

/// Why the agent could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] Problems),
    #[error("{what}: {source}")]
    Start { what: String, source: io::Error },
    #[error("{0} has ended unexpectedly (a bug in dogwatch; please report it)")]
    Ended(&'static str),
}

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(config_path: &Path) -> Result<(), RunError> {
    dogwatch_dns::keep_small();
    let signals = Signals::listen().map_err(start("cannot listen for signals"))?;
    let host = Host::live();
    let config = config::load(config_path, &host)?;
    let agent = &config.agent;
    let agent_id = agent_id(agent)
        .map_err(start(format!("cannot get an id for this host from {}", agent.machine_id_file.display())))?;

    let (done_to, done) = mpsc::channel(1);
    let (store, found) = store::open(&agent.state_dir, fastrand::u64(1..), done_to)
        .map_err(start(format!("cannot use state_dir {}", agent.state_dir.display())))?;
    if let Some(problem) = &found.problem {
        error!(
            dir = %agent.state_dir.display(),
            "cannot use the state directory: {problem}; starting from memory: events are lost if the agent stops \
             before the directory can be written"
        );
    }
    if found.state_damaged {
        error!("state.json was damaged and is kept as state.damaged; all services start at OK");
    }
    if found.events_lost > 0 {
        error!(
            events = found.events_lost,
            "the spool lacks events that had been written; alertd asks for all states instead"
        );
    }
    let damage = found.spool.damage;
    if damage.corrupt {
        error!(
            bytes = damage.bytes,
            "the spool was damaged; its intact events are used and the file is kept as spool.damaged"
        );
    } else if damage.bytes > 0 {
        warn!(bytes = damage.bytes, "removed an incomplete record at the end of the spool");
    }

    let (asks_to, asks) = mpsc::channel(ASKS_MAX);
    let mut metrics_problem = None;
    let page = Metrics::install();
    metrics::declare();
    if let Some(address) = agent.metrics {
        match page.serve(address, metrics::router(page.clone(), asks_to.clone()), bounds::AGENT_METRICS) {
            Ok(bound) => info!("metrics on http://{bound}/metrics"),
            // Watching the host matters more than being scraped.
            Err(error) => {
                error!("cannot serve metrics on {address}: {error}; starting without them");
                metrics_problem = Some(format!("cannot serve metrics on {address}: {error}"));
                page.spawn_upkeep();
            }
        }
    } else {
        page.spawn_upkeep();
    }
    let listener = unix_http::bind(&agent.socket, SOCKET_MODE)
        .map_err(start(format!("cannot serve {}", agent.socket.display())))?;
    tokio::spawn(unix_http::serve(listener, api::router(asks_to), bounds::AGENT_SOCKET));

    let history = agent.history.then(|| Writer::start(&agent.state_dir, clock::wall().as_second()));
    let history =
        history.and_then(|started| started.inspect_err(|error| warn!("cannot keep a history: {error}")).ok());

    let (reports_to, reports) = mpsc::channel(REPORTS_MAX);
    let (answers_to, answers) = mpsc::channel(1);
    let clock = clock::Clock::new().map_err(start("cannot create a timer"))?;
    let checks = config.checks.len();
    let summary = config.summary();
    for warning in config.warnings() {
        warn!("{warning}");
    }
    let parts = engine::Parts {
        clock,
        config_path: config_path.to_owned(),
        host,
        config,
        agent_id,
        process: report::Process::new(fastrand::u64(..)),
        changes: changes::Changes::watch(),
        store,
        found,
        runner: runner::Runner::new(reports_to),
        answers: answers_to,
        metrics_problem,
        history,
    };
    let engine = engine::Engine::new(parts);
    info!("started; {summary}");
    systemd::ready(&format!("{checks} checks"));
    engine.run(engine::Inputs { reports, done, answers, asks, signals }).await.map_err(RunError::Ended)
}

/// From the machine id. A container without one gets a random id, which is kept in the state
/// directory.
fn agent_id(agent: &config::Agent) -> io::Result<String> {
    let error = match config::agent_id(&agent.machine_id_file) {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    let own = agent.state_dir.join("machine-id");
    if let Ok(id) = config::agent_id(&own) {
        return Ok(id);
    }
    let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData);
    if !missing {
        return Err(error);
    }
    let id = format!("{:032x}", fastrand::u128(..));
    let kept = std::fs::create_dir_all(&agent.state_dir).and_then(|()| {
        let new = NewFile::with_mode(0o640);
        Ok(replace_file(&own, &new, |file| writeln!(file, "{id}")).map(drop)?)
    });
    match kept.and_then(|()| config::agent_id(&own)) {
        Ok(id) => {
            warn!("{error}; using a random id instead, kept in {}", own.display());
            return Ok(id);
        }
        // Another id after the next start costs one more agent in alertd's list; not to start
        // costs the watch.
        Err(failed) => warn!("{error}; using a random id that cannot be kept in {}: {failed}", own.display()),
    }
    Ok(id)
}

fn start(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    move |source| RunError::Start { what, source }
}

/// Every user may connect. What a caller may do depends on its user.
const SOCKET_MODE: u32 = 0o666;
/// Requests that wait for the loop. More are answered with 503.
const ASKS_MAX: usize = 64;
/// Results that wait for the loop. If there are more, the checks wait.
const REPORTS_MAX: usize = 64;
