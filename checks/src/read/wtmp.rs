//! `/var/log/wtmp`: boots and shutdowns, as records of utmp(5).
//!
//! systemd writes a record before it powers off or reboots, and one at boot. Between two boots
//! without a shutdown, the host lost power, crashed or was reset. Debian 13 has no such file.

/// Whether the host was shut down properly before it booted at `boot` (Unix time). `None` if the
/// records do not say: the file is new, or its last boot is another one.
pub(crate) fn clean_shutdown(records: &[u8], boot: i64) -> Option<bool> {
    let mut records = records.rchunks_exact(LAYOUT.size);
    let last = records.find(|record| kind(record) == BOOT_TIME)?;
    if (time(last)? - boot).abs() > SAME_BOOT_S {
        return None;
    }
    let before = records.find(|record| kind(record) == BOOT_TIME || is_shutdown(record))?;
    Some(is_shutdown(before))
}

/// Where the fields are. glibc keeps 32-bit times on the architectures that once had a 32-bit
/// userland.
struct Layout {
    size: usize,
    seconds_at: usize,
    wide: bool,
}

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64"))]
const LAYOUT: Layout = Layout { size: 400, seconds_at: 344, wide: true };
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64")))]
const LAYOUT: Layout = Layout { size: 384, seconds_at: 340, wide: false };

const RUN_LVL: i16 = 1;
const BOOT_TIME: i16 = 2;
const USER_AT: usize = 44;

/// The clock is set between the record and our reading.
const SAME_BOOT_S: i64 = 300;

fn kind(record: &[u8]) -> i16 {
    record.first_chunk().map_or(0, |bytes| i16::from_ne_bytes(*bytes))
}

fn is_shutdown(record: &[u8]) -> bool {
    kind(record) == RUN_LVL && record.get(USER_AT..).is_some_and(|user| user.starts_with(b"shutdown\0"))
}

fn time(record: &[u8]) -> Option<i64> {
    let field = record.get(LAYOUT.seconds_at..)?;
    Some(if LAYOUT.wide {
        i64::from_ne_bytes(*field.first_chunk()?)
    } else {
        i32::from_ne_bytes(*field.first_chunk()?).into()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One record as systemd writes it.
    pub(crate) fn record(kind: i16, user: &str, seconds: i32) -> Vec<u8> {
        let mut record = vec![0; LAYOUT.size];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[USER_AT..USER_AT + user.len()].copy_from_slice(user.as_bytes());
        let time = if LAYOUT.wide {
            i64::from(seconds).to_ne_bytes().to_vec()
        } else {
            seconds.to_ne_bytes().to_vec()
        };
        record[LAYOUT.seconds_at..LAYOUT.seconds_at + time.len()].copy_from_slice(&time);
        record
    }

    fn boot(seconds: i32) -> Vec<u8> {
        record(BOOT_TIME, "reboot", seconds)
    }

    #[test]
    fn a_boot_without_a_shutdown_before_it_was_not_clean() {
        let shutdown = record(RUN_LVL, "shutdown", 1_900);
        let level = record(RUN_LVL, "runlevel", 1_010);
        let login = record(7, "root", 1_500);
        let clean = |records: &[&[u8]]| clean_shutdown(&records.concat(), 2_001);
        assert_eq!(clean(&[&boot(1_000), &level, &login, &shutdown, &boot(2_000), &level]), Some(true));
        assert_eq!(clean(&[&boot(1_000), &level, &login, &boot(2_000), &level, &login]), Some(false));
        assert_eq!(clean(&[&login, &boot(2_000)]), None, "the file was rotated");
        assert_eq!(clean(&[&boot(1_000), &shutdown]), None, "another boot");
        assert_eq!(clean(&[&boot(1_000), &boot(9_000)]), None, "the clock was wrong");
        assert_eq!(clean(&[]), None);
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(bytes: Vec<u8>, boot: i32) {
            clean_shutdown(&bytes, boot.into());
        }
    }
}
