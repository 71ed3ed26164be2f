//! Random numbers. Everything an attacker must guess to forge an answer (RFC 5452 §9.2) comes from
//! ChaCha20, keyed by the shell from the kernel.
//!
//! Whoever sees some outputs (an upstream of one zone sees the ids and the letters of its queries)
//! learns nothing about the others. Ids, letters and jitter are different streams of the cipher, so
//! that the number of draws of one does not show in another. Source ports are the kernel's: each
//! query has a new socket, whose port Linux draws from its own ChaCha (`get_random_u32`).

use std::hash::RandomState;

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// The randomness a resolver runs on. The shell draws it; the core has no source of its own.
#[derive(Clone)]
pub struct Seeds {
    /// The cipher's key. 32 bytes from the kernel, used for nothing else.
    pub key: [u8; 32],
    /// Keys of the cache's hash function. They must be secret, or clients could choose names that
    /// collide.
    pub hash_keys: RandomState,
}

impl Seeds {
    /// For tests and drills, which must be repeatable.
    pub fn repeatable(seed: u64, hash_keys: RandomState) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self { key, hash_keys }
    }
}

/// What the resolver draws from. 64 words are computed at a time.
pub(crate) struct Random {
    ids: ChaCha20Rng,
    letters: ChaCha20Rng,
    jitter: ChaCha20Rng,
}

impl Random {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        let stream = |number| {
            let mut stream = ChaCha20Rng::from_seed(key);
            stream.set_stream(number);
            stream
        };
        Self { ids: stream(1), letters: stream(2), jitter: stream(3) }
    }

    /// The id of a query.
    pub(crate) fn id(&mut self) -> u16 {
        let [a, b, ..] = self.ids.next_u32().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The case of a query's letters.
    pub(crate) fn letters(&mut self) -> u64 {
        self.letters.next_u64()
    }

    /// From 0.0 to below 1.0.
    pub(crate) fn jitter(&mut self) -> f64 {
        f64::from(self.jitter.next_u32()) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids and letters of `count` queries.
    fn drawn(key: [u8; 32], count: usize) -> Vec<u64> {
        let mut random = Random::new(key);
        (0..count).flat_map(|_| [u64::from(random.id()), random.letters()]).collect()
    }

    /// S4: the outputs are the keystream of RFC 8439 (with a 64-bit counter), and of no other
    /// generator.
    #[test]
    fn ids_and_letters_are_the_keystream_of_chacha20() {
        let key = [7; 32];
        let word = |stream: u64, place: usize| {
            let block = chacha20_block(key, (place / 16) as u64, stream);
            block[place % 16]
        };
        let mut random = Random::new(key);
        for place in 0..100 {
            assert_eq!(u32::from(random.id()), word(1, place) & 0xffff, "{place}");
        }
        for place in 0..100 {
            let expected = u64::from(word(2, 2 * place)) | u64::from(word(2, 2 * place + 1)) << 32;
            assert_eq!(random.letters(), expected, "{place}");
        }
    }

    /// S4: six queries were enough to compute the state of the old generator. For this one no
    /// output is a linear function of the bits of earlier ones, as it is for every xorshift and
    /// linear congruential generator.
    #[test]
    fn no_output_follows_from_earlier_ones() {
        let mut random = Random::new([9; 32]);
        let ids: Vec<u16> = (0..4_096).map(|_| random.id()).collect();
        // Each bit of an id as a sum (mod 2) of the 64 bits of the four ids before it: the system
        // of 4,000 equations with 65 unknowns has no solution.
        for bit in 0..16 {
            let rows = ids.windows(5).map(|window| {
                let known = window[..4].iter().fold(1_u128, |row, id| row << 16 | u128::from(*id));
                known << 1 | u128::from(window[4] >> bit & 1)
            });
            assert!(!solvable(rows.collect()), "bit {bit} follows from the four ids before it");
        }
        // As an affine function modulo 2^16 of the one before it.
        let affine = (0..=u16::MAX).any(|factor| {
            let step = |pair: &[u16]| pair[1].wrapping_sub(pair[0].wrapping_mul(factor));
            ids.windows(2).map(step).take(8).collect::<std::collections::BTreeSet<_>>().len() == 1
        });
        assert!(!affine);
    }

    #[test]
    fn what_is_drawn_depends_on_the_key_alone_and_streams_are_apart() {
        assert_eq!(drawn([1; 32], 50), drawn([1; 32], 50));
        assert_ne!(drawn([1; 32], 50), drawn([2; 32], 50));
        let (mut one, mut other) = (Random::new([3; 32]), Random::new([3; 32]));
        (0..1_000).for_each(|_| _ = one.letters());
        (0..1_000).for_each(|_| _ = one.jitter());
        assert_eq!(one.id(), other.id());
        assert!((0..10_000).map(|_| other.jitter()).all(|jitter| (0.0..1.0).contains(&jitter)));
    }

    /// One block of ChaCha20 as in RFC 8439 §2.3, with the original 64-bit counter and nonce.
    fn chacha20_block(key: [u8; 32], counter: u64, stream: u64) -> [u32; 16] {
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).unwrap();
        let mut start = [0_u32; 16];
        start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in start[4..12].iter_mut().zip(key.chunks(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        start[12..].copy_from_slice(&[low(counter), low(counter >> 32), low(stream), low(stream >> 32)]);
        let mut state = start;
        let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
            for (turn, other) in [(16, 12), (8, 7)] {
                state[a] = state[a].wrapping_add(state[b]);
                state[d] = (state[d] ^ state[a]).rotate_left(turn);
                state[c] = state[c].wrapping_add(state[d]);
                state[b] = (state[b] ^ state[c]).rotate_left(other);
            }
        };
        for _ in 0..10 {
            (0..4).for_each(|column| quarter(column, 4 + column, 8 + column, 12 + column));
            (0..4).for_each(|column| {
                quarter(column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4);
            });
        }
        std::array::from_fn(|place| state[place].wrapping_add(start[place]))
    }

    /// Whether these equations over bits have a solution; the lowest bit is the right-hand side.
    fn solvable(rows: Vec<u128>) -> bool {
        let mut pivots: Vec<u128> = Vec::new();
        for mut row in rows {
            for pivot in &pivots {
                row = row.min(row ^ pivot);
            }
            if row == 1 {
                return false;
            }
            if row != 0 {
                pivots.push(row);
                pivots.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        true
    }
}
