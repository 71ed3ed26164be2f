//! Compares the names of kernels.

use std::cmp::Ordering;

/// Whether `other` is a later version of `running` of the same flavour: `6.1.0-30-amd64` for
/// `6.1.0-28-amd64`, but not `6.1.0-30-cloud-amd64`.
pub(super) fn is_newer(other: &str, running: &str) -> bool {
    let is_release = other.starts_with(|c: char| c.is_ascii_digit());
    is_release && flavour(other) == flavour(running) && compare(other, running) == Ordering::Greater
}

/// The parts at the end that start with a letter, and what follows a last `+` (`+rt`, `+debug`).
fn flavour(release: &str) -> (&str, &str) {
    let mut at = release.len();
    for (dash, _) in release.rmatch_indices('-') {
        if !release[dash + 1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            break;
        }
        at = dash;
    }
    let last = release.rsplit('-').next().unwrap_or(release);
    (&release[at..], last.split_once('+').map_or("", |(_, suffix)| suffix))
}

/// Numbers by their value, other text as text.
fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (parts(one), parts(other));
    for (a, b) in one.iter().zip(&other) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    one.len().cmp(&other.len())
}

fn parts(release: &str) -> Vec<&str> {
    let of_a_kind = |a: u8, b: u8| a.is_ascii_digit() == b.is_ascii_digit();
    let bytes = release.as_bytes();
    bytes.chunk_by(|&a, &b| of_a_kind(a, b)).filter_map(|part| str::from_utf8(part).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_newer_than_an_older_one_of_its_flavour() {
        for (other, running) in [
            ("6.1.0-30-amd64", "6.1.0-9-amd64"),
            ("6.12.57+deb13-amd64", "6.1.0-41-amd64"),
            ("6.1.0-0.deb11.21-amd64", "6.1.0-0.deb11.7-amd64"),
            ("5.15.0-105-generic", "5.15.0-91-generic"),
            ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-362.8.1.el9_3.x86_64"),
            ("6.9.2-arch1-1", "6.9.1-arch1-2"),
            ("6.8.12-4-pve", "6.8.12-1-pve"),
        ] {
            assert!(is_newer(other, running), "{other} {running}");
            assert!(!is_newer(running, other), "{running} {other}");
            assert!(!is_newer(running, running));
        }
        for (other, running) in [
            ("6.1.0-30-cloud-amd64", "6.1.0-28-amd64"),
            ("6.8.0-31-lowlatency", "6.8.0-30-generic"),
            ("6.1.0-30-amd64", "6.0.9-x86_64-linode160"),
            ("5.14.0-427.el9.x86_64+rt", "5.14.0-362.el9.x86_64"),
            ("6.18.0-rc1", "6.18.0"),
            ("", "6.1"),
            ("é-ü", "6.1.0-é"),
        ] {
            assert!(!is_newer(other, running), "{other} {running}");
        }
    }
}
