//! A vector in pieces: it grows without moving its items and never needs twice its size.
//!
//! The first pieces are small, for a cache with few names. Later ones are longer than anything else
//! allocated while a query is handled, so that short-lived allocations and pieces do not fragment
//! each other's memory.

use std::ops::{Index, IndexMut};

const SMALL: u32 = 32;
const LARGE: u32 = 256;
/// The number of small pieces.
const SMALL_PIECES: u32 = 32;

/// The piece, and the offset within it.
fn parts(place: u32) -> (usize, usize) {
    let (piece, offset) = match place.checked_sub(SMALL * SMALL_PIECES) {
        None => (place / SMALL, place % SMALL),
        Some(behind) => (SMALL_PIECES + behind / LARGE, behind % LARGE),
    };
    (piece as usize, offset as usize)
}

pub(super) struct Slab<T> {
    pieces: Vec<Box<[T]>>,
    len: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T: Default> Slab<T> {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Adds an item and returns its place.
    pub(super) fn grow(&mut self) -> u32 {
        let (piece, _) = parts(self.len);
        if piece == self.pieces.len() {
            let len = if self.pieces.len() < SMALL_PIECES as usize { SMALL } else { LARGE };
            self.pieces.push((0..len).map(|_| T::default()).collect());
        }
        self.len += 1;
        self.len - 1
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        let (piece, offset) = parts(place);
        self.pieces.get(piece)?.get(offset)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        let (piece, offset) = parts(place);
        self.pieces.get_mut(piece)?.get_mut(offset)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        let (piece, offset) = parts(place);
        &self.pieces[piece][offset]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        let (piece, offset) = parts(place);
        &mut self.pieces[piece][offset]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_keeps_its_item() {
        let mut slab = Slab::default();
        for number in 0..5_000_u32 {
            assert_eq!(slab.grow(), number);
            slab[number] = number;
        }
        assert!((0..5_000).all(|number| slab[number] == number && slab.get(number) == Some(&number)));
        let pieces = (SMALL_PIECES + (5_000 - SMALL * SMALL_PIECES).div_ceil(LARGE)) as usize;
        assert_eq!((slab.len(), slab.pieces.len()), (5_000, pieces));
    }
}
