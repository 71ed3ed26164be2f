//! The well-behaved load: a stub resolver, and agents whose services fail and recover.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dogwatch_wire::State;

use crate::{
    authority::{name, right_address},
    bench::now,
    crash::{
        heard::Heard,
        victim::{Agent, LOST_AFTER, kind_of},
    },
    dns_client::{ask_tcp, ask_udp},
    dns_message::{A, NOERROR},
};

/// What clients saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Of each correct answer or notification, ms.
    pub(super) took_ms: Vec<f64>,
    pub(super) wrong: Vec<String>,
}

/// Names that are asked for again and again. Their TTL is short, so some go upstream.
const NAMES: u32 = 200;
const TTL_S: u32 = 5;
const ASK_EVERY: Duration = Duration::from_millis(10);
/// One question in so many goes over TCP.
const TCP_IN: u32 = 10;
/// With two batches each time, below the 5 a second that alertd accepts of one agent.
const CHANGE_EVERY: Duration = Duration::from_millis(500);

/// Asks until told to stop. Each question gets one try of 5 s.
pub(super) fn ask(server: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<Seen> {
    thread::spawn(move || {
        let mut seen = Seen::default();
        let mut count = 0_u32;
        while !stop.load(Relaxed) {
            let number = fastrand::u32(..NAMES);
            let (over, ask): (_, fn(_, &str, _) -> _) =
                if count.is_multiple_of(TCP_IN) { ("TCP", ask_tcp) } else { ("UDP", ask_udp) };
            count += 1;
            let start = now();
            match ask(server, &name(number, TTL_S), A) {
                Ok(reply) if reply.rcode == NOERROR && reply.addresses() == [right_address(number)] => {
                    seen.took_ms.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok(reply) => seen.wrong.push(format!("{over}: {reply:?}")),
                Err(error) => seen.wrong.push(format!("{over}: {error}")),
            }
            thread::sleep(ASK_EVERY);
        }
        seen
    })
}

/// Fails and recovers until told to stop; `done` episodes came before. Returns the agent.
pub(super) async fn change(
    mut agent: Agent,
    mut done: usize,
    heard: Heard,
    stop: Arc<AtomicBool>,
) -> (Agent, usize, Seen) {
    let mut seen = Seen::default();
    while !stop.load(Relaxed) {
        done += 1;
        for state in [State::Critical, State::Ok] {
            let start = now();
            let change = agent.change(state, &heard, done);
            if tokio::time::timeout(LOST_AFTER, change).await.is_err() {
                seen.wrong.push(format!("{} {done} of {}", kind_of(state), agent.host));
                return (agent, done, seen);
            }
            seen.took_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        tokio::time::sleep(CHANGE_EVERY).await;
    }
    (agent, done, seen)
}
