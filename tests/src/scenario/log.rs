//! What happened in a run: every answer, every upstream query, every check result.

use std::time::Duration;

use crate::{
    authority::Judgement,
    dns_message::{Glance, NXDOMAIN, Reply},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let silence = Self::silence(index, asked, took, why, known);
        let Some(reply) = reply else { return silence };
        let ede = reply.extended_error.as_ref().map(|(code, _)| *code);
        Self {
            worth,
            stale: is_stale(ede),
            ede,
            nxdomain: reply.rcode == NXDOMAIN,
            ttl_s: reply.answers.iter().map(|record| record.ttl).max().unwrap_or(0),
            addresses: u8::try_from(reply.addresses().len()).unwrap_or(u8::MAX),
            ..silence
        }
    }

    /// Nothing came, or nothing yet.
    pub fn silence(index: Option<usize>, asked: Duration, took: Duration, why: Asker, known: bool) -> Self {
        Self {
            name: index.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX),
            asked,
            took,
            why,
            known,
            worth: Judgement::Failed,
            stale: false,
            ede: None,
            nxdomain: false,
            ttl_s: 0,
            addresses: 0,
        }
    }

    /// What was told in the end.
    #[must_use]
    pub fn told(self, worth: Judgement, glance: &Glance) -> Self {
        Self {
            worth,
            stale: is_stale(glance.extended_error),
            ede: glance.extended_error,
            nxdomain: glance.rcode == NXDOMAIN,
            ttl_s: glance.ttl_s,
            addresses: u8::try_from(glance.addresses().len()).unwrap_or(u8::MAX),
            ..self
        }
    }
}

/// RFC 8914 §4.4 and §4.20.
fn is_stale(ede: Option<u16>) -> bool {
    matches!(ede, Some(3 | 19))
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
