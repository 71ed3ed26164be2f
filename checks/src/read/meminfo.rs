//! `/proc/meminfo` (proc_meminfo(5)), in bytes.

use super::Source;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meminfo {
    pub(crate) total: u64,
    /// The kernel's estimate of what programs can get without swapping. Caches count as available;
    /// huge pages and the cache of ZFS do not.
    pub(crate) available: u64,
    /// Reserved as huge pages of any size, used or not. Only programs that ask for them can have
    /// them.
    pub(crate) huge: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
    /// Pages that the kernel no longer uses because of memory errors. `None` if it cannot tell.
    pub(crate) corrupted: Option<u64>,
}

impl Source for Meminfo {
    const PATH: &'static str = "/proc/meminfo";

    fn parse(text: &str) -> Result<Self, &'static str> {
        const INCOMPLETE: &str = "a line that all kernels since 3.14 have is missing";
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let bytes = |name| {
            let kib: u64 = line(name)?.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
            kib.checked_mul(1_024)
        };
        // Kernels before 4.20 have no `Hugetlb`, only the number of pages of the usual size.
        let pages = || line("HugePages_Total")?.trim().parse::<u64>().ok();
        let huge = || pages()?.checked_mul(bytes("Hugepagesize")?);
        Ok(Self {
            total: bytes("MemTotal").ok_or(INCOMPLETE)?,
            available: bytes("MemAvailable").ok_or(INCOMPLETE)?,
            huge: bytes("Hugetlb").or_else(huge).unwrap_or(0),
            swap_total: bytes("SwapTotal").unwrap_or(0),
            swap_free: bytes("SwapFree").unwrap_or(0),
            corrupted: bytes("HardwareCorrupted"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn huge_pages_of_all_sizes_count() {
        let text = "MemTotal: 1000 kB\nMemAvailable:  500 kB\nHugePages_Total:       3\nHugepagesize:       100 kB\n";
        let old = Meminfo::parse(text).unwrap();
        assert_eq!((old.total, old.available, old.huge), (1_024_000, 512_000, 307_200));
        assert_eq!((old.swap_total, old.corrupted), (0, None));
        let new = Meminfo::parse(&format!("{text}Hugetlb: 400 kB\nHardwareCorrupted:     4 kB\n")).unwrap();
        assert_eq!((new.huge, new.corrupted), (409_600, Some(4_096)));
        assert!(Meminfo::parse("MemTotal: 1000 kB\nMemFree: 500 kB\n").is_err());
        assert!(Meminfo::parse("MemTotal: 99999999999999999999 kB\nMemAvailable: 5 kB\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(
            text in "((MemTotal:|MemAvailable:|Hugepagesize:|HugePages_Total:| kB|\\n|[0-9]{1,22}|\\PC){0,40})"
        ) {
            let _ = Meminfo::parse(&text);
        }
    }
}
