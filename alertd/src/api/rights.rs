//! What users of the unix socket may do, by the uid that the kernel reports.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
};

use dogwatch_alertd_core::rules::token::Scope;
use nix::unistd::{User, geteuid};

use crate::config::Rights;

/// Everybody who can open the socket and is not listed: people, by the group of the socket.
const OF_PEOPLE: [Scope; 4] = [Scope::Ingest, Scope::Read, Scope::Ack, Scope::Silence];

/// The rights by uid. A reload replaces them.
pub struct UserRights(RwLock<HashMap<u32, BTreeSet<Scope>>>);

impl UserRights {
    pub fn new(rights: &Rights) -> Self {
        let all = Self(RwLock::default());
        all.replace(rights);
        all
    }

    /// Looks the users up again.
    pub fn replace(&self, rights: &Rights) {
        let mut by_uid: HashMap<_, _> =
            rights.iter().filter_map(|(name, scopes)| Some((uid_of(name)?, scopes.clone()))).collect();
        for admin in [0, geteuid().as_raw()] {
            by_uid.insert(admin, [Scope::Admin].into());
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = by_uid;
    }

    /// What this user may do.
    pub(super) fn of(&self, uid: u32) -> BTreeSet<Scope> {
        let by_uid = self.0.read().unwrap_or_else(PoisonError::into_inner);
        by_uid
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| if uid == u32::MAX { [].into() } else { OF_PEOPLE.into() })
    }
}

/// For listing the routes, and for tests.
impl Default for UserRights {
    fn default() -> Self {
        Self::new(&Rights::default())
    }
}

fn uid_of(name: &str) -> Option<u32> {
    match User::from_name(name) {
        Ok(Some(user)) => Some(user.uid.as_raw()),
        // On a host without the cache, for example.
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(name, %error, "cannot look up a user of [alertd.rights]");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S7: the names are those of every Debian system.
    #[test]
    fn each_uid_has_the_rights_of_its_user() {
        let rights: Rights =
            [("daemon".to_owned(), [Scope::Ingest].into()), ("bin".to_owned(), [].into())].into();
        let rights = UserRights::new(&rights);
        assert_eq!(rights.of(0), [Scope::Admin].into());
        assert_eq!(rights.of(1), [Scope::Ingest].into(), "daemon");
        assert_eq!(rights.of(2), [].into(), "bin");
        assert_eq!(rights.of(54_321), OF_PEOPLE.into(), "somebody in the group");
        assert_eq!(rights.of(u32::MAX), [].into(), "a caller that is gone already");
        rights.replace(&Rights::default());
        assert_eq!(rights.of(2), OF_PEOPLE.into());
    }
}
