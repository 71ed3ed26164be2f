//! `/proc/pressure/` (PSI): the share of time in which tasks waited for a resource.
//!
//! Kernels before 4.20 do not have it. If the distribution has it off by default (Raspberry Pi,
//! CentOS), the directory is missing or reading fails with "operation not supported".

use super::Source;

/// The pressure on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pressure {
    /// At least one task waited.
    pub(crate) some: Stalled,
    /// All tasks waited that were not idle. For `cpu`, kernels have it since 5.13, and it is 0.
    pub(crate) full: Option<Stalled>,
}

/// Averages, in percent of the time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Stalled {
    pub(crate) over_60_s: f64,
    pub(crate) over_300_s: f64,
}

pub(crate) struct CpuPressure(pub(crate) Pressure);
pub(crate) struct MemoryPressure(pub(crate) Pressure);
pub(crate) struct IoPressure(pub(crate) Pressure);

impl Source for CpuPressure {
    const PATH: &'static str = "/proc/pressure/cpu";

    fn parse(text: &str) -> Result<Self, &'static str> {
        parse(text).map(Self)
    }
}

impl Source for MemoryPressure {
    const PATH: &'static str = "/proc/pressure/memory";

    fn parse(text: &str) -> Result<Self, &'static str> {
        parse(text).map(Self)
    }
}

impl Source for IoPressure {
    const PATH: &'static str = "/proc/pressure/io";

    fn parse(text: &str) -> Result<Self, &'static str> {
        parse(text).map(Self)
    }
}

fn parse(text: &str) -> Result<Pressure, &'static str> {
    let line = |name| text.lines().find_map(|line| stalled(line.strip_prefix(name)?.strip_prefix(' ')?));
    let some = line("some").ok_or("expected a line \"some avg10=… avg60=… avg300=…\"")?;
    Ok(Pressure { some, full: line("full") })
}

fn stalled(fields: &str) -> Option<Stalled> {
    let average = |name: &str| {
        let text = fields.split_ascii_whitespace().find_map(|field| field.strip_prefix(name))?;
        text.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))
    };
    Some(Stalled { over_60_s: average("avg60=")?, over_300_s: average("avg300=")? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_lines_are_parsed() {
        let full = "full avg10=0.00 avg60=0.91 avg300=0.15 total=24960080\n";
        let some = "some avg10=0.40 avg60=1.11 avg300=0.69 total=163014507\n";
        let stalled = |over_60_s, over_300_s| Stalled { over_60_s, over_300_s };
        assert_eq!(
            parse(&format!("{some}{full}")),
            Ok(Pressure { some: stalled(1.11, 0.69), full: Some(stalled(0.91, 0.15)) })
        );
        assert_eq!(parse(some), Ok(Pressure { some: stalled(1.11, 0.69), full: None }), "cpu before 5.13");
        for wrong in ["", full, "some", "some avg10=1 avg60=x avg300=1", "some avg60=nan avg300=1"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "((some|full|avg60=|avg300=| |[0-9.]{1,9}|\\PC|\\n){0,30})") {
            let _ = parse(&text);
        }
    }
}
