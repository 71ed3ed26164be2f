//! A listener with a limit on the number of connections and on the time of each. Callers can make
//! each other wait, but they cannot use up the daemon's file descriptors or memory. A handler whose
//! answer takes longer can extend the time of its connection ([`Life`]).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

/// For [`axum::serve`]. Connections above the limit wait in the kernel's queue.
pub struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    lives: Duration,
}

impl<L> Bounded<L> {
    /// Accepts at most `places` connections at once, each for at most `lives`.
    pub fn new(listener: L, places: usize, lives: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)), lives }
    }

    #[cfg(test)]
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let end = Box::pin(tokio::time::sleep(self.lives));
        (Connection { stream, end, life: Life::default(), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that counts against the limit until it is dropped. Reads fail once its time is over.
pub struct Connection<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    life: Life,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn life(&self) -> Life {
        self.life.clone()
    }
}

/// The time of a request's connection. Every request carries it as an extension.
#[derive(Debug, Clone, Default)]
pub struct Life(Arc<AtomicU64>);

impl Life {
    /// Extends the time by this much, in whole seconds.
    pub fn prolong(&self, by: Duration) {
        self.0.fetch_max(by.as_secs(), Relaxed);
    }

    /// Returns the extension that was requested since the last call.
    pub(crate) fn take(&self) -> Option<Duration> {
        Some(self.0.swap(0, Relaxed)).filter(|&seconds| seconds > 0).map(Duration::from_secs)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.end.as_mut().poll(cx).is_ready() {
            let Some(more) = self.life.take() else {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            let end = self.end.deadline() + more;
            self.end.as_mut().reset(end);
        }
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
