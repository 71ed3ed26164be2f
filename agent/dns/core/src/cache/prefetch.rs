//! Tells the CPU what will be read soon. With a batch of queries at hand, their entries come from memory side by side
//! instead of one after the other, which is most of what a cached answer costs above the kernel's part.
#![expect(unsafe_code, reason = "the intrinsic takes a raw pointer")]

use std::ptr;

/// Two cache lines: what is longer, the CPU's own prefetcher sees coming.
const REACH: usize = 128;

/// A hint, for a value's first bytes. Does nothing on other CPUs.
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = ptr::from_ref(value).cast::<i8>();
        let last = size_of_val(value).clamp(1, REACH) - 1;
        // SAFETY: both addresses lie in a value that is borrowed here (the first one may be just past an empty one). A
        // prefetch reads nothing and never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.add(last));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (ptr::from_ref(value), REACH);
}
