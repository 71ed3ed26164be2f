//! The part of the engine that handles tokens, refused requests and backups.

use dogwatch_alertd_core::{Refused, rules::token::Hash};
use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{
    Deliver, Engine,
    input::Answer,
    journal::{Owed, owed},
};

/// Inputs about tokens and their users.
pub enum Access {
    List(Answer<Vec<ctl::Token>>),
    Create(ctl::NewToken, Hash, String, Answer<Result<ctl::Token, Refused>>),
    Revoke(String, String, Answer<Result<ctl::Token, Refused>>),
    /// A token was used for the first time in a while.
    Used(String),
    /// A refused request, for the audit log; answered once it is recorded.
    Refused(String, String, Answer<()>),
    /// Somebody made a backup: caller and description. Answered with the store's error, if it has
    /// one.
    BackedUp(String, String, Answer<Option<String>>),
}

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
