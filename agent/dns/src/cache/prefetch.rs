//! Tells the CPU which memory will be read soon. With a batch of queries, their entries are then
//! fetched in parallel instead of one after the other, which is most of the cost of a cached answer
//! outside the kernel.
#![expect(unsafe_code, reason = "the intrinsic takes a raw pointer")]

use std::ptr;

/// Two cache lines; the CPU's own prefetcher handles anything longer.
const REACH: usize = 128;

/// A hint for the first bytes of a value. Does nothing on other CPUs.
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = ptr::from_ref(value).cast::<i8>();
        let last = size_of_val(value).clamp(1, REACH) - 1;
        // SAFETY: both addresses are inside a value that is borrowed here (or just past an empty
        // one). A prefetch reads nothing and never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.add(last));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (ptr::from_ref(value), REACH);
}
