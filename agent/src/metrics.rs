//! All metrics of the agent: name, unit, help, labels.
//!
//! The recorder has what happens: histograms and counters. What *is* (the state of each service,
//! its performance data, the spool) is asked of the loop when the page is read, so that a result
//! costs nothing here and a removed check leaves no series behind. If the loop does not answer, the
//! page has the metrics of the recorder alone.

use std::time::Duration;

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
    routing::get,
};
use dogwatch_daemon::metrics_page::{self, Metrics};
use metrics::{Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use tokio::sync::mpsc;

use crate::{
    api::{self, Ask},
    measures,
};

/// Declares the metrics of the recorder. Call once, before the first one is used.
pub(crate) fn declare() {
    for (name, unit, help) in COUNTERS {
        describe_counter!(*name, *unit, *help);
    }
    for (name, unit, help) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *help);
    }
    for taken in ["true", "false"] {
        counter!("dogwatch_batches_total", "taken" => taken).absolute(0);
    }
    counter!("dogwatch_spool_errors_total").absolute(0);
    counter!("dogwatch_jobs_refused_total").absolute(0);
}

/// The histograms of the loop, looked up once.
pub(crate) struct Lags {
    starts: Histogram,
    wakes: Histogram,
}

impl Lags {
    pub(crate) fn new() -> Self {
        Self {
            starts: histogram!("dogwatch_check_start_lag_seconds"),
            wakes: histogram!("dogwatch_loop_lag_seconds"),
        }
    }

    pub(crate) fn on_wake(&self, late: Duration) {
        self.wakes.record(late.as_secs_f64());
    }

    pub(crate) fn on_start(&self, late: Duration) {
        self.starts.record(late.as_secs_f64());
    }
}

pub(crate) fn on_overrun(check: &str) {
    counter!("dogwatch_check_overruns_total", "check" => check.to_owned()).increment(1);
}

pub(crate) fn on_batch(taken: bool) {
    counter!("dogwatch_batches_total", "taken" => if taken { "true" } else { "false" }).increment(1);
}

pub(crate) fn on_spool_error() {
    counter!("dogwatch_spool_errors_total").increment(1);
}

pub(crate) fn on_handler(service: &str, worked: bool) {
    let outcome = if worked { "ok" } else { "failed" };
    counter!("dogwatch_handler_runs_total", "check" => service.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn on_refused_job() {
    counter!("dogwatch_jobs_refused_total").increment(1);
}

/// `GET /metrics`.
pub(crate) fn router(recorder: Metrics, asks: mpsc::Sender<Ask>) -> Router {
    let page = move || {
        let (recorder, asks) = (recorder.clone(), asks.clone());
        async move { page(&recorder, &asks).await }
    };
    Router::new().route("/metrics", get(page))
}

async fn page(recorder: &Metrics, asks: &mpsc::Sender<Ask>) -> Response {
    let mut services = Vec::new();
    let mut own = None;
    let mut after = None;
    loop {
        let Some(said) = api::ask(asks, |answer| Ask::Measures { after, answer }).await else { break };
        services.extend(said.services);
        own = Some(said.own);
        after = said.more_after;
        if after.is_none() {
            break;
        }
    }
    let mut text = recorder.render();
    if let Some(own) = own {
        measures::write_own(&mut text, &own);
        measures::write_services(&mut text, &services);
    }
    ([(CONTENT_TYPE, metrics_page::CONTENT_TYPE)], text).into_response()
}

const COUNTERS: &[(&str, Unit, &str)] = &[
    ("dogwatch_batches_total", Unit::Count, "Batches sent to alertd, by whether it accepted them."),
    (
        "dogwatch_check_overruns_total",
        Unit::Count,
        "Scheduled runs of a check at which it was hanging, including the one that hangs.",
    ),
    ("dogwatch_handler_runs_total", Unit::Count, "Runs of handlers, by outcome."),
    (
        "dogwatch_jobs_refused_total",
        Unit::Count,
        "Reports of jobs that were refused because there are too many jobs or services.",
    ),
    ("dogwatch_spool_errors_total", Unit::Count, "How often writing the spool began to fail."),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("dogwatch_check_start_lag_seconds", Unit::Seconds, "Delay of the start of a check."),
    ("dogwatch_loop_lag_seconds", Unit::Seconds, "Delay of the wakeups of the main loop."),
];
