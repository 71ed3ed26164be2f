//! Storage for the bytes of cache entries, in slots of matching length, without an allocation per
//! entry.
//!
//! A general allocator adds eight bytes to each block, rounds it up to sixteen, and cannot return a
//! page while one block on it is in use. Here, blocks of similar length (steps of [`STEP`] bytes)
//! share pieces of [`PIECE`] or [`SMALL`] blocks, and an empty piece is freed. Entries evicted
//! together were usually added together, so after a flood of names of one length the memory is
//! available to names of another. Blocks longer than [`SHORT_MAX`] go to the allocator, where the
//! overhead no longer matters.

/// Identifies a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block(u32);

impl Block {
    /// The block of an empty entry.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// Cannot overflow: a shard has one block per entry, and [`super::Slot`] has no more bits than
    /// this.
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
/// Most blocks in a piece: the number of bits in [`Piece::free`].
const PIECE: usize = u64::BITS as usize;
/// Blocks in each of the first pieces of a kind. A small cache has one of nearly every kind …
const SMALL: usize = 16;
/// … and the number of these small pieces. Later ones are longer than anything else allocated while
/// a query is handled, so short-lived allocations do not end up between pieces and fragment the
/// heap.
const SMALL_PIECES: usize = 32;

/// Memory used by a block of `len` bytes, including its share of the bookkeeping.
pub(super) fn cost(len: usize) -> usize {
    // The lists may just have doubled, and the allocator adds its overhead to each piece.
    const SHARE: usize = 2 * size_of::<Piece>() / SMALL + 1;
    const LONG_SHARE: usize = 2 * size_of::<Box<[u8]>>() + 16;
    if kind_of(len) == LONG { len + LONG_SHARE } else { len.next_multiple_of(STEP) + SHARE }
}

/// The kind whose blocks are one allocation each.
const LONG: usize = 0;

fn kind_of(len: usize) -> usize {
    if len <= SHORT_MAX { len.div_ceil(STEP).max(1) } else { LONG }
}

#[derive(Default)]
pub(super) struct Blocks {
    long: Long,
    /// By kind, from one; as many as have been needed so far.
    short: Vec<Short>,
}

#[derive(Default)]
struct Long {
    blocks: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

/// Blocks of one kind.
#[derive(Default)]
struct Short {
    pieces: Vec<Piece>,
    /// Pieces with free places, and some that were freed since; each listed once
    /// ([`Piece::listed`]).
    open: Vec<u32>,
    /// Freed pieces.
    gone: Vec<u32>,
}

#[derive(Default)]
struct Piece {
    /// Empty once the piece is freed.
    bytes: Box<[u8]>,
    /// One bit per block, set if it is free.
    free: u64,
    /// Whether it is in [`Short::open`].
    listed: bool,
}

impl Short {
    /// Returns a free place in a piece whose blocks are `len` bytes long.
    fn take(&mut self, len: usize) -> usize {
        loop {
            let Some(&number) = self.open.last() else { return self.begin_piece(len) };
            let piece = &mut self.pieces[number as usize];
            if piece.free == 0 || piece.bytes.is_empty() {
                piece.listed = false;
                self.open.pop();
                continue;
            }
            let place = piece.free.trailing_zeros();
            piece.free &= piece.free - 1;
            return number as usize * PIECE + place as usize;
        }
    }

    fn begin_piece(&mut self, len: usize) -> usize {
        let number = self.gone.pop().unwrap_or_else(|| {
            self.pieces.push(Piece::default());
            u32::try_from(self.pieces.len() - 1).unwrap_or(u32::MAX)
        });
        let blocks = if self.pieces.len() - self.gone.len() <= SMALL_PIECES { SMALL } else { PIECE };
        let piece = &mut self.pieces[number as usize];
        piece.bytes = vec![0; blocks * len].into();
        piece.free = all(blocks) & !1;
        self.list(number);
        number as usize * PIECE
    }

    fn list(&mut self, number: u32) {
        if !std::mem::replace(&mut self.pieces[number as usize].listed, true) {
            self.open.push(number);
        }
    }

    /// `len` is the block length of this kind.
    fn give_back(&mut self, place: usize, len: usize) {
        let Ok(number) = u32::try_from(place / PIECE) else { return };
        let Some(piece) = self.pieces.get_mut(number as usize) else { return };
        piece.free |= 1 << (place % PIECE);
        if piece.free == all(piece.bytes.len() / len) {
            piece.bytes = Box::default();
            self.gone.push(number);
        } else {
            self.list(number);
        }
    }
}

/// A mask with `blocks` bits set.
fn all(blocks: usize) -> u64 {
    u64::MAX >> (PIECE - blocks.clamp(1, PIECE))
}

impl Blocks {
    /// Stores a copy of these bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Block {
        let kind = kind_of(bytes.len());
        if kind == LONG {
            let place = self.long.free.pop().map_or(self.long.blocks.len(), |place| place as usize);
            match self.long.blocks.get_mut(place) {
                Some(free) => *free = bytes.into(),
                None => self.long.blocks.push(bytes.into()),
            }
            return Block::new(kind, place);
        }
        if self.short.len() < kind {
            self.short.resize_with(kind, Short::default);
        }
        let block = Block::new(kind, self.short[kind - 1].take(STEP * kind));
        self.write(block, bytes);
        block
    }

