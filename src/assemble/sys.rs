//! The daemon's memory, where the C library has to be asked.
#![allow(unsafe_code)]

use nix::libc;

/// Gives free memory of the heap back to the kernel, all of it that makes whole pages (malloc_trim(3)).
pub fn give_heap_back() {
    // SAFETY: only returns free memory to the kernel; any thread may call it at any time.
    unsafe { libc::malloc_trim(0) };
}
