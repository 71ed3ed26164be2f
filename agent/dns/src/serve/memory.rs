//! Makes glibc return unused memory to the system.
//!
//! By default, glibc raises the size above which a block gets its own mapping (and is returned when
//! freed) to the size of the largest block freed so far (mallopt(3), `M_MMAP_THRESHOLD`). After one
//! merge of a large snapshot, its buffers would come from the heap and stay there. glibc also keeps
//! several heaps for threads, each with its own holes. Cache hits allocate nothing, so a single
//! heap causes no contention.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt(3) has no safe wrapper"))]

/// Does nothing with other C libraries. Call it before starting threads.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        // Larger than any buffer of a query, smaller than the buffers of a snapshot.
        const MAPPED_FROM: i32 = 256 << 10;
        for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, 1)] {
            // SAFETY: sets a number. If it fails, memory use is the default.
            unsafe { libc::mallopt(option, value) };
        }
    }
}
