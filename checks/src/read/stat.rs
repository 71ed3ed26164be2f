//! `/proc/stat` (proc_stat(5)): how the processors spent their time since boot.

use super::Source;

/// Counters since boot, of all processors together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    /// Ticks in each of the [`MODES`]. Time of virtual machines (`guest`) is part of `user` and
    /// `nice`. `iowait` and, in virtual machines, `steal` can go back.
    pub(crate) ticks: [u64; MODES.len()],
    /// Number of processors that are online.
    pub(crate) processors: usize,
    pub(crate) context_switches: Option<u64>,
    pub(crate) forks: Option<u64>,
}

pub(crate) const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

impl Source for Stat {
    const PATH: &'static str = "/proc/stat";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut stat = Self::default();
        let mut has_ticks = false;
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let Some(name) = fields.next() else { continue };
            let mut numbers = fields.map_while(|field| field.parse().ok());
            match name {
                "cpu" => {
                    let before = stat.ticks;
                    // A short line is that of an old kernel: the modes it lacks stay 0.
                    stat.ticks.iter_mut().zip(&mut numbers).for_each(|(mode, ticks)| *mode = ticks);
                    has_ticks = stat.ticks != before;
                }
                "ctxt" => stat.context_switches = numbers.next(),
                "processes" => stat.forks = numbers.next(),
                _ if is_processor(name) => stat.processors += 1,
                _ => {}
            }
        }
        if has_ticks { Ok(stat) } else { Err("expected a line \"cpu\" with numbers") }
    }
}

fn is_processor(name: &str) -> bool {
    name.strip_prefix("cpu")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lines_of_all_kernels_are_parsed() {
        let stat = Stat::parse(
            "cpu  1644563 597943 260469 195141 4033 0 7225 1268 3 4\n\
             cpu0 827897 293774 121048 108050 1270 0 2550 661 0 0\n\
             cpu3 816666 304169 139421 87090 2763 0 4675 607 0 0\n\
             intr 14 0 0\nctxt 105\nbtime 1700000000\nprocesses 25060\nprocs_running 2\n",
        );
        let stat = stat.unwrap();
        assert_eq!(stat.ticks, [1_644_563, 597_943, 260_469, 195_141, 4_033, 0, 7_225, 1_268]);
        assert_eq!((stat.processors, stat.context_switches, stat.forks), (2, Some(105), Some(25_060)));
        let old = Stat::parse("cpu 1 2 3 4\n").unwrap();
        assert_eq!(old.ticks, [1, 2, 3, 4, 0, 0, 0, 0]);
        assert!(Stat::parse("").is_err());
        assert!(Stat::parse("cpu\ncpu0 1 2 3\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "((cpu|ctxt|processes|cpu1| |[0-9]{1,25}|\\PC|\\n){0,40})") {
            let _ = Stat::parse(&text);
        }
    }
}
