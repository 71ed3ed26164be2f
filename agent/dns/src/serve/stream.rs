//! DNS over TCP (RFC 7766): pipelining and out-of-order answers, with limits on connections, idle
//! time and queries in flight.
//!
//! When a connection has [`UNDER_WAY_MAX`] queries in flight, it is not read until some are
//! answered, so every answer has room in the queue. A connection is idle when nothing is in flight
//! and nothing arrives. A client that half-closes the connection still gets its answers. A client
//! that sends or reads too slowly is disconnected.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::RwLock;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{config::Prefix, serve::event::Event};

/// Time limits for a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Between queries, with nothing in flight.
    idle: Duration,
    /// The same while few connection slots are free.
    idle_crowded: Duration,
    /// From the first byte of a query to its last.
    read: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // RFC 7766 §6.2.3 leaves it to the server; Unbound and BIND use 10 s.
            idle: Duration::from_secs(10),
            idle_crowded: Duration::from_secs(1),
            read: Duration::from_secs(5),
        }
    }
}

/// Longer than any query is in flight (a flight ends after six seconds).
const UNDER_WAY: Duration = Duration::from_secs(7);
/// A client that does not read its answers is disconnected.
const WRITE: Duration = Duration::from_secs(5);
pub(crate) const CONNECTIONS_MAX: usize = 128;
/// Queries in flight on one connection, and answers waiting to be written.
const UNDER_WAY_MAX: u16 = 64;

/// Accepts connections forever. Queries go to the loop; the answers come back through the sender in
/// [`Event::StreamOpened`].
pub(crate) async fn accept(
    listener: TcpListener,
    allow: Arc<RwLock<Vec<Prefix>>>,
    connections: Arc<Semaphore>,
    patience: Patience,
    next_id: Arc<std::sync::atomic::AtomicU64>,
    events: mpsc::Sender<Event>,
) {
    loop {
        // While all slots are taken, new connections wait in the kernel's backlog.
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) if allowed(&allow.read(), peer) => {
                let id = next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let events = events.clone();
                let crowded = connections.available_permits() < CONNECTIONS_MAX / 4;
                let idle = if crowded { patience.idle_crowded } else { patience.idle };
                let patience = Patience { idle, ..patience };
                tokio::spawn(async move {
                    serve(id, stream, patience, &events).await;
                    let _ = events.send(Event::StreamClosed(id)).await;
                    drop(place);
                });
            }
            Ok((_, peer)) => {
                tracing::debug!(%peer, "client not allowed");
                let _ = events.send(Event::ClientRefused).await;
            }
            Err(error) => {
                // Most likely out of descriptors, which passes.
                tracing::warn!(%error, "cannot accept a TCP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn allowed(allow: &[Prefix], peer: SocketAddr) -> bool {
    allow.iter().any(|prefix| prefix.contains(peer.ip()))
}

async fn serve(id: u64, stream: TcpStream, patience: Patience, events: &mpsc::Sender<Event>) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (answers, queue) = mpsc::channel(usize::from(UNDER_WAY_MAX));
    if events.send(Event::StreamOpened(id, answers)).await.is_err() {
        return;
    }
    let places = Arc::new(Semaphore::new(usize::from(UNDER_WAY_MAX)));
    let mut write = tokio::spawn(write_all(writer, queue, Arc::clone(&places)));
    tokio::select! {
        ended = read_all(id, reader, patience, &places, events) => {
            if ended.is_ok() {
                // The client is done asking; when all permits are back, everything is answered.
                let _ = timeout(UNDER_WAY, places.acquire_many(u32::from(UNDER_WAY_MAX))).await;
            }
        }
        _ = &mut write => {}
    }
    write.abort();
}

/// Returns `Ok` when the client closes its side, or is idle.
async fn read_all(
    id: u64,
    reader: OwnedReadHalf,
    patience: Patience,
    places: &Semaphore,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    loop {
        // A timeout in `fill_buf` loses no bytes.
        match timeout(patience.idle, reader.fill_buf()).await {
            Ok(Ok([])) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) if places.available_permits() < usize::from(UNDER_WAY_MAX) => continue,
            Err(_) => return Ok(()),
        }
        let packet = timeout(patience.read, read_one(&mut reader)).await??;
        match places.acquire().await {
            Ok(place) => place.forget(),
            Err(_) => return Ok(()),
        }
        if events.send(Event::StreamQuery(id, packet)).await.is_err() {
            return Ok(());
        }
    }
}

