//! What happened in a run: every answer, what upstreams were asked, what the check results said.

use std::time::Duration;

use crate::{
    authority::Judgement,
    dns_message::{NXDOMAIN, Reply},
};

/// Times are since the beginning of the run.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub answers: Vec<Answered>,
    /// When how many queries went to which upstream.
    pub sent: Vec<(Duration, usize, u64)>,
    pub alerts: Vec<Alert>,
    pub samples: Vec<Sample>,
    /// What the runner itself found wrong.
    pub complaints: Vec<String>,
}

/// One client's question and its end.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Of the run's names.
    pub name: u32,
    pub asked: Duration,
    pub took: Duration,
    pub why: Asker,
    /// The name was answered right before.
    pub known: bool,
    pub worth: Judgement,
    /// EDE 3 or 19.
    pub stale: bool,
    pub ede: Option<u16>,
    pub nxdomain: bool,
    pub ttl_s: u32,
    pub addresses: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    Program,
    /// A line of the file.
    Line(u32),
    Flood,
    Noise,
}

/// A check result that differs from the one before.
#[derive(Debug, Clone)]
pub struct Alert {
    pub at: Duration,
    pub sensor: String,
    pub state: u8,
    pub text: String,
}

/// What the cache said of itself at a time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub at: Duration,
    pub bytes: u64,
    pub runway: Duration,
}

impl Answered {
    /// What of a reply is noted.
    pub fn new(
        index: Option<usize>,
        asked: Duration,
        took: Duration,
        why: Asker,
        known: bool,
        worth: Judgement,
        reply: Option<&Reply>,
    ) -> Self {
        let ede = reply.and_then(|reply| reply.extended_error.as_ref()).map(|(code, _)| *code);
        let ttl_s = reply.and_then(|reply| reply.answers.iter().map(|record| record.ttl).max());
        let addresses = reply.map_or(0, |reply| reply.addresses().len());
        Self {
            name: index.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX),
            asked,
            took,
            why,
            known,
            worth,
            stale: matches!(ede, Some(3 | 19)),
            ede,
            nxdomain: reply.is_some_and(|reply| reply.rcode == NXDOMAIN),
            ttl_s: ttl_s.unwrap_or(0),
            addresses: u8::try_from(addresses).unwrap_or(u8::MAX),
        }
    }
}

impl Log {
    /// Notes what a check says now, if that is news.
    pub fn on_sensor(&mut self, at: Duration, sensor: &str, state: u8, text: &str) {
        let last = self.alerts.iter().rev().find(|alert| alert.sensor == sensor);
        if last.map_or(0, |alert| alert.state) != state {
            self.alerts.push(Alert { at, sensor: sensor.into(), state, text: text.into() });
        }
    }

    /// The answers asked for in a span.
    pub fn asked_in(&self, from: Duration, until: Duration) -> impl Iterator<Item = &Answered> {
        self.answers.iter().filter(move |answer| answer.asked >= from && answer.asked < until)
    }

    /// Those of programs, for names known before.
    pub fn known_in(&self, from: Duration, until: Duration) -> impl Iterator<Item = &Answered> {
        self.asked_in(from, until).filter(|answer| answer.known && answer.why == Asker::Program)
    }

    pub fn sent_in(&self, from: Duration, until: Duration) -> u64 {
        self.sent.iter().filter(|(at, ..)| *at >= from && *at < until).map(|(.., count)| count).sum()
    }

    /// What a check said at a time.
    pub fn state_at(&self, sensor: &str, at: Duration) -> u8 {
        let before = self.alerts.iter().rev().find(|alert| alert.sensor == sensor && alert.at <= at);
        before.map_or(0, |alert| alert.state)
    }
}
