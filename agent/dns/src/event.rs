//! What reaches the loop besides datagrams.

use tokio::sync::{mpsc, oneshot};

use crate::guard;
use crate::resolver::{Resolver, SensorResult, Status, Why};

pub(crate) enum Event {
    StreamOpened(u64, mpsc::Sender<Vec<u8>>),
    StreamQuery(u64, Vec<u8>),
    StreamClosed(u64),
    ClientRefused,
    Question(Question),
}

/// What a person or the agent asks over the control socket. Answered by the loop, which owns the [`Resolver`].
pub(crate) enum Question {
    Sensors(oneshot::Sender<Vec<SensorResult>>),
    Status(oneshot::Sender<Status>),
    /// Take upstream's word for the names at or below this one.
    Accept {
        name: Vec<u8>,
        answer: oneshot::Sender<guard::Accepted>,
    },
    Why {
        name: Vec<u8>,
        kind: u16,
        answer: oneshot::Sender<Why>,
    },
}

impl Question {
    pub(crate) fn answer(self, resolver: &mut Resolver, now: crate::moment::Moment, wall: jiff::Timestamp) {
        // Who asked may be gone.
        match self {
            Self::Sensors(answer) => drop(answer.send(resolver.sensors(now, wall))),
            Self::Status(answer) => drop(answer.send(resolver.status(now, wall))),
            Self::Accept { name, answer } => drop(answer.send(resolver.accept(&name, now))),
            Self::Why { name, kind, answer } => drop(answer.send(resolver.why(&name, kind, now, wall))),
        }
    }
}
