//! The status of every service on disk, so that a restart repeats and loses no announcement.
//!
//! `state.json` has one line `dogwatch state 1 <CRC-32 of the rest, 8 hex digits>`, then JSON
//! ([`Saved`]). It is replaced as a whole ([`dogwatch_daemon::replace`]). A damaged file is kept as
//! `state.damaged`, and all services start at OK; the spool and alertd's digest correct what is
//! missing.
//!
//! # Which file is right after a kill
//!
//! A transition is written to the spool, then to this file, and only then sent ([`crate::store`]).
//! The file has the number of the last event that it includes ([`Saved::through`]). At the start,
//! later events from the spool are applied ([`Service::on_replayed`]). An event has the whole new
//! state of its service, so it does no harm to apply it twice.
//!
//! | killed | spool | state | after the restart |
//! | --- | --- | --- | --- |
//! | before the spool has it | old | old | nothing was sent; the next result leads to the same decision |
//! | between the two | new | old | the event is applied: it counts as announced and is not repeated |
//! | after both | new | new | nothing to do |
//!
//! Events leave the spool only after they are in the state file.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use dogwatch_checks::{Past, State};
use dogwatch_daemon::replace::{NewFile, replace_file};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{report, service::Service};

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The epoch of the spool to which `through` belongs.
    pub epoch: u64,
    /// All events up to this number are included.
    pub through: u64,
    pub services: BTreeMap<String, SavedService>,
    /// What checks have learnt, by name of the check.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pasts: BTreeMap<String, Past>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedService {
    #[serde(flatten)]
    pub service: Service,
    /// For a passive check: until when its last result is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<Timestamp>,
    /// The last result of a service that nobody runs again for a while: a job, a passive check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<SavedResult>,
}

/// A result without its further lines, which may be long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedResult {
    pub state: State,
    pub summary: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub perfdata: String,
    /// When it was submitted; `None` if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Saved {
    /// Reads `dir/state.json`; empty if there is none. The flag says whether the file was damaged.
    pub fn load(dir: &Path) -> io::Result<(Self, bool)> {
        let bytes = match fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), false)),
            Err(error) => return Err(error),
        };
        if let Some(saved) = parse(&bytes) {
            return Ok((saved, false));
        }
        // Best effort: the copy is for people to look at.
        let _ = fs::rename(dir.join(NAME), dir.join(DAMAGED_NAME));
        Ok((Self::default(), true))
    }

    /// Replaces `dir/state.json`.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut bytes = format!("{HEAD}{:08x}\n", crc32fast::hash(&json)).into_bytes();
        bytes.extend(json);
        replace_file(&dir.join(NAME), &NewFile::with_mode(0o640), |file| file.write_all(&bytes))?;
        Ok(())
    }

    /// Applies the events that the spool has and this file does not.
    pub fn replay(&mut self, epoch: u64, events: &[dogwatch_wire::Event]) {
        for event in events {
            if epoch == self.epoch && event.seq <= self.through {
                continue;
            }
            match report::replayed(&event.kind) {
                report::Replayed::Announced { service, announced } => {
                    self.services.entry(service).or_default().service.on_replayed(announced);
                }
                report::Replayed::Removed { service } => {
                    self.services.remove(&service);
                }
            }
        }
        self.through = events.last().map_or(0, |event| event.seq).max(if epoch == self.epoch {
            self.through
        } else {
            0
        });
        self.epoch = epoch;
    }
}

const NAME: &str = "state.json";
const DAMAGED_NAME: &str = "state.damaged";
const HEAD: &str = "dogwatch state 1 ";

fn parse(bytes: &[u8]) -> Option<Saved> {
    let rest = bytes.strip_prefix(HEAD.as_bytes())?;
    let (crc, json) = (rest.get(..8)?, rest.get(8..)?.strip_prefix(b"\n")?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use dogwatch_checks::CheckResult;

    use super::*;
    use crate::{service::Rules, status::Confirm};

    #[test]
    fn a_stored_state_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Saved::load(dir.path()).unwrap(), (Saved::default(), false));
        let saved = saved();
        saved.store(dir.path()).unwrap();
        assert_eq!(Saved::load(dir.path()).unwrap(), (saved, false));
    }

    #[test]
    fn a_damaged_file_is_kept_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        saved().store(dir.path()).unwrap();
        let mut bytes = fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 0x04;
            assert_eq!(parse(&bytes), None, "byte {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut at {at}");
            bytes[at] ^= 0x04;
        }
        bytes[30] ^= 1;
        fs::write(dir.path().join(NAME), &bytes).unwrap();
        assert_eq!(Saved::load(dir.path()).unwrap(), (Saved::default(), true));
        assert_eq!(fs::read(dir.path().join(DAMAGED_NAME)).unwrap(), bytes);
    }

    fn saved() -> Saved {
        let mut service = Service::default();
        let rules = Rules { confirm: Confirm::After(1), flapping: None };
        service.on_result(&CheckResult::new(State::Critical, "full"), rules, Timestamp::UNIX_EPOCH);
        let disk = SavedService { service, fresh_until: Some(Timestamp::UNIX_EPOCH), last: None };
        Saved { epoch: 7, through: 3, services: [("disk".to_owned(), disk)].into(), pasts: BTreeMap::new() }
    }
}
