//! DNS over TCP (RFC 7766): pipelined, answered out of order, with limits on connections, idling and work in progress.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{config::Prefix, event::Event};

/// RFC 7766 §6.2.3 leaves it to us; 10 s is what Unbound and BIND do.
const IDLE: Duration = Duration::from_secs(10);
/// A peer that does not read its answers is not worth waiting for.
const WRITE: Duration = Duration::from_secs(5);
pub(crate) const CONNECTIONS_MAX: usize = 128;
/// Answers that wait to be written to one connection.
const ANSWERS_MAX: usize = 64;

/// Accepts for ever. Each connection's queries go to the loop; its answers come back through the sender in
/// [`Event::StreamOpened`].
pub(crate) async fn accept(
    listener: TcpListener,
    allow: Arc<[Prefix]>,
    connections: Arc<Semaphore>,
    next_id: Arc<std::sync::atomic::AtomicU64>,
    events: mpsc::Sender<Event>,
) {
    loop {
        // The kernel's backlog waits while all places are taken.
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) if allowed(&allow, peer) => {
                let id = next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let events = events.clone();
                tokio::spawn(async move {
                    serve(id, stream, &events).await;
                    let _ = events.send(Event::StreamClosed(id)).await;
                    drop(place);
                });
            }
            Ok((_, peer)) => {
                tracing::debug!(%peer, "not allowed");
                let _ = events.send(Event::ClientRefused).await;
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn allowed(allow: &[Prefix], peer: SocketAddr) -> bool {
    allow.iter().any(|prefix| prefix.contains(peer.ip()))
}

async fn serve(id: u64, stream: TcpStream, events: &mpsc::Sender<Event>) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (answers, queue) = mpsc::channel(ANSWERS_MAX);
    if events.send(Event::StreamOpened(id, answers)).await.is_err() {
        return;
    }
    let mut write = tokio::spawn(write_all(writer, queue));
    tokio::select! {
        _ = read_all(id, reader, events) => {
            // Answers on their way may still go out; the loop drops its sender when told that we are closed.
            let _ = events.send(Event::StreamClosed(id)).await;
            let _ = timeout(WRITE, &mut write).await;
        }
        _ = &mut write => {}
    }
    write.abort();
}

async fn read_all(id: u64, reader: OwnedReadHalf, events: &mpsc::Sender<Event>) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    loop {
        let length = timeout(IDLE, reader.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        timeout(IDLE, reader.read_exact(&mut packet)).await??;
        if events.send(Event::StreamQuery(id, packet)).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = queue.recv().await {
        let Ok(length) = u16::try_from(answer.len()) else { continue };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend(length.to_be_bytes());
        framed.extend(answer);
        timeout(WRITE, writer.write_all(&framed)).await??;
    }
    Ok(())
}
