//! Which TCP connection gives way to a new one. If its user or address has a full share, or holds
//! the most of all when every place is taken, that is its own connection that has been idle for
//! longest. So nobody can keep the others out, and a client with few connections loses none to one
//! with many.
//!
//! The places are only counted here; the caller closes the connection that gives way.

use std::collections::BTreeMap;

use dogwatch_daemon::bounds::Who;
use dogwatch_dns_core::moment::Moment;

#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// Of these, places of one user or address.
    share: usize,
    taken: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    holder: Who,
    active: Moment,
}

impl Places {
    pub(super) fn new(most: usize, share: usize) -> Self {
        Self { most, share, taken: BTreeMap::new() }
    }

    /// Gives a connection a place. Returns the one that has to give way to it.
    pub(super) fn admit(&mut self, id: u64, holder: Who, now: Moment) -> Option<u64> {
        let victim = self.victim(holder);
        if let Some(victim) = victim {
            self.taken.remove(&victim);
        }
        self.taken.insert(id, Place { holder, active: now });
        victim
    }

    /// A query came, or an answer was written.
    pub(super) fn on_active(&mut self, id: u64, now: Moment) {
        if let Some(place) = self.taken.get_mut(&id) {
            place.active = now;
        }
    }

    pub(super) fn leave(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    /// Whether idle connections should be closed soon.
    pub(super) fn crowded(&self) -> bool {
        self.taken.len() > self.most - self.most / 4
    }

    fn victim(&self, newcomer: Who) -> Option<u64> {
        let mut held: BTreeMap<Who, usize> = BTreeMap::new();
        for place in self.taken.values() {
            *held.entry(place.holder).or_default() += 1;
        }
        let holder = if held.get(&newcomer).is_some_and(|&held| held >= self.share) {
            newcomer
        } else if self.taken.len() >= self.most {
            // The newcomer itself first: it must not gain by asking for more.
            held.into_iter().max_by_key(|&(holder, held)| (held, holder == newcomer))?.0
        } else {
            return None;
        };
        let of_it = self.taken.iter().filter(|(_, place)| place.holder == holder);
        of_it.min_by_key(|(id, place)| (place.active, **id)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn v4(last: u8) -> Who {
        Who::of_address(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn s9_four_hundred_connections_of_one_address_keep_nobody_else_out() {
        let mut places = Places::new(128, 64);
        let victims: Vec<_> = (0..400).filter_map(|id| places.admit(id, v4(1), at(id))).collect();
        assert_eq!(victims, (0..336).collect::<Vec<_>>(), "the longest idle of its own");
        assert_eq!(places.taken.len(), 64, "places are left for others");
        for id in 1_000..1_020 {
            assert_eq!(places.admit(id, v4(2), at(500)), None);
        }
        for id in 2_000..3_000 {
            let victim = places.admit(id, v4(1), at(600)).unwrap();
            assert!(!(1_000..1_020).contains(&victim), "{victim}");
        }
        assert_eq!(places.taken.len(), 84);
    }

    #[test]
    fn s9_two_that_use_up_all_places_keep_nobody_else_out_and_users_are_not_addresses() {
        let mut places = Places::new(128, 64);
        for id in 0..1_000 {
            places.admit(id, if id % 2 == 0 { v4(1) } else { Who::Uid(1_000) }, at(id));
        }
        assert_eq!(places.taken.len(), 128);
        for id in 1_000..1_040 {
            assert!(places.admit(id, Who::Uid(0), at(2_000)).is_some_and(|victim| victim < 1_000));
        }
        for id in 2_000..3_000 {
            let victim = places.admit(id, if id % 2 == 0 { v4(1) } else { Who::Uid(1_000) }, at(3_000));
            assert!(victim.is_some_and(|victim| !(1_000..1_040).contains(&victim)), "{victim:?}");
        }
        assert_eq!(places.taken.len(), 128);
    }

    #[test]
    fn s9_of_the_largest_holder_the_longest_idle_gives_way() {
        let mut places = Places::new(4, 4);
        for (id, peer) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
            assert_eq!(places.admit(id, v4(peer), at(id)), None);
        }
        places.on_active(1, at(10));
        assert_eq!(places.admit(5, v4(3), at(11)), Some(2));
        assert_eq!(places.admit(6, v4(3), at(12)), Some(3));
        assert_eq!(places.admit(7, v4(1), at(13)), Some(5), "now the third address holds the most");
        assert_eq!(places.admit(8, v4(1), at(14)), Some(1), "as many as another: its own gives way");
        places.leave(4);
        assert_eq!(places.admit(9, v4(1), at(15)), None);
    }

    #[test]
    fn it_is_crowded_above_three_quarters() {
        let mut places = Places::new(8, 8);
        (0..6).for_each(|id| _ = places.admit(id, v4(1), at(0)));
        assert!(!places.crowded());
        places.admit(6, v4(1), at(0));
        assert!(places.crowded());
    }
}
