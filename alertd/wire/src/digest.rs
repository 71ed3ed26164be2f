//! One short text that two sides compare instead of all hard states.

use crate::State;

/// Returns 16 hex digits over all services that are not OK or that flap, in any order of input.
///
/// FNV-1a (64 bit) over `name 0x1f state-digit flap-digit 0x1e` of each, names ascending by bytes. OK services that do
/// not flap are left out, so that watching a new healthy service is not a difference.
pub fn digest<'a>(states: impl IntoIterator<Item = (&'a str, State, bool)>) -> String {
    let mut problems: Vec<_> =
        states.into_iter().filter(|&(_, state, flapping)| state != State::Ok || flapping).collect();
    problems.sort_unstable_by_key(|&(name, state, flapping)| (name, state as u8, flapping));
    let bytes = problems.into_iter().flat_map(|(name, state, flapping)| {
        name.bytes().chain([0x1f, b'0' + state as u8, b'0' + u8::from(flapping), 0x1e])
    });
    format!("{:016x}", fnv1a(bytes))
}

/// FNV-1a (64 bit): for ids and digests that other programs compute too, not against anybody who wants a collision.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.into_iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_healthy_services_do_not_count() {
        let a = digest([("disk", State::Critical, false), ("load", State::Ok, false)]);
        let b = digest([("swap", State::Ok, false), ("disk", State::Critical, false)]);
        assert_eq!(a, b);
        assert_ne!(a, digest([]));
    }

    #[test]
    fn a_name_cannot_pose_as_two() {
        let one = digest([("a", State::Warning, false), ("b", State::Warning, false)]);
        assert_ne!(one, digest([("ab", State::Warning, false)]));
        assert_ne!(one, digest([("a", State::Warning, false)]));
    }

    #[test]
    fn flapping_is_part_of_the_truth() {
        assert_ne!(digest([("disk", State::Ok, true)]), digest([]));
    }
}
