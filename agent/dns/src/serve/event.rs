//! Events that the loop receives from clients, threads and the control socket.

use std::time::Duration;

use dogwatch_dns_core::{
    fire_drill::{self, FireDrill, Mode},
    guard,
    message::name,
    moment::Moment,
    resolver::{
        Accepting, Client, DrillStatus, Explanation, Flushed, Listed, Order, Page, Resolver, Selection,
        SensorResult, Status, TcpCheck,
    },
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::serve::{answers::Answers, present};

pub(crate) enum Event {
    /// A datagram that an answering thread could not answer from the cache.
    Query(Client, Box<[u8]>),
    /// A key that is due for a refresh; found by a cache hit on an answering thread.
    Refresh(Box<[u8]>),
    /// A thread answered this many queries (the last for this key) with answers held by a trip.
    Frozen(Box<[u8]>, u16),
    StreamOpened(u64, Answers),
    StreamQuery(u64, Vec<u8>),
    StreamClosed(u64),
    /// The result of a TCP check of a pinned name.
    Checked(TcpCheck, Accepting),
    Question(Question),
}

/// A request over the control socket. Answered by the loop, which owns the [`Resolver`].
pub(crate) enum Question {
    Sensors(oneshot::Sender<Vec<SensorResult>>),
    Status(oneshot::Sender<Status>),
    /// Accept the upstream's answers for the names at or below this one.
    Accept {
        name: Vec<u8>,
        answer: oneshot::Sender<Option<guard::Accepted>>,
    },
    Why {
        name: Vec<u8>,
        kind: u16,
        answer: oneshot::Sender<Explanation>,
    },
    Top {
        order: Order,
        limit: usize,
        answer: oneshot::Sender<Vec<Listed>>,
    },
    Dump {
        zone: Vec<u8>,
        from: u32,
        answer: oneshot::Sender<Page>,
    },
    Flush {
        selection: Selection,
        force: bool,
        by: String,
        answer: oneshot::Sender<Flushed>,
    },
    /// `None` ends the running drill.
    Drill {
        drill: Option<NewDrill>,
        by: String,
        answer: oneshot::Sender<Option<DrillStatus>>,
    },
}

/// A requested drill.
pub(crate) struct NewDrill {
    pub(crate) mode: Mode,
    pub(crate) zone: Vec<u8>,
    pub(crate) lasts: Duration,
}

impl Question {
    pub(crate) fn answer(self, resolver: &mut Resolver, now: Moment, wall: Timestamp) {
        // The caller may have disconnected.
        match self {
            Self::Sensors(answer) => drop(answer.send(resolver.sensors(now, wall))),
            Self::Status(answer) => drop(answer.send(resolver.status(now, wall))),
            Self::Accept { name, answer } => drop(answer.send(resolver.accept(&name, now))),
            Self::Why { name, kind, answer } => {
                drop(answer.send(resolver.why(&name, kind, present::records, now, wall)));
            }
            Self::Top { order, limit, answer } => {
                drop(answer.send(resolver.top(order, limit, present::records, now, wall)));
            }
            Self::Dump { zone, from, answer } => {
                drop(answer.send(resolver.dump(&zone, from, present::records, now, wall)));
            }
            Self::Flush { selection, force, by, answer } => {
                let flushed = resolver.flush(&selection, force);
                if flushed.answers > 0 {
                    tracing::warn!(answers = flushed.answers, by, force, "answers flushed by hand");
                }
                drop(answer.send(flushed));
            }
            Self::Drill { drill, by, answer } => {
                set_drill(resolver, drill, by, now);
                drop(answer.send(resolver.drill_status(now, wall)));
            }
        }
    }
}

fn set_drill(resolver: &mut Resolver, drill: Option<NewDrill>, by: String, now: Moment) {
    let Some(NewDrill { mode, zone, lasts }) = drill else {
        tracing::warn!(by, "fire drill ended by hand");
        return resolver.set_fire_drill(None);
    };
    let lasts = lasts.min(fire_drill::LASTS_MAX);
    tracing::warn!(
        by,
        mode = mode.name(),
        zone = name::to_text(&zone),
        seconds = lasts.as_secs(),
        "fire drill started: upstreams are treated as failing; it ends by itself"
    );
    resolver.set_fire_drill(Some(FireDrill { mode, zone: zone.into(), by, since: now, until: now + lasts }));
}
