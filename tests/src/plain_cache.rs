//! What most hosts have: a cache that forgets at the end of the TTL, and believes whatever it is told.
//!
//! A model, for comparison only. It joins equal questions, asks the next server after two seconds, tells the client of an
//! error at once and of silence after five seconds, and keeps NXDOMAIN and empty answers for thirty (RFC 2308).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use dogwatch_dns_core::{
    moment::Moment,
    resolver::{SensorResult, TryError},
    zones::origin::Origin,
};
use jiff::Timestamp;

use crate::{
    dns_message::{NOERROR, NXDOMAIN, Reply, SERVFAIL},
    dns_world::{Forwarder, Remembered, Sent},
};

#[derive(Default)]
pub struct PlainCache {
    used: Vec<usize>,
    kept: HashMap<Vec<u8>, (Vec<u8>, Moment)>,
    flights: BTreeMap<u64, Flight>,
    by_question: HashMap<Vec<u8>, u64>,
    sends: VecDeque<Sent>,
    replies: VecDeque<(u64, Vec<u8>)>,
    next_id: u64,
}

struct Flight {
    question: Vec<u8>,
    clients: Vec<u64>,
    /// Which of the upstreams in use was asked last.
    asked: usize,
    next_server_at: Moment,
    deadline: Moment,
}

const NEXT_SERVER: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);
const NEGATIVE_TTL_S: u32 = 30;
const TIMEOUT: Duration = Duration::from_secs(6);

impl PlainCache {
    pub fn new(used: &[usize]) -> Self {
        Self { used: used.to_vec(), ..Self::default() }
    }

    fn send(&mut self, id: u64) {
        let Some(flight) = self.flights.get(&id) else { return };
        let Some(&upstream) = self.used.get(flight.asked) else { return };
        let message = flight.question.clone();
        self.sends.push_back(Sent { try_id: id, upstream, over_tcp: false, message, timeout: TIMEOUT });
    }

    fn end(&mut self, id: u64, message: &[u8]) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.by_question.remove(&flight.question);
        self.replies.extend(flight.clients.into_iter().map(|client| (client, message.to_vec())));
    }

    fn fail(&mut self, id: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if flight.asked + 1 < self.used.len() {
            flight.asked += 1;
            return self.send(id);
        }
        // The question without its OPT record is eleven bytes shorter.
        let mut message = flight.question[..flight.question.len() - 11].to_vec();
        message[2] |= 0x80;
        message[3] = 0x80 | SERVFAIL;
        message[11] = 0;
        self.end(id, &message);
    }
}

impl Forwarder for PlainCache {
    fn on_query(&mut self, packet: &[u8], client: u64, now: Moment, out: &mut Vec<u8>) -> bool {
        if let Some((message, expires)) = self.kept.get(packet)
            && *expires > now
        {
            out.clone_from(message);
            return true;
        }
        if let Some(flight) = self.by_question.get(packet).and_then(|id| self.flights.get_mut(id)) {
            flight.clients.push(client);
            return false;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_question.insert(packet.to_vec(), id);
        self.flights.insert(
            id,
            Flight {
                question: packet.to_vec(),
                clients: vec![client],
                asked: 0,
                next_server_at: now + NEXT_SERVER,
                deadline: now + DEADLINE,
            },
        );
        self.send(id);
        false
    }

    fn on_reply(&mut self, try_id: u64, message: &[u8], now: Moment) {
        let Some(flight) = self.flights.get(&try_id) else { return };
        let reply = Reply::parse(message);
        if !matches!(reply.rcode, NOERROR | NXDOMAIN) || reply.truncated {
            return self.fail(try_id);
        }
        let ttl_s = reply.answers.iter().map(|record| record.ttl).min().unwrap_or(NEGATIVE_TTL_S);
        let expires = now + Duration::from_secs(u64::from(ttl_s));
        self.kept.insert(flight.question.clone(), (message.to_vec(), expires));
        self.end(try_id, message);
    }

    fn on_error(&mut self, try_id: u64, error: TryError, _: Moment) {
        if error == TryError::Network {
            self.fail(try_id);
        }
    }

    fn on_wakeup(&mut self, now: Moment) {
        let due: Vec<u64> = self.flights.keys().copied().collect();
        for id in due {
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            if flight.deadline <= now {
                flight.asked = self.used.len();
                self.fail(id);
            } else if flight.next_server_at <= now {
                flight.next_server_at = flight.deadline;
                if flight.asked + 1 < self.used.len() {
                    self.fail(id);
                }
            }
        }
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.flights.values().map(|flight| flight.next_server_at.min(flight.deadline)).min()
    }

    fn poll_send(&mut self) -> Option<Sent> {
        self.sends.pop_front()
    }

    fn poll_reply(&mut self) -> Option<(u64, Vec<u8>)> {
        self.replies.pop_front()
    }

    fn origin(&self) -> Option<Origin> {
        None
    }

    fn poll_learned(&mut self) -> Option<Remembered> {
        None
    }

    fn use_upstreams(&mut self, used: &[usize], _: Moment) {
        *self = Self::new(used);
    }

    fn look(&mut self, _: Moment, _: Timestamp) -> (Vec<SensorResult>, Duration) {
        Default::default()
    }

    fn health(&self) -> u8 {
        0
    }

    fn bytes(&self) -> u64 {
        self.kept.keys().map(|key| 2 * key.len() as u64).sum()
    }
}
