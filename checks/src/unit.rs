//! Converts performance data into base units (seconds, bytes, ratios, …), so that values of
//! different plugins can be compared.
//!
//! An unknown unit is ignored. The results of plugins have times in seconds and sizes in bytes or
//! bits ([`Perf::with_base_unit`]), like those of our own checks. Other units stay as printed.

use crate::{perfdata::Perf, threshold::scaled};

/// A base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BaseUnit {
    None,
    Seconds,
    Bytes,
    Bits,
    /// 1 is 100 %.
    Ratio,
    /// A counter.
    Counter,
    Celsius,
    Fahrenheit,
    Kelvin,
    Volts,
    /// Also for volt-amperes.
    Watts,
    Amperes,
    AmpereSeconds,
    WattHours,
    Ohms,
    Grams,
    Litres,
    Lumens,
    Candelas,
    Decibel,
    DecibelMilliwatts,
}

impl Perf {
    /// The factor for values in this unit, and the base unit of the result. An unknown unit is
    /// ignored.
    ///
    /// The names are those of Icinga 2 (`lib/base/perfdatavalue.cpp`): `m` is minutes; `c` is a
    /// counter, `C` degrees; `b` is bits, `B` bytes; `K` is kelvin, `KB` a thousand bytes.
    /// Temperatures are not converted.
    pub fn base_unit(&self) -> (f64, BaseUnit) {
        base_unit(&self.unit).unwrap_or((1.0, BaseUnit::None))
    }

    /// The value in its base unit.
    pub fn in_base_units(&self) -> Option<(f64, BaseUnit)> {
        let (factor, unit) = self.base_unit();
        Some((scaled(self.value?, factor), unit))
    }

    /// The same value, limits and bounds in seconds, bytes or bits, if the unit is a multiple of
    /// one of these.
    #[must_use]
    pub fn with_base_unit(mut self) -> Self {
        let (factor, unit) = match self.base_unit() {
            (factor, BaseUnit::Seconds) => (factor, "s"),
            (factor, BaseUnit::Bytes) => (factor, "B"),
            (factor, BaseUnit::Bits) => (factor, "b"),
            _ => return self,
        };
        unit.clone_into(&mut self.unit);
        for range in [&mut self.warn, &mut self.crit].into_iter().flatten() {
            *range = range.scaled(factor);
        }
        for number in [&mut self.value, &mut self.min, &mut self.max].into_iter().flatten() {
            *number = scaled(*number, factor);
        }
        self
    }
}

fn base_unit(unit: &str) -> Option<(f64, BaseUnit)> {
    // The case of these matters.
    let exact = match unit {
        "" => Some((1.0, BaseUnit::None)),
        "%" => Some((0.01, BaseUnit::Ratio)),
        "c" => Some((1.0, BaseUnit::Counter)),
        "C" => Some((1.0, BaseUnit::Celsius)),
        "b" => Some((1.0, BaseUnit::Bits)),
        "B" => Some((1.0, BaseUnit::Bytes)),
        _ => None,
    };
    exact
        .or_else(|| folded(&unit.to_lowercase()))
        .or_else(|| prefixed(unit, "B").map(|factor| (factor, BaseUnit::Bytes)))
        .or_else(|| prefixed(unit, "b").map(|factor| (factor, BaseUnit::Bits)))
        .or_else(|| {
            let lower = unit.to_lowercase();
            SCALED.iter().find_map(|&(name, size, base)| Some((prefixed(&lower, name)? * size, base)))
        })
}

/// Units that take no prefix, in lower case.
fn folded(unit: &str) -> Option<(f64, BaseUnit)> {
    Some(match unit {
        "ns" => (1e-9, BaseUnit::Seconds),
        "us" | "µs" | "μs" => (1e-6, BaseUnit::Seconds),
        "ms" => (1e-3, BaseUnit::Seconds),
        "s" => (1.0, BaseUnit::Seconds),
        "m" => (60.0, BaseUnit::Seconds),
        "h" => (3_600.0, BaseUnit::Seconds),
        "d" => (86_400.0, BaseUnit::Seconds),
        "k" => (1.0, BaseUnit::Kelvin),
        "f" => (1.0, BaseUnit::Fahrenheit),
        "t" => (1e6, BaseUnit::Grams),
        "lm" => (1.0, BaseUnit::Lumens),
        "cd" => (1.0, BaseUnit::Candelas),
        "db" => (1.0, BaseUnit::Decibel),
        "dbm" => (1.0, BaseUnit::DecibelMilliwatts),
        _ => return None,
    })
}

/// Units that take a decimal prefix, in lower case; longer names first.
const SCALED: &[(&str, f64, BaseUnit)] = &[
    ("ah", 3_600.0, BaseUnit::AmpereSeconds),
    ("am", 60.0, BaseUnit::AmpereSeconds),
    ("as", 1.0, BaseUnit::AmpereSeconds),
    ("wh", 1.0, BaseUnit::WattHours),
    ("wm", 1.0 / 60.0, BaseUnit::WattHours),
    ("ws", 1.0 / 3_600.0, BaseUnit::WattHours),
    ("a", 1.0, BaseUnit::Amperes),
    ("v", 1.0, BaseUnit::Volts),
    ("w", 1.0, BaseUnit::Watts),
    ("o", 1.0, BaseUnit::Ohms),
    ("g", 1.0, BaseUnit::Grams),
    ("l", 1.0, BaseUnit::Litres),
];

