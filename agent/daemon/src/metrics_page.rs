//! The metrics of the process for Prometheus: text format 0.0.4 at `/metrics`.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, http::header, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinHandle;

use crate::{bounds::Bounds, tcp_http};

/// Histogram buckets in seconds, from a cached DNS answer to a slow mail relay.
const DURATION_BUCKETS_S: &[f64] =
    &[0.000_1, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Histogram samples are kept until they are drained, so without this the memory would grow forever
/// (metrics-exporter-prometheus, `PrometheusHandle::run_upkeep`).
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the metrics.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder of this process. Call once, before the first metric is declared.
    ///
    /// # Panics
    /// If a recorder is installed already.
    pub fn install() -> Self {
        let handle = PrometheusBuilder::new()
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

    /// `GET /metrics`, to merge into a daemon's router or to serve alone.
    pub fn router(&self) -> Router {
        let handle = self.0.clone();
        let page = move || {
            let text = handle.render();
            async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
        };
        Router::new().route("/metrics", get(page))
    }

    /// Keeps the memory of the recorder bounded until the returned task ends.
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

    /// Serves `router` on `address`, for anyone who can connect, and returns the bound address. For
    /// the page alone, pass [`Metrics::router`].
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn serve(&self, address: SocketAddr, router: Router, bounds: Bounds) -> io::Result<SocketAddr> {
        let listener = tcp_http::bind(address)?;
        let bound = listener.local_addr()?;
        self.spawn_upkeep();
        tokio::spawn(tcp_http::serve(listener, None, router, bounds, |_| {}));
        Ok(bound)
    }
}
