//! `alertd` as a process: reads the config, opens the store, starts the engine, servers and
//! metrics, and handles signals.

use std::{hash::RandomState, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use dogwatch_alertd_core::{
    Change, Core,
    rules::notification::{Accepted, DeliveryError, Notification},
};
use dogwatch_daemon::{
    bounds,
    identity::Identity,
    metrics_page::Metrics,
    signals::{Asked, Signals},
    systemd, tcp_http, unix_http,
};
use tokio::sync::{mpsc, watch};

use crate::{
    api::{self, Gate, UserRights},
    clock::Clock,
    config::{Config, Listen, Web},
    engine::{Deliver, Ended, Engine, INPUTS_MAX, Order, keyring::Keyring},
    metrics,
    notify::{DeadMan, Receivers},
    selfwatch,
    store::{Store as _, late::Late, writer::Writer},
    web::Served,
};

/// Owner and group may use the API; the systemd unit sets the group.
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

/// Runs until SIGTERM or SIGINT. [`Ended::ClockSetBack`] asks the caller to run it again in a new
/// process.
pub async fn run(config_path: PathBuf) -> anyhow::Result<Ended> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let config = Config::read(&config_path).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    config.warnings.iter().for_each(|words| tracing::warn!("{words}"));
    let page = Metrics::install();
    metrics::describe(env!("CARGO_PKG_VERSION"));
    let metrics_problem = config.metrics.and_then(|address| serve_metrics(&page, address));

    let mut clock = Clock::start();
    let (now, _) = clock.now();
    let scratch = config.socket.parent().unwrap_or(&config.state_dir);
    let mut store = Late::open(&config.state_dir, scratch, &random_name())?;
    let loaded = store.load(now)?;
    let notice = store.notice.take();
    if let Some(notice) = &notice {
        tracing::error!("{notice}");
    }
    let (incidents, outbox) = (loaded.incidents.len(), loaded.outbox.len());
    let archive = Arc::new(store.archive());
    let keyring = Arc::new(Keyring::new(&loaded.tokens));
    let (trouble, counters) = (store.trouble.take(), loaded.counters);
    let core = Core::new(config.rules, random_name(), RandomState::new(), loaded, now);
    let writer = Writer::start(store);
    let writer = match trouble {
        Some(trouble) => writer.failing(trouble, Change::Counters(counters)),
        None => writer,
    };
    let mut receivers = config.receivers;
    let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
    let (dead_man, pinged) = watch::channel(config.dead_man);
    let outside = selfwatch::start(config.state_dir, inputs.clone(), pinged);
    let keys = Arc::clone(&keyring);
    let engine = Engine::new(core, writer, keys, receivers.clone(), clock, config.keep_history, notice);
    let engine = engine.watching(outside).noting(metrics_problem);

    receivers.start(&inputs, None);
    let (orders, obeyed) = mpsc::channel(4);
    let (to_loop, large) = (orders.clone(), Arc::clone(&archive));
    // Not a thread of the runtime, which would wait for it when alertd stops.
    let checking = std::thread::Builder::new().name("check".into()).spawn(move || {
        if let Some(words) = large.check_rest() {
            // Fails only if alertd has ended.
            let _ = to_loop.blocking_send(Order::Notice(words));
        }
    });
    if let Err(error) = checking {
        tracing::warn!(%error, "cannot check the history in the store");
    }
    let mut links = match config.web {
        Some(web) => Some(Served::open(web, inputs.clone()).map_err(anyhow::Error::msg)?),
        None => None,
    };
    let listener = unix_http::bind(&config.socket, SOCKET_MODE)
        .with_context(|| format!("cannot listen on {}; set [alertd] socket", config.socket.display()))?;
    let rights = Arc::new(UserRights::new(&config.rights));
    let gate = Gate::new(keyring, Arc::clone(&rights), inputs.clone());
    let router = api::router(inputs.clone(), archive, gate);
    let door = match config.listen {
        Some(listen) => Some(Door::open(listen, router.clone())?),
        None => None,
    };
    let mut serving = tokio::spawn(unix_http::serve(listener, router, bounds::ALERTD_SOCKET));
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
                    let (mut order, web, new_dead_man) = reload(&config_path, door.as_ref(), &rights);
                    if let Order::Reload(_, new, trouble) = &mut order {
                        new.start(&inputs, Some(&receivers));
                        receivers = new.clone();
                        dead_man.send_replace(new_dead_man);
                        let (served, outcome) = Served::replace(links, web, &inputs).await;
                        links = served;
                        if let Err(words) = outcome {
                            *trouble = Some(trouble.take().map_or_else(|| words.clone(), |also| format!("{words}; {also}")));
                        }
                    }
                    orders.send(order).await.context("the main loop has ended")?;
                }
            },
            ended = &mut engine => match ended.context("the main loop has panicked")? {
                Ended::ClockSetBack => return Ok(Ended::ClockSetBack),
                Ended::Stopped => anyhow::bail!("the main loop has ended unexpectedly"),
            },
            // Deaf to agents, but the loop would still feed the watchdog.
            ended = &mut serving => {
                ended.context("the server of the socket has panicked")?;
                anyhow::bail!("the server of the socket has ended unexpectedly");
            }
        }
    }
    orders.send(Order::Stop).await.context("the main loop has ended")?;
    engine.await.context("the main loop has panicked")?;
    serving.abort();
    let _ = std::fs::remove_file(&config.socket);
    Ok(Ended::Stopped)
}