    /// Replaces the bytes of a block, which may move it.
    pub(super) fn replace(&mut self, block: Block, bytes: &[u8]) -> Block {
        if block.kind() != LONG && kind_of(bytes.len()) == block.kind() {
            self.write(block, bytes);
            return block;
        }
        self.give_back(block);
        self.add(bytes)
    }

    /// `bytes` must be of this block's kind, which is a short one.
    fn write(&mut self, block: Block, bytes: &[u8]) {
        let (kind, place) = (block.kind(), block.place());
        let start = place % PIECE * STEP * kind;
        self.short[kind - 1].pieces[place / PIECE].bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn give_back(&mut self, block: Block) {
        if block.kind() != LONG {
            if let Some(short) = self.short.get_mut(block.kind() - 1) {
                short.give_back(block.place(), STEP * block.kind());
            }
        } else if let Some(long) = self.long.blocks.get_mut(block.place()) {
            *long = Box::default();
            self.long.free.extend(u32::try_from(block.place()));
        }
    }

    /// The first `len` bytes of a block; empty if it is shorter.
    pub(super) fn get(&self, block: Block, len: usize) -> &[u8] {
        let (kind, place) = (block.kind(), block.place());
        let found = if kind == LONG {
            self.long.blocks.get(place).and_then(|long| long.get(..len))
        } else {
            let start = place % PIECE * STEP * kind;
            let piece = self.short.get(kind - 1).and_then(|short| short.pieces.get(place / PIECE));
            piece.and_then(|piece| piece.bytes.get(start..start + len))
        };
        found.unwrap_or_default()
    }

    /// Bytes allocated for blocks, used or free.
    #[cfg(test)]
    fn allocated(&self) -> usize {
        let short = self.short.iter().flat_map(|short| &short.pieces).map(|piece| piece.bytes.len());
        short.chain(self.long.blocks.iter().map(|long| long.len())).sum()
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
    fn a_freed_place_is_reused() {
        let mut blocks = Blocks::default();
        let kept = blocks.add(&bytes(60, 1));
        let first = blocks.add(&bytes(60, 2));
        blocks.give_back(first);
        let second = blocks.add(&bytes(58, 3));
        assert_eq!(first, second);
        assert_eq!(blocks.replace(second, &bytes(64, 4)), second);
        assert_eq!((blocks.get(second, 64), blocks.get(kept, 60)), (&*bytes(64, 4), &*bytes(60, 1)));
    }

    /// A server under someone else's control sends answers of every length, one length after the
    /// other.
    #[test]
    fn memory_freed_by_one_length_is_available_to_another() {
        let mut blocks = Blocks::default();
        let mut kept = std::collections::VecDeque::new();
        let mut most = 0;
        for len in (20..500).chain([2_000]) {
            for _ in 0..200 {
                kept.push_back((blocks.add(&bytes(len, 1)), len));
                if kept.len() > 1_000 {
                    blocks.give_back(kept.pop_front().unwrap().0);
                }
                let live: usize = kept.iter().map(|(_, len)| len).sum();
                // Each kind in use may have one nearly empty piece.
                assert!(
                    blocks.allocated() <= live * 5 / 4 + 12 * SMALL * SHORT_MAX,
                    "{live}: {}",
                    blocks.allocated()
                );
                most = most.max(blocks.allocated());
            }
        }
        kept.drain(..).for_each(|(block, _)| blocks.give_back(block));
        assert_eq!(blocks.allocated(), 0, "everything is freed, after {most} bytes");
    }

    proptest! {
        /// After any sequence of add, replace and free, each block has the bytes last written to
        /// it.
        #[test]
        fn each_block_keeps_its_bytes(
            steps in proptest::collection::vec((0..4_u8, 0..30_usize, 0..1_500_usize, any::<u8>()), 0..400),
        ) {
            let mut blocks = Blocks::default();
            let mut kept: Vec<(Block, Vec<u8>)> = Vec::new();
            for (step, at, len, seed) in steps {
                // Most are short, like real answers.
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
                prop_assert!(blocks.short.iter().all(|short| short.open.len() <= short.pieces.len()));
            }
        }
    }
}
