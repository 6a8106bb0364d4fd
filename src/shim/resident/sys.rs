//! What of a quiet process stays in memory. Shared by both programs.
#![allow(unsafe_code)]

use nix::libc;

/// Gives memory back that a quiet process does not need: free heap (malloc_trim(3)), and pages of the program's own
/// code, which come back from the page cache when they are used. The code goes last: what runs after it is what stays.
/// Any thread may call it at any time.
pub fn give_memory_back() {
    // SAFETY: only returns free memory to the kernel.
    unsafe { libc::malloc_trim(0) };
    for (start, length) in code() {
        // SAFETY: a private mapping of code, never modified and never unmapped: what is dropped is read again unchanged.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Executable mappings of files, as (address, bytes): the program's text, and its libraries' where it has some.
fn code() -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((number(start)?, number(end)?.checked_sub(number(start)?)?))
    };
    maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')).filter_map(range).collect()
}
