//! The audit log: history entries with an author and an origin, and refused requests.

use jiff::Timestamp;

use super::Core;
use crate::rules::reason::Reason;

impl Core {
    /// Sets the origin of the following inputs, or `None` for alertd itself.
    pub fn come_from(&mut self, origin: Option<String>) {
        self.origin = origin;
    }

    /// Records that a request of a known author was refused.
    pub fn on_refused(&mut self, author: &str, asked: &str, now: Timestamp) {
        self.note_by(now, None, "refused", Reason::Refused, Some(author), asked);
    }

    /// Records that somebody made a backup.
    pub fn on_backed_up(&mut self, author: &str, what: &str, now: Timestamp) {
        self.note_by(now, None, "backed_up", Reason::ByHand, Some(author), what);
    }

    /// Records a reload of the config by a signal.
    pub fn on_reloaded(&mut self, outcome: &str, now: Timestamp) {
        self.note_by(now, None, "reloaded", Reason::ByHand, Some("SIGHUP"), outcome);
    }
}
