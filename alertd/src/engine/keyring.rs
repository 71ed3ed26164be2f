//! The valid tokens. Every request checks them here without asking the engine. The engine updates
//! them as soon as it decides, so a revoked token stops working immediately.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use dogwatch_alertd_core::rules::token::{Hash, Token};
use ring::digest::{SHA256, digest};

#[derive(Default)]
pub struct Keyring(RwLock<Keys>);

#[derive(Default)]
struct Keys {
    /// By a part of the hash; tokens with the same part are compared in full.
    by_slot: HashMap<u64, Vec<Arc<Token>>>,
    slots: HashMap<String, u64>,
}

impl Keyring {
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a Token>) -> Self {
        let keyring = Self::default();
        tokens.into_iter().for_each(|token| keyring.put(Some(token), &token.name));
        keyring
    }

    /// Replaces the token with that name; `None` removes it.
    pub fn put(&self, token: Option<&Token>, name: &str) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = keys.slots.remove(name)
            && let Some(tokens) = keys.by_slot.get_mut(&slot)
        {
            tokens.retain(|token| token.name != name);
            if tokens.is_empty() {
                keys.by_slot.remove(&slot);
            }
        }
        if let Some(token) = token {
            let slot = token.hash.slot();
            keys.slots.insert(name.to_owned(), slot);
            keys.by_slot.entry(slot).or_default().push(Arc::new(token.clone()));
        }
    }

    /// The token with this text.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<Token>> {
        let hash = hash_of(text);
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.by_slot.get(&hash.slot())?.iter().find(|token| token.hash == hash).cloned()
    }
}

/// The hash under which a token with this text is kept.
pub fn hash_of(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    Hash::new(hash)
}

#[cfg(test)]
mod tests {
    use dogwatch_alertd_core::rules::token::text_of;

    use super::*;

    #[test]
    fn a_token_is_kept_by_the_sha256_of_its_text() {
        // printf dogwatch_0707…07 | sha256sum
        let known = "ec4158daf6508286f5e13cf1dbd51a53422ee8af3f73a58b8f191332c44e2cd7";
        assert!(hash_of(&text_of(&[7; 32])) == Hash::try_from(known.to_owned()).unwrap());
    }
}
