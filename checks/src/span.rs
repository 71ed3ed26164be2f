//! Time spans for people: `42 s`, `12 min`, `5 h`, `3 days`.

use std::time::Duration;

/// Rounded down to one unit, which is small enough that its number is at least 2.
pub(crate) fn human(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "days"), (3_600, "h"), (60, "min")];
    match units.iter().find(|(length, _)| seconds >= 2 * length) {
        Some((length, unit)) => format!("{} {unit}", seconds / length),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_printed_in_one_unit() {
        let printed = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, 86_400 * 400]
            .map(|seconds| human(Duration::from_secs(seconds)));
        assert_eq!(printed, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days", "400 days"]);
    }
}
