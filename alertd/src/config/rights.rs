//! `[alertd.rights]`: what login names may do on the unix socket.
//!
//! ```toml
//! [alertd.rights]
//! ann = ["admin"]
//! prometheus = ["ingest"]
//! backup = []                  # nothing
//! ```
//!
//! | user | may, unless listed |
//! | --- | --- |
//! | root, and the user that runs alertd | everything |
//! | `dogwatch` (the agent and its plugins) | `ingest`, and ask for alertd's health |
//! | `dogwatch-dns` (the cache) | nothing |
//! | others that can open the socket | `ingest`, `read`, `ack`, `silence` |

use std::collections::{BTreeMap, BTreeSet};

use dogwatch_alertd_core::rules::token::Scope;
use dogwatch_daemon::config::{Problems, Source, Spanned};

/// Login name to scopes, as written.
pub(super) type RightsFile = BTreeMap<String, Spanned<Vec<String>>>;

/// Login name to scopes, with those of our own daemons.
pub type Rights = BTreeMap<String, BTreeSet<Scope>>;

/// The users of the package's units (`sysusers.conf`).
const OF_AGENT: &str = "dogwatch";
const OF_CACHE: &str = "dogwatch-dns";

/// Those of our own daemons.
pub(super) fn defaults() -> Rights {
    [(OF_AGENT.to_owned(), [Scope::Ingest].into()), (OF_CACHE.to_owned(), [].into())].into()
}

pub(super) fn resolve(written: &RightsFile, source: &Source, problems: &mut Problems) -> Rights {
    let mut rights = defaults();
    for (name, scopes) in written {
        let mut granted = BTreeSet::new();
        for scope in scopes.get_ref() {
            match scope.parse() {
                Ok(scope) => drop(granted.insert(scope)),
                Err(words) => problems.add(source, scopes.span(), words),
            }
        }
        if name == "root" {
            problems.add(source, scopes.span(), "root may do everything; remove it from [alertd.rights]");
        }
        rights.insert(name.clone(), granted);
    }
    rights
}
