//! Who did what: the lines of the history that have an author, with where they came from and what was refused.

use jiff::Timestamp;

use super::Core;
use crate::core::rules::reason::Reason;

impl Core {
    /// Where the inputs from now on come from; `None`: from nobody outside.
    pub fn come_from(&mut self, origin: Option<String>) {
        self.origin = origin;
    }

    /// Somebody known asked for something that they may not do, or that makes no sense.
    pub fn on_refused(&mut self, author: &str, asked: &str, now: Timestamp) {
        self.note_by(now, None, "refused", Reason::Refused, Some(author), asked);
    }

    /// Somebody has a copy of all there is.
    pub fn on_backed_up(&mut self, author: &str, what: &str, now: Timestamp) {
        self.note_by(now, None, "backed_up", Reason::ByHand, Some(author), what);
    }

    /// Whoever may signal alertd made it read its config.
    pub fn on_reloaded(&mut self, outcome: &str, now: Timestamp) {
        self.note_by(now, None, "reloaded", Reason::ByHand, Some("SIGHUP"), outcome);
    }
}
