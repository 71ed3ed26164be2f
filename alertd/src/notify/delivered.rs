//! Remembers which parts of a notification were accepted, for receivers that send several messages
//! per notification.
//!
//! A crash loses this memory; accepted parts are then sent again, under the same ids.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The last accepted parts, at most [`Delivered::MAX`].
#[derive(Debug, Default)]
pub(super) struct Delivered(Mutex<VecDeque<(String, String)>>);

impl Delivered {
    const MAX: usize = 4_000;

    pub(super) fn has(&self, id: &str, part: &str) -> bool {
        let delivered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        delivered.iter().any(|(got, which)| got == id && which == part)
    }

    pub(super) fn note(&self, id: &str, part: &str) {
        let mut delivered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if delivered.len() == Self::MAX {
            delivered.pop_front();
        }
        delivered.push_back((id.to_owned(), part.to_owned()));
    }
}
