//! `dogwatch`: watches a host the Nagios way and tells alertd what changed, once.
//!
//! | file | job |
//! | --- | --- |
//! | [`engine`] | the one loop that owns everything below |
//! | [`schedule`], [`status`], [`flapping`], [`service`], [`passive`], [`report::outbox`] | pure: what runs, what is believed, what is said |
//! | [`runner`], [`plugin`] | run checks, each with a deadline |
//! | [`store`], [`report::spool`], [`state`] | what survives a kill |
//! | [`report::client`], [`api`], [`metrics`] | alertd, the people on this host, Prometheus |
//! | [`config`], [`cli`] | what was asked |
//!
//! Promised: a hard change of any watched service reaches alertd, once, in order, whatever is killed or full in between;
//! nothing that hangs (a check, a disk, an alertd) stops the loop. Not done here: deciding whom to wake.

pub mod api;
mod changes;
pub mod cli;
pub mod clock;
pub mod config;
mod dns_sensor;
mod engine;
pub mod flapping;
mod metrics;
pub mod moment;
pub mod passive;
pub mod plugin;
pub mod report;
mod runner;
pub mod schedule;
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
    config::Problems,
    metrics_page::Metrics,
    replace::{NewFile, replace_file},
    signals::Signals,
    systemd, unix_http,
};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub use cli::command;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] Problems),
    #[error("{what}: {source}")]
    Start { what: String, source: io::Error },
}

/// Runs the agent until it is told to stop.
pub async fn run(config_path: &Path) -> Result<(), RunError> {
    let signals = Signals::listen().map_err(start("cannot listen to signals"))?;
    let host = Host::live();
    let config = config::load(config_path, &host)?;
    let agent = &config.agent;
    let agent_id = agent_id(agent).map_err(start(format!(
        "cannot tell this host from others by {}",
        agent.machine_id_file.display()
    )))?;

    let (done_to, done) = mpsc::channel(1);
    let (store, found) = store::open(&agent.state_dir, fastrand::u64(1..), done_to)
        .map_err(start(format!("cannot use state_dir {}", agent.state_dir.display())))?;
    if found.state_damaged {
        error!("state.json was damaged and is kept as state.damaged; all services start at OK");
    }
    let damage = found.spool.damage;
    if damage.corrupt {
        error!(
            bytes = damage.bytes,
            "the spool was damaged and is kept as spool.damaged; what was intact is used"
        );
    } else if damage.bytes > 0 {
        warn!(bytes = damage.bytes, "cut off a torn record at the end of the spool");
    }

    let page = Metrics::install_forgetting(metrics::GAUGES_KEPT);
    metrics::declare();
    if let Some(address) = agent.metrics {
        let bound = page.serve(address, page.router()).await;
        let bound = bound.map_err(start(format!("cannot serve metrics on {address}")))?;
        info!("metrics on http://{bound}/metrics");
    }
    let listener = unix_http::bind(&agent.socket, SOCKET_MODE)
        .map_err(start(format!("cannot serve {}", agent.socket.display())))?;
    let (asks_to, asks) = mpsc::channel(ASKS_MAX);
    tokio::spawn(unix_http::serve(listener, api::router(asks_to)));

    let (reports_to, reports) = mpsc::channel(REPORTS_MAX);
    let (answers_to, answers) = mpsc::channel(1);
    let clock = clock::Clock::new().map_err(start("cannot make a timer of the boot clock"))?;
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
        changes: changes::Changes::watch(),
        store,
        found,
        runner: runner::Runner::new(reports_to),
        answers: answers_to,
    };
    let engine = engine::Engine::new(parts);
    info!("started; {summary}");
    systemd::ready(&format!("{checks} checks"));
    engine.run(engine::Inputs { reports, done, answers, asks, signals }).await;
    Ok(())
}

/// From the machine id; a container that has none gets one of its own, kept in the state directory.
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
    warn!("{error}; this agent makes an id of its own in {}", own.display());
    std::fs::create_dir_all(&agent.state_dir)?;
    let id = format!("{:032x}\n", fastrand::u128(..));
    replace_file(&own, &NewFile::with_mode(0o640), |file| file.write_all(id.as_bytes()))?;
    config::agent_id(&own)
}

fn start(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    move |source| RunError::Start { what, source }
}

/// Everybody on the host may connect; who may do what is decided by the caller's identity.
const SOCKET_MODE: u32 = 0o666;
/// Questions that wait for the loop; more are answered "busy".
const ASKS_MAX: usize = 64;
/// Results that wait for the loop; checks wait beyond that.
const REPORTS_MAX: usize = 64;
