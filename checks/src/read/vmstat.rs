//! `/proc/vmstat`: counters of the memory management since boot.

use super::Source;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vmstat {
    /// Pages read from swap.
    pub(crate) swapped_in: Option<u64>,
    /// Pages written to swap.
    pub(crate) swapped_out: Option<u64>,
    /// Page faults that had to wait for a disk.
    pub(crate) major_faults: Option<u64>,
    /// Processes killed for lack of memory, on the host or in a cgroup. Since Linux 4.13.
    pub(crate) oom_kills: Option<u64>,
}

impl Source for Vmstat {
    const PATH: &'static str = "/proc/vmstat";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut vmstat = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let counter = match name {
                "pswpin" => &mut vmstat.swapped_in,
                "pswpout" => &mut vmstat.swapped_out,
                "pgmajfault" => &mut vmstat.major_faults,
                "oom_kill" => &mut vmstat.oom_kills,
                _ => continue,
            };
            *counter = value.trim().parse().ok();
        }
        Ok(vmstat)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counters_that_the_kernel_lacks_are_missing() {
        let vmstat = Vmstat::parse("nr_free_pages 12\npswpin 1\npswpout 2\npgmajfault 82987\noom_kill 4\n");
        let all = [Some(1), Some(2), Some(82_987), Some(4)];
        let [swapped_in, swapped_out, major_faults, oom_kills] = all;
        assert_eq!(vmstat, Ok(Vmstat { swapped_in, swapped_out, major_faults, oom_kills }));
        assert_eq!(Vmstat::parse("pgmajfault many\n"), Ok(Vmstat::default()));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "((pswpin|oom_kill| |[0-9]{1,22}|\\PC|\\n){0,40})") {
            let _ = Vmstat::parse(&text);
        }
    }
}
