//! Bytes of entries, in places as long as they are: no allocator between us and a hundred thousand small blocks.
//!
//! An allocator adds eight bytes to each block, rounds it up to sixteen, and cannot give back a page on which one of them
//! lives on. Here blocks of like length (steps of [`STEP`] bytes) share pieces of [`PIECE`], and a place that is given back is the
//! next to be taken. What is longer than [`SHORT_MAX`] is left to the allocator, for which it is long enough.

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block(u32);

impl Block {
    /// Of an entry that is none.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// Each entry of a shard has one block, and [`super::Slot`] has no more bits for a place than are left here.
    fn new(kind: usize, place: usize) -> Self {
        Self(u32::try_from(place << KIND_BITS | kind).unwrap_or(u32::MAX))
    }

    fn kind(self) -> usize {
        (self.0 % (1 << KIND_BITS)) as usize
    }

    fn place(self) -> usize {
        (self.0 >> KIND_BITS) as usize
    }
}

const STEP: usize = 8;
const KIND_BITS: u32 = 6;
const SHORT_MAX: usize = STEP * ((1 << KIND_BITS) - 1);
const PIECE: usize = 16;

/// Memory that a block of `len` bytes takes, with its share of what leads to it.
pub(super) fn cost(len: usize) -> usize {
    // A pointer and a length to a piece, in a list that may just have doubled; the allocator's own with each piece.
    const SHARE: usize = 2 * 16 / PIECE + 1;
    const LONG_SHARE: usize = 2 * 16 + 16;
    if kind_of(len) == LONG { len + LONG_SHARE } else { len.next_multiple_of(STEP) + SHARE }
}

/// The kind of blocks that are an allocation each.
const LONG: usize = 0;

fn kind_of(len: usize) -> usize {
    if len <= SHORT_MAX { len.div_ceil(STEP).max(1) } else { LONG }
}

#[derive(Default)]
pub(super) struct Blocks {
    long: Long,
    /// By kind, from one; as many as were needed so far.
    short: Vec<Short>,
}

/// Blocks of one kind: each piece has [`PIECE`] of them.
#[derive(Default)]
struct Short {
    pieces: Vec<Box<[u8]>>,
    places: Places,
}

#[derive(Default)]
struct Long {
    blocks: Vec<Box<[u8]>>,
    places: Places,
}

/// Which places are free: those behind `used`, and those that were given back.
#[derive(Default)]
struct Places {
    used: usize,
    back: Vec<u32>,
}

impl Places {
    fn take(&mut self) -> usize {
        if let Some(place) = self.back.pop() {
            return place as usize;
        }
        self.used += 1;
        self.used - 1
    }

    fn give_back(&mut self, place: usize) {
        self.back.extend(u32::try_from(place));
        // A flood that is over gives its memory back.
        if self.back.len() < self.back.capacity() / 4 {
            self.back.shrink_to(self.back.len() * 2);
        }
    }
}

impl Blocks {
    /// Keeps a copy of these bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Block {
        let kind = kind_of(bytes.len());
        if kind == LONG {
            let place = self.long.places.take();
            match self.long.blocks.get_mut(place) {
                Some(free) => *free = bytes.into(),
                None => self.long.blocks.push(bytes.into()),
            }
            return Block::new(kind, place);
        }
        if self.short.len() < kind {
            self.short.resize_with(kind, Short::default);
        }
        let short = &mut self.short[kind - 1];
        let place = short.places.take();
        if place / PIECE == short.pieces.len() {
            short.pieces.push(vec![0; PIECE * STEP * kind].into());
        }
        let start = place % PIECE * STEP * kind;
        short.pieces[place / PIECE][start..start + bytes.len()].copy_from_slice(bytes);
        Block::new(kind, place)
    }

    /// Puts other bytes in the place of a block, which may move.
    pub(super) fn replace(&mut self, block: Block, bytes: &[u8]) -> Block {
        self.give_back(block);
        // The place that was given back last is taken first: a block of the same kind stays.
        self.add(bytes)
    }

    pub(super) fn give_back(&mut self, block: Block) {
        if block.kind() == LONG {
            if let Some(long) = self.long.blocks.get_mut(block.place()) {
                *long = Box::default();
                self.long.places.give_back(block.place());
            }
        } else if let Some(short) = self.short.get_mut(block.kind() - 1) {
            short.places.give_back(block.place());
        }
    }

    /// The first `len` bytes of a block; fewer if it never had as many.
    pub(super) fn get(&self, block: Block, len: usize) -> &[u8] {
        let (kind, place) = (block.kind(), block.place());
        let found = if kind == LONG {
            self.long.blocks.get(place).and_then(|long| long.get(..len))
        } else {
            let start = place % PIECE * STEP * kind;
            let piece = self.short.get(kind - 1).and_then(|short| short.pieces.get(place / PIECE));
            piece.and_then(|piece| piece.get(start..start + len))
        };
        found.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed)).collect()
    }

    #[test]
    fn a_place_that_is_given_back_is_taken_again() {
        let mut blocks = Blocks::default();
        let kept = blocks.add(&bytes(60, 1));
        let first = blocks.add(&bytes(60, 2));
        blocks.give_back(first);
        let second = blocks.add(&bytes(58, 3));
        assert_eq!(first, second);
        assert_eq!(blocks.replace(second, &bytes(64, 4)), second);
        assert_eq!((blocks.get(second, 64), blocks.get(kept, 60)), (&*bytes(64, 4), &*bytes(60, 1)));
    }

    proptest! {
        /// Whatever is added, changed and given back: each block has the bytes that it was given last.
        #[test]
        fn each_block_keeps_its_bytes(
            steps in proptest::collection::vec((0..4_u8, 0..30_usize, 0..1_500_usize, any::<u8>()), 0..400),
        ) {
            let mut blocks = Blocks::default();
            let mut kept: Vec<(Block, Vec<u8>)> = Vec::new();
            for (step, at, len, seed) in steps {
                // Most are short, as answers are.
                let new = bytes(if step == 0 { len } else { len % 120 }, seed);
                if step == 3 && !kept.is_empty() {
                    let (block, _) = kept.swap_remove(at % kept.len());
                    blocks.give_back(block);
                } else if step == 2 && !kept.is_empty() {
                    let at = at % kept.len();
                    kept[at] = (blocks.replace(kept[at].0, &new), new);
                } else {
                    kept.push((blocks.add(&new), new));
                }
                for (block, bytes) in &kept {
                    prop_assert_eq!(blocks.get(*block, bytes.len()), &**bytes);
                }
            }
        }
    }
}
