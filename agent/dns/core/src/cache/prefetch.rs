//! Tells the CPU which memory will be read soon. For a batch of queries, the cache entries are then
//! fetched in parallel instead of one by one; these fetches are most of the cost of a cached answer
//! outside the kernel.
#![expect(unsafe_code, reason = "the intrinsic takes a raw pointer")]

use std::ptr;

/// Two cache lines: for longer values, the CPU's own prefetcher takes over.
const REACH: usize = 128;

/// Prefetches the first bytes of a value. A hint only; does nothing on CPUs other than x86-64.
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = ptr::from_ref(value).cast::<i8>();
        let last = size_of_val(value).clamp(1, REACH) - 1;
        // SAFETY: both addresses lie in a value that is borrowed here (the first one may be just
        // past an empty one). A prefetch reads nothing and never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.add(last));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (ptr::from_ref(value), REACH);
}
