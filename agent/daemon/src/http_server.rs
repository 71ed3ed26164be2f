//! One HTTP/1.1 connection of a stranger, within the [`Bounds`] of its listener.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Extensions, Request},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tower_service::Service as _;

use crate::bounds::{Bounds, Place};

/// For the head of a request and for what is read ahead.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The time of a request's connection. Every request carries it as an extension.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<AtomicU64>);

impl Life {
    /// The answer takes this much longer than the bounds allow, in whole seconds.
    pub fn prolong(&self, by: Duration) {
        self.0.fetch_max(by.as_secs(), Relaxed);
    }

    fn asked_for(&self) -> Duration {
        Duration::from_secs(self.0.load(Relaxed))
    }
}

/// The router as a listener serves it.
pub(crate) fn bounded(router: Router, bounds: &Bounds) -> Router {
    router.layer(DefaultBodyLimit::max(bounds.body))
}

/// Serves one connection. `introduce` says who the caller is.
pub(crate) async fn talk<S>(
    stream: S,
    place: Place,
    bounds: &Bounds,
    router: Router,
    introduce: impl Fn(&mut Extensions),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let life = Life::default();
    let answer = service_fn(|mut request: Request<Incoming>| {
        introduce(request.extensions_mut());
        request.extensions_mut().insert(life.clone());
        let mut router = router.clone();
        let busy = place.begin();
        let (life, place) = (life.clone(), &place);
        async move {
            let answer = router.call(request).await;
            if life.asked_for() > Duration::ZERO {
                // Its answer is sent after this.
                place.protect();
            }
            drop(busy);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        // Errors are the caller's: it closed the connection, or it does not speak HTTP.
        _ = &mut connection => return,
        () = place.asked_to_leave() => return,
        () = sleep(bounds.life) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(bounds.last_answer.max(life.asked_for()), connection).await;
}