async fn read_one(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    reader.read_exact(&mut packet).await?;
    Ok(packet)
}

/// An empty answer is not sent; it only frees its slot.
async fn write_all(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    places: Arc<Semaphore>,
) -> io::Result<()> {
    while let Some(answer) = queue.recv().await {
        if let Ok(length @ 1..) = u16::try_from(answer.len()) {
            let mut framed = Vec::with_capacity(answer.len() + 2);
            framed.extend(length.to_be_bytes());
            framed.extend(answer);
            timeout(WRITE, writer.write_all(&framed)).await??;
        }
        places.add_permits(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose answers come from the test.
    struct World {
        address: SocketAddr,
        events: mpsc::Receiver<Event>,
        answers: Option<mpsc::Sender<Vec<u8>>>,
    }

    impl World {
        async fn start(patience: Patience) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (sender, events) = mpsc::channel(256);
            let allow = Arc::new(RwLock::new(vec!["127.0.0.1".parse().unwrap()]));
            let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            tokio::spawn(accept(listener, allow, connections, patience, Arc::default(), sender));
            Self { address, events, answers: None }
        }

        /// The next query.
        async fn question(&mut self) -> Vec<u8> {
            loop {
                match self.events.recv().await.unwrap() {
                    Event::StreamOpened(_, answers) => self.answers = Some(answers),
                    Event::StreamQuery(_, packet) => return packet,
                    _ => {}
                }
            }
        }

        fn answer(&self, packet: &[u8]) {
            self.answers.as_ref().unwrap().try_send(packet.to_vec()).unwrap();
        }

        async fn closed(&mut self) {
            while !matches!(self.events.recv().await.unwrap(), Event::StreamClosed(_)) {}
        }
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        let mut framed = u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(packet);
        framed
    }

    async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
        let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut packet).await.unwrap();
        packet
    }

    #[tokio::test]
    async fn queries_are_pipelined_and_answered_out_of_order_even_after_a_half_close() {
        let mut world = World::start(Patience::default()).await;
        let mut client = TcpStream::connect(world.address).await.unwrap();
        // Two and a half queries in one segment, the rest in another.
        client.write_all(&[framed(b"one"), framed(b"two"), vec![0]].concat()).await.unwrap();
        assert_eq!((world.question().await, world.question().await), (b"one".to_vec(), b"two".to_vec()));
        client.write_all(&framed(b"three")[1..]).await.unwrap();
        assert_eq!(world.question().await, b"three");
        world.answer(b"2");
        assert_eq!(read_frame(&mut client).await, b"2");
        client.shutdown().await.unwrap();
        // No answer is sent, but the slot is free again.
        world.answer(b"");
        world.answer(b"1");
        assert_eq!(read_frame(&mut client).await, b"1");
        world.closed().await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_with_too_many_queries_in_flight_is_not_read_until_some_are_answered() {
        let mut world = World::start(Patience::default()).await;
        let mut client = TcpStream::connect(world.address).await.unwrap();
        for number in 0..=u8::try_from(UNDER_WAY_MAX).unwrap() {
            client.write_all(&framed(&[number])).await.unwrap();
        }
        for number in 0..u8::try_from(UNDER_WAY_MAX).unwrap() {
            assert_eq!(world.question().await, [number]);
        }
        tokio::task::yield_now().await;
        assert!(world.events.try_recv().is_err(), "one too many");
        world.answer(b"0");
        assert_eq!(world.question().await, [u8::try_from(UNDER_WAY_MAX).unwrap()]);
    }

    #[tokio::test]
    async fn idle_and_slow_clients_are_disconnected() {
        let short = Duration::from_millis(20);
        let mut world = World::start(Patience { idle: short, idle_crowded: short, read: short }).await;
        let idle = TcpStream::connect(world.address).await.unwrap();
        world.closed().await;
        let mut slow = TcpStream::connect(world.address).await.unwrap();
        // A length, and then nothing: a slow-loris.
        slow.write_all(&[0, 40, 1]).await.unwrap();
        world.closed().await;
        let mut never_ends = TcpStream::connect(world.address).await.unwrap();
        never_ends.write_all(&[0]).await.unwrap();
        world.closed().await;
        drop(idle);
    }
}
