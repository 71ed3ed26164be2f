//! Parses `/proc/diskstats` (Documentation/admin-guide/iostats.rst).

use super::Source;

/// The counters of all block devices, in the kernel's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diskstats(pub(crate) Vec<Counters>);

/// The counters of one device. Times are in milliseconds and wrap after 49 days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) name: String,
    pub(crate) reads: u64,
    /// Of 512 bytes, whatever the device has.
    pub(crate) sectors_read: u64,
    pub(crate) reading_ms: u64,
    pub(crate) writes: u64,
    pub(crate) sectors_written: u64,
    pub(crate) writing_ms: u64,
    /// With at least one request in flight.
    pub(crate) busy_ms: u64,
    /// The same, for each request in flight.
    pub(crate) queued_ms: u64,
}

impl Source for Diskstats {
    const PATH: &'static str = "/proc/diskstats";

    /// A line of another format is skipped: old kernels had short ones for partitions.
    fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(Self(text.lines().filter_map(parse_line).collect()))
    }
}

fn parse_line(line: &str) -> Option<Counters> {
    let mut fields = line.split_whitespace().skip(2);
    let name = fields.next()?.to_owned();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let [reads, _, sectors_read, reading_ms] = [next()?, next()?, next()?, next()?];
    let [writes, _, sectors_written, writing_ms] = [next()?, next()?, next()?, next()?];
    let [_in_flight, busy_ms, queued_ms] = [next()?, next()?, next()?];
    Some(Counters {
        name,
        reads,
        sectors_read,
        reading_ms,
        writes,
        sectors_written,
        writing_ms,
        busy_ms,
        queued_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_old_and_new_kernels_are_parsed() {
        // Linux 2.6, 4.18 and 5.5 have more and more fields; the second line is from
        // elastic/beats#30480.
        let text = "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n \
            259       1 nvme0n1 4700929 42585 2373217865 7745755 154543530 1871494743 60129413264 1170508978 0 148907668 935043132 66469 0 1313221176 140219\n \
            8       1 sda1 10 20 30 40\n\nnonsense\n";
        let Diskstats(disks) = Diskstats::parse(text).unwrap();
        assert_eq!(disks.len(), 2);
        assert_eq!((disks[0].reads, disks[0].busy_ms, disks[0].queued_ms), (1, 10, 11));
        assert_eq!((disks[1].name.as_str(), disks[1].writing_ms), ("nvme0n1", 1_170_508_978));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|[0-9]{1,22}| |\\n|sda){0,60}") {
            prop_assert!(Diskstats::parse(&text).is_ok());
        }
    }
}
