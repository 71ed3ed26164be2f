//! A short digest that agent and alertd compare instead of all hard states.

use std::hash::Hasher as _;

use fnv::FnvHasher;

use crate::State;

/// Returns 16 hex digits computed from all services that are not OK or are flapping. The order of
/// the input does not matter.
///
/// The hash is FNV-1a (64 bit) over `name 0x1f state-digit flap-digit 0x1e` of each service, sorted
/// by the bytes of its name. Other services are left out, so that a new OK service makes no
/// difference.
pub fn digest<'a>(states: impl IntoIterator<Item = (&'a str, State, bool)>) -> String {
    let mut problems: Vec<_> =
        states.into_iter().filter(|&(_, state, flapping)| state != State::Ok || flapping).collect();
    problems.sort_unstable_by_key(|&(name, ..)| name);
    let mut hash = FnvHasher::default();
    for (name, state, flapping) in problems {
        hash.write(name.as_bytes());
        hash.write(&[0x1f, b'0' + state.exit_code(), b'0' + u8::from(flapping), 0x1e]);
    }
    format!("{:016x}", hash.finish())
}

/// FNV-1a (64 bit): for IDs and digests that other programs compute too. It does not resist anybody
/// who wants a collision.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut hash = FnvHasher::default();
    bytes.into_iter().for_each(|byte| hash.write_u8(byte));
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_healthy_services_make_no_difference() {
        let a = digest([("disk", State::Critical, false), ("load", State::Ok, false)]);
        let b = digest([("swap", State::Ok, false), ("disk", State::Critical, false)]);
        assert_eq!(a, b);
        assert_ne!(a, digest([]));
    }

    #[test]
    fn one_name_cannot_be_taken_for_two() {
        let one = digest([("a", State::Warning, false), ("b", State::Warning, false)]);
        assert_ne!(one, digest([("ab", State::Warning, false)]));
        assert_ne!(one, digest([("a", State::Warning, false)]));
    }

    #[test]
    fn the_digest_is_the_same_on_both_sides_of_an_upgrade() {
        let states = [("web", State::Unknown, true), ("disk", State::Critical, false)];
        assert_eq!(digest(states), "ef74bba002efd0c2");
        assert_eq!(digest([]), "cbf29ce484222325");
    }

    #[test]
    fn flapping_makes_a_difference() {
        assert_ne!(digest([("disk", State::Ok, true)]), digest([]));
    }
}
