//! Forward zones, and the names that get special treatment in them.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`zone`] | forward zones: the names below a suffix, their upstreams, and the health of those |
//! | `views` | decides which cached names another zone answers for after a change of zones |
//! | [`origin`] | records which upstreams gave the answers on disk, and how often they were asked |
//! | [`local`] | answers names of a hosts file, `localhost` and `invalid` without asking upstream |
//! | [`pinned`] | keeps names that must never be missing |
//! | [`warm`] | refreshes names in use shortly before they expire |

pub mod local;
pub mod origin;
pub mod pinned;
pub(crate) mod views;
pub mod warm;
pub mod zone;
