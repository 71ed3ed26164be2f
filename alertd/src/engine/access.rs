//! The part of the engine that handles tokens, refused requests and backups.

use jiff::Timestamp;

use super::{
    Deliver, Engine,
    input::Access,
    journal::{Owed, owed},
};

impl<D: Deliver> Engine<D> {
    pub(super) fn on_access(&mut self, input: Access, now: Timestamp) -> Option<Owed> {
        match input {
            Access::List(answer) => drop(answer.send(self.core.tokens(now))),
            Access::Create(ask, hash, author, answer) => {
                return Some(owed(answer, self.core.on_token(&ask, hash, &author, now)));
            }
            Access::Revoke(name, author, answer) => {
                return Some(owed(answer, self.core.on_token_revoke(&name, &author, now)));
            }
            Access::Used(name) => self.core.on_token_used(&name, now),
            Access::BackedUp(author, what, answer) => {
                self.core.on_backed_up(&author, &what, now);
                return Some(Box::new(|trouble| drop(answer.send(trouble.map(str::to_owned)))));
            }
            Access::Refused(author, asked, answer) => {
                self.core.on_refused(&author, &asked, now);
                return Some(owed(answer, ()));
            }
        }
        None
    }
}
