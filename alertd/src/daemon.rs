//! `alertd` as a process: config → store → core → loop, socket, metrics page, signals.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use dogwatch_daemon::{
    metrics_page::Metrics,
    signals::{Asked, Signals},
    systemd, unix_http,
};
use tokio::sync::mpsc;

use crate::{
    api,
    clock::Clock,
    config::Config,
    core::Core,
    engine::{Deliver, Engine, INPUTS_MAX, Order},
    metrics,
    notify::{Accepted, DeliveryError, Notification, Receivers},
    store::{Store as _, sqlite::Sqlite, writer::Writer},
    web::{Served, Web},
};

/// Owner and group may talk to us; the unit sets the group.
const SOCKET_MODE: u32 = 0o660;

impl Deliver for Receivers {
    async fn deliver(
        &self,
        receiver: &str,
        notification: &Notification,
        deadline: std::time::Duration,
    ) -> Result<Accepted, DeliveryError> {
        self.send(receiver, notification, deadline).await
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config_path: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let config = Config::read(&config_path).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let page = Metrics::install();
    metrics::describe(env!("CARGO_PKG_VERSION"));
    if let Some(address) = config.metrics {
        let served = page.serve(address, page.router()).await;
        served.with_context(|| format!("cannot serve metrics on {address}; set [alertd] metrics"))?;
    }

    let mut clock = Clock::start();
    let (now, _) = clock.now();
    let mut store = Sqlite::open(&config.state_dir, &random_name())?;
    let loaded = store.load(now)?;
    let notice = store.notice.take();
    if let Some(notice) = &notice {
        tracing::error!("{notice}");
    }
    let (incidents, outbox) = (loaded.incidents.len(), loaded.outbox.len());
    let archive = Arc::new(store.archive());
    let core = Core::new(config.rules, random_name(), loaded, now);
    let writer = Writer::start(store);
    let mut receivers = config.receivers;
    let engine = Engine::new(core, writer, receivers.clone(), clock, config.keep_history, notice);

    let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
    receivers.start(&inputs, None);
    let (orders, obeyed) = mpsc::channel(4);
    let mut links = match config.web {
        Some(web) => Some(Served::open(web, inputs.clone()).await.map_err(anyhow::Error::msg)?),
        None => None,
    };
    let listener = unix_http::bind(&config.socket, SOCKET_MODE)
        .with_context(|| format!("cannot listen on {}; set [alertd] socket", config.socket.display()))?;
    let serving = tokio::spawn(unix_http::serve(listener, api::router(inputs.clone(), archive)));
    let mut engine = tokio::spawn(engine.run(inbox, obeyed));
    tracing::info!(
        socket = %config.socket.display(), incidents, outbox,
        "alertd {} is ready", env!("CARGO_PKG_VERSION")
    );
    systemd::ready("routing alerts");
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => {
                    let (order, web) = reload(&config_path);
                    if let Order::Reload(_, new) = &order {
                        new.start(&inputs, Some(&receivers));
                        receivers = new.clone();
                        let (served, outcome) = Served::replace(links, web, &inputs).await;
                        links = served;
                        if let Err(words) = outcome {
                            tracing::error!("{words}");
                        }
                    }
                    orders.send(order).await.context("the loop has ended")?;
                }
            },
            ended = &mut engine => {
                ended.context("the loop has panicked")?;
                anyhow::bail!("the loop has ended by itself");
            }
        }
    }
    orders.send(Order::Stop).await.context("the loop has ended")?;
    engine.await.context("the loop has panicked")?;
    serving.abort();
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// What a reload changes: routes, policies, receivers, the page behind links. Socket, state and metrics stay until a restart.
fn reload(path: &std::path::Path) -> (Order<Receivers>, Option<Web>) {
    match Config::read(path) {
        Ok(config) => (Order::Reload(Box::new(config.rules), config.receivers), config.web),
        Err(problems) => (Order::ReloadFailed(problems.to_string()), None),
    }
}

/// 16 hex digits that no other store or life has.
fn random_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}
