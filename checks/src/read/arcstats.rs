//! `/proc/spl/kstat/zfs/arcstats`: the cache of ZFS.

use super::Source;

/// Bytes of the cache that ZFS gives back when programs need memory. The kernel does not count
/// them as available (openzfs#10255).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arcstats {
    pub(crate) reclaimable: u64,
}

impl Source for Arcstats {
    const PATH: &'static str = "/proc/spl/kstat/zfs/arcstats";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let value = |name| {
            text.lines().find_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                (fields.next()? == name).then(|| fields.nth(1)?.parse::<u64>().ok())?
            })
        };
        match (value("size"), value("c_min")) {
            (Some(size), Some(least)) => Ok(Self { reclaimable: size.saturating_sub(least) }),
            _ => Err("expected lines \"size\" and \"c_min\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cache_shrinks_to_its_minimum() {
        let text = "13 1 0x01 147 39984 5 6\nname                            type data\nhits                            4    1\nc_min                           4    1000\nsize                            4    9000\n";
        assert_eq!(Arcstats::parse(text), Ok(Arcstats { reclaimable: 8_000 }));
        assert!(Arcstats::parse("size 4\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "((size|c_min| 4|[0-9]{1,22}|\\PC|\\n){0,40})") {
            let _ = Arcstats::parse(&text);
        }
    }
}