/// Returns why there are no metrics. Alerts matter more than being scraped.
fn serve_metrics(page: &Metrics, address: std::net::SocketAddr) -> Option<String> {
    let error = page.serve(address, page.router(), bounds::ALERTD_METRICS).err()?;
    let words = format!("cannot serve metrics on {address}: {error}; running without them");
    tracing::error!("{words}; set [alertd] metrics");
    Some(words)
}

/// The API over TCP, as it was started.
struct Door {
    listen: Listen,
    identity: Option<Arc<Identity>>,
}

impl Door {
    fn open(listen: Listen, router: axum::Router) -> anyhow::Result<Self> {
        let address = listen.address;
        let identity = match &listen.tls {
            Some(pair) => Some(Arc::new(
                Identity::read(&pair.certificate, &pair.key)
                    .map_err(|words| anyhow::anyhow!("[alertd.listen]: {words}"))?,
            )),
            None => None,
        };
        let listener = tcp_http::bind(address);
        let listener =
            listener.with_context(|| format!("cannot listen on {address}; set [alertd.listen] address"))?;
        tracing::info!(%address, tls = identity.is_some(), "serving the API over TCP");
        let bounds = bounds::ALERTD_API;
        tokio::spawn(tcp_http::serve(listener, identity.clone(), router, bounds, metrics::turned));
        Ok(Self { listen, identity })
    }

    /// Reads the certificate again; the error says what needs a restart.
    fn reload(&self, new: Option<&Listen>) -> Result<(), String> {
        let same_kind = |new: &Listen| {
            new.address == self.listen.address && new.tls.is_some() == self.listen.tls.is_some()
        };
        let Some(new) = new.filter(|new| same_kind(new)) else { return Err(RESTART.into()) };
        match (&self.identity, &new.tls) {
            (Some(identity), Some(pair)) => identity
                .replace(&pair.certificate, &pair.key)
                .map_err(|words| format!("[alertd.listen]: {words}; the previous certificate stays in use")),
            _ => Ok(()),
        }
    }
}

const RESTART: &str = "[alertd.listen]: changing the address, or turning TLS on or off, needs a restart";

/// A reload changes routes, policies, receivers, rights, certificates, the web server for email
/// links, and the dead man's switch. Sockets, state directory and metrics need a restart.
fn reload(
    path: &std::path::Path,
    door: Option<&Door>,
    rights: &UserRights,
) -> (Order<Receivers>, Option<Web>, Option<DeadMan>) {
    match Config::read(path) {
        Ok(config) => {
            rights.replace(&config.rights);
            let opened = match door {
                Some(door) => door.reload(config.listen.as_ref()),
                None if config.listen.is_some() => Err(RESTART.into()),
                None => Ok(()),
            };
            let order = Order::Reload(Box::new(config.rules), config.receivers, opened.err());
            (order, config.web, config.dead_man)
        }
        Err(problems) => (Order::ReloadFailed(problems.to_string()), None, None),
    }
}

/// 16 random hex digits, to identify a store or a run of alertd.
fn random_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}