/// The factor of the prefix before `name`. Binary prefixes (`Ki`) are only for bits and bytes,
/// where the case of the prefix does not matter: plugins print `kB`, `KB`, `gib`.
fn prefixed(unit: &str, name: &str) -> Option<f64> {
    const POWERS: [(&str, i32); 8] =
        [("k", 1), ("m", 2), ("g", 3), ("t", 4), ("p", 5), ("e", 6), ("z", 7), ("y", 8)];
    let prefix = unit.strip_suffix(name)?.to_lowercase();
    let power = |letter: &str| POWERS.iter().find(|(known, _)| *known == letter).map(|(_, power)| *power);
    let information = matches!(name, "B" | "b");
    match prefix.as_str() {
        "" => Some(1.0),
        // A milliampere is more likely than a megaampere, but no plugin means a millibyte.
        "m" if !information => Some(1e-3),
        "u" | "µ" if !information => Some(1e-6),
        "n" if !information => Some(1e-9),
        "h" if !information => Some(100.0),
        letter => match letter.strip_suffix('i').filter(|_| information) {
            Some(letter) => Some(1_024_f64.powi(power(letter)?)),
            None => Some(1_000_f64.powi(power(letter)?)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{perfdata::parse, threshold::Range};

    fn one(text: &str) -> Perf {
        parse(text).items.into_iter().next().unwrap()
    }

    /// Value, unit, warn, crit, min, max, all in base units.
    fn based(text: &str) -> (f64, BaseUnit, String) {
        let perf = one(text);
        let (factor, unit) = perf.base_unit();
        let range = |range: Option<Range>| range.map(|range| range.scaled(factor).to_string());
        let bound = |bound: Option<f64>| bound.map(|bound| (bound * factor).to_string());
        let rest = [range(perf.warn), range(perf.crit), bound(perf.min), bound(perf.max)];
        (perf.value.unwrap() * factor, unit, rest.map(Option::unwrap_or_default).join(";"))
    }

    #[test]
    fn times_and_sizes_are_printed_in_seconds_and_bytes_and_the_rest_stays() {
        for (printed, based) in [
            ("time=1200ms;2000;5000;0", "time=1.2s;2;5;0"),
            ("rta=0.036ms;100;500;0;", "rta=0.000036s;0.1;0.5;0"),
            ("t=36ms;@10:20;~:40", "t=0.036s;@0.01:0.02;~:0.04"),
            ("t=7us", "t=7e-6s"),
            ("/=2643MB;5948;5958;0;5968", "/=2643000000B;5948000000;5958000000;0;5968000000"),
            ("in=2KiB;1:", "in=2048B;1024:"),
            ("t=U;1;2", "t=U;1;2"),
            ("pl=20%;20;60;0;100", "pl=20%;20;60;0;100"),
            ("n=3;1;2", "n=3;1;2"),
            ("n=3c", "n=3c"),
            ("v=12mV;1;2", "v=12mV;1;2"),
            ("x=2foobar", "x=2foobar"),
        ] {
            let perf = one(printed).with_base_unit();
            assert_eq!(perf.to_string(), based);
            assert_eq!(perf.clone().with_base_unit(), perf, "once is enough");
        }
    }

    /// From Icinga's tests (`test/icinga-perfdata.cpp`).
    #[test]
    fn units_are_the_same_as_in_icinga() {
        use BaseUnit as U;
        let cases = [
            ("test=1000ms;200;500", 1.0, U::Seconds, "0.2;0.5;;"),
            ("testA=2m;3;4;1;5", 120.0, U::Seconds, "180;240;60;300"),
            ("t=2h", 7_200.0, U::Seconds, ";;;"),
            ("t=1d", 86_400.0, U::Seconds, ";;;"),
            ("t=100us", 1e-4, U::Seconds, ";;;"),
            ("test=42c", 42.0, U::Counter, ";;;"),
            ("test=1C", 1.0, U::Celsius, ";;;"),
            ("test=1K", 1.0, U::Kelvin, ";;;"),
            ("test=1F", 1.0, U::Fahrenheit, ";;;"),
            ("test=1TO", 1e12, U::Ohms, ";;;"),
            ("test=1dBm", 1.0, U::DecibelMilliwatts, ";;;"),
            ("test=1t", 1e6, U::Grams, ";;;"),
            ("test=1hl", 100.0, U::Litres, ";;;"),
            ("test=1kAm", 60_000.0, U::AmpereSeconds, ";;;"),
            ("test=1EWh", 1e18, U::WattHours, ";;;"),
            ("test=1KB", 1_000.0, U::Bytes, ";;;"),
            ("test=1KiB", 1_024.0, U::Bytes, ";;;"),
            ("test=2MiB", 2_097_152.0, U::Bytes, ";;;"),
            ("test=1gib", 1_073_741_824.0, U::Bits, ";;;"),
            ("test=50%;80;90", 0.5, U::Ratio, "0.8;0.9;;"),
            ("test=2foobar", 2.0, U::None, ";;;"),
            ("test=1mA", 1e-3, U::Amperes, ";;;"),
            ("test=+1.5E-15EB", 1_500.0, U::Bytes, ";;;"),
            ("test=23.", 23.0, U::None, ";;;"),
            ("test=.42", 0.42, U::None, ";;;"),
            ("test=1.1E-1", 0.11, U::None, ";;;"),
            ("a=1;;7;1;9", 1.0, U::None, ";7;1;9"),
        ];
        for (text, value, unit, rest) in cases {
            let (got, got_unit, got_rest) = based(text);
            assert!((got - value).abs() <= value.abs() * 1e-9, "{text}: {got}");
            assert_eq!((got_unit, got_rest.as_str()), (unit, rest), "{text}");
        }
    }
}
