//! The cache on disk: what was learned is there within a quarter of a second after `kill -9`, within five after power
//! loss, and one bad sector costs only what stood on it.
//!
//! Two files of one format in the state directory. `cache.log` is appended to; when it has grown past `cache.snapshot`,
//! both are merged into a new `cache.snapshot` (written beside, synced, renamed) and the log starts anew. Loading reads
//! the snapshot, then the log; the younger record of a question wins. A crash between rename and restart of the log
//! leaves records in both: reading them twice does no harm.
//!
//! ```text
//! file    = head head record*                          the head twice: each has its own CRC, one is enough
//! head    = "DWDNS002" salt:u32 crc:u32                crc = CRC-32 (IEEE) of the 12 bytes before it; integers little-endian
//! record  = "REC!" length:u32 crc:u32 payload          crc = CRC-32 of payload, begun with the file's salt
//! payload = 1 boot:[16] at:u64 wall:i64                anchor: this boot's clock said `at` ms when the wall clock said `wall` ms
//!         | 2 boot:u32 at:u64 uses:u16 good:u32 flags:u8 message
//!                                                      answer learned `at` ms on the clock of the boot whose name begins
//!                                                      with `boot`, asked for `uses` times lately, by then answered with
//!                                                      yes for `good` seconds; flags: 1 DO, 2 CD
//!         | 3 boot:u32 at:u64 flags:u8 question        the question (name, type, class) was flushed at `at`
//! ```
//!
//! The salt is random: a stranger's TXT record that looks like one of ours is none, even when damage before it makes the
//! reader look inside.
//!
//! Recovery: a record whose CRC or length is wrong is skipped up to the next "REC!" whose record is whole, and named in the
//! log with place and reason; the damaged file is kept as `NAME.damaged` when both are merged anew, at once. What stands
//! at the end of the log without being a whole record is the write that a kill cut short: it is cut off before the next
//! append. A file that cannot be read, or was written by another version, is put aside as `NAME.unread`. In no case does
//! the cache refuse to start.
//!
//! A third file, `cache.origin`, says which upstreams the answers came from ([`dogwatch_dns_core::zones::origin`]);
//! without it they are taken to be of those that are configured now.
//!
//! Disk budget: at most four writes a second and one `fdatasync` each five seconds, none while nothing is learned; the
//! snapshot is no longer than the cache's own byte cap, the log no longer than the snapshot or 4 MiB.
//!
//! | module | | |
//! | --- | --- | --- |
//! | [`age`] | pure | how old an answer is, whatever the clocks did since |
//! | [`record`] | pure | the bytes |
//! | [`load`] | shell | both files into answers |
//! | [`inbox`] | shell | records on their way to that thread |
//! | [`into_cache`] | shell | answers into the resolver's cache, by a few threads |
//! | [`side_by_side`] | shell | a few threads for a burst of work |
//! | [`writer`] | shell | a thread of its own: append, sync, merge |

pub mod age;
mod inbox;
mod into_cache;
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
    writer::{Counts, Learned, Limits, Writer},
};

const SNAPSHOT: &str = "cache.snapshot";
const LOG: &str = "cache.log";
/// [`dogwatch_dns_core::zones::origin`], as JSON: small, and written anew as a whole.
const ORIGIN: &str = "cache.origin";

/// A file with these payloads, each with its right checksum: for the fuzzer.
#[doc(hidden)]
pub fn framed<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = record::file_head(0).to_vec();
    payloads.for_each(|payload| record::push_record(&mut out, 0, |out| out.extend(payload)));
    out
}
