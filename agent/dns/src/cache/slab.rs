//! A vector in small pieces: it grows without moving what it holds, and without ever being twice its size.

use std::ops::{Index, IndexMut};

const PIECE: u32 = 32;

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

    /// Makes room for one more; returns its place.
    pub(super) fn grow(&mut self) -> u32 {
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push((0..PIECE).map(|_| T::default()).collect());
        }
        self.len += 1;
        self.len - 1
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.pieces.get((place / PIECE) as usize)?.get((place % PIECE) as usize)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.pieces.get_mut((place / PIECE) as usize)?.get_mut((place % PIECE) as usize)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.pieces[(place / PIECE) as usize][(place % PIECE) as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.pieces[(place / PIECE) as usize][(place % PIECE) as usize]
    }
}
