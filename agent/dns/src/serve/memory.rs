//! Asks the allocator to give back what is no longer used.
//!
//! Left to itself glibc moves the size from which a block is mapped on its own, and so given back when freed, up to that of the
//! largest block freed so far (mallopt(3), `M_MMAP_THRESHOLD`): after one merge of a large snapshot its buffers would come from
//! the heap, and stay there. And it keeps a heap for each thread, each with holes of its own. What answers from the cache
//! allocates nothing, so nobody waits for the one heap that is left.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt(3) has no safe wrapper"))]

/// Does nothing with another C library. To be called before there are threads.
pub(crate) fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        // Larger than any buffer of a query, smaller than those of a snapshot.
        const MAPPED_FROM: i32 = 256 << 10;
        for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, 1)] {
            // SAFETY: sets a number. If it is refused, memory is as large as it was before.
            unsafe { libc::mallopt(option, value) };
        }
    }
}
