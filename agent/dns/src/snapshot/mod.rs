//! The cache on disk. `kill -9` loses at most the last quarter of a second, power loss at most the
//! last five seconds, and a bad sector only the records on it.
//!
//! The state directory has two files of the same format. New records are appended to `cache.log`.
//! When it is longer than `cache.snapshot`, both are merged into a new `cache.snapshot` (written to
//! a temporary file, synced, renamed), and the log starts empty. Loading reads the snapshot, then
//! the log; of two records for a question, the younger wins. A crash between the rename and the
//! restart of the log leaves records in both files; reading them twice is harmless.
//!
//! ```text
//! file    = head head record*
//! head    = "DWDNS002" salt:u32 crc:u32
//! record  = "REC!" length:u32 crc:u32 payload
//! payload = 1 boot:[16] at:u64 wall:i64                              anchor
//!         | 2 boot:u32 at:u64 uses:u16 good:u32 flags:u8 message     answer
//!         | 3 boot:u32 at:u64 flags:u8 question                      flush
//! ```
//!
//! Integers are little-endian; checksums are CRC-32 (IEEE).
//!
//! - head: written twice, so that one copy may be damaged; `crc` covers the 12 bytes before it.
//! - record: `crc` covers the payload and starts from the file's salt.
//! - anchor: the clock of boot `boot` was at `at` ms when the wall clock was at `wall` ms.
//! - answer: cached at `at` ms on the clock of the boot whose ID begins with `boot`. It was used
//!   `uses` times recently, and the question had positive answers for `good` seconds by then.
//! - flush: the question (name, type, class) was flushed at `at`.
//! - flags: 1 is DO, 2 is CD.
//!
//! A third file, `cache.origin`, says which upstreams the answers came from
//! ([`dogwatch_dns_core::zones::origin`]); without it they are taken to be of those that are
//! configured now.
//!
//! Recovery: after a record with a wrong CRC or length, the reader skips to the next "REC!" that
//! starts a valid record, and logs the position and the reason. Both files are then merged at once,
//! and the damaged file is kept as `NAME.damaged`. An incomplete record at the end of the log is a
//! write that a kill cut short; it is removed before the next append. A file that cannot be read,
//! or was written by another version, is renamed to `NAME.unread`. The cache starts in every case.
//!
//! A fourth file, `cache.length`, has the length of the log at its last sync, so that a log that
//! was cut is noticed.
//!
//! Disk budget: at most four writes a second and one `fdatasync` every five seconds, and none while
//! there are no new answers. The snapshot is at most as large as the cache's byte limit, and the
//! log at most as large as the snapshot or 4 MiB, whichever is larger.
//!
//! | module | | |
//! | --- | --- | --- |
//! | [`age`] | pure | how old an answer is, whatever the clocks did since |
//! | [`record`] | pure | the bytes |
//! | [`length`] | shell | how long the log was |
//! | [`load`] | shell | both files into answers |
//! | [`inbox`] | shell | records on their way to that thread |
//! | [`into_cache`] | shell | answers into the resolver's cache, by a few threads |
//! | [`side_by_side`] | shell | a few threads for a burst of work |
//! | [`writer`] | shell | a thread of its own: append, sync, merge |

pub mod age;
mod inbox;
mod into_cache;
mod length;
mod load;
mod record;
mod side_by_side;
#[cfg(test)]
mod tests;
mod writer;

pub use self::{
    age::{Anchor, GapWatch},
    into_cache::Restoring,
    load::{Answers, FileReport, Loaded, Take, Trouble, load, load_bytes, load_origin},
    record::Damage,
    writer::{Counts, Learned, Limits, Lock, Writer},
};

const SNAPSHOT: &str = "cache.snapshot";
const LOG: &str = "cache.log";
/// Where a merge writes the new snapshot.
const LEFTOVER: &str = "cache.snapshot.new";
/// [`crate::zones::origin`] as JSON: small, and rewritten as a whole.
const ORIGIN: &str = "cache.origin";
/// How long the log was when it was last synced.
const LENGTH: &str = "cache.length";

/// A file with these payloads and valid checksums, for the fuzzer.
#[doc(hidden)]
pub fn framed<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = record::file_head(0).to_vec();
    payloads.for_each(|payload| record::push_record(&mut out, 0, |out| out.extend(payload)));
    out
}
