//! The process's metrics for Prometheus: text format 0.0.4 at `/metrics`, on loopback unless told otherwise.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, http::header, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::{net::TcpListener, task::JoinHandle};

/// Seconds; from a cached answer to a slow mail relay.
const DURATION_BUCKETS_S: &[f64] =
    &[0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Histogram samples are kept raw until drained, so without this memory would grow for ever
/// (metrics-exporter-prometheus, `PrometheusHandle::run_upkeep`).
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder's read side.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes this process's recorder the place where all metrics go. Call once, before the first metric is declared.
    ///
    /// # Panics
    /// If a recorder is installed already.
    pub fn install() -> Self {
        Self::install_with(PrometheusBuilder::new())
    }

    /// The same, for a daemon whose gauges come and go: one that nobody sets for `gauges_kept` leaves the page.
    ///
    /// # Panics
    /// If a recorder is installed already.
    pub fn install_forgetting(gauges_kept: Duration) -> Self {
        Self::install_with(PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(gauges_kept)))
    }

    fn install_with(builder: PrometheusBuilder) -> Self {
        let handle = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), DURATION_BUCKETS_S)
            .expect("the bucket list is not empty")
            .install_recorder()
            .expect("one recorder a process");
        Self(handle)
    }

    /// The page as text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// `GET /metrics`, to be merged into a daemon's own router or served alone.
    pub fn router(&self) -> Router {
        let handle = self.0.clone();
        let page = move || {
            let text = handle.render();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
        };
        Router::new().route("/metrics", get(page))
    }

    /// Keeps the recorder's memory bounded for as long as the returned task lives.
    pub fn spawn_upkeep(&self) -> JoinHandle<()> {
        let handle = self.0.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                tick.tick().await;
                handle.run_upkeep();
            }
        })
    }

    /// Serves `router` (the page alone: [`Metrics::router`]) on `address` and returns the bound address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve(&self, address: SocketAddr, router: Router) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        self.spawn_upkeep();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(bound)
    }
}
