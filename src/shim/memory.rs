//! A text as a file that is nowhere. Shared by both programs.

use std::io::{self, Seek as _, Write as _};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// To be read from its beginning: nobody who reads it slowly, or not at all, is waited for.
pub fn file_of(text: &str) -> io::Result<std::fs::File> {
    let new = |more| memfd_create("podbay-text", MemfdFlags::CLOEXEC | more);
    // Hosts may forbid files in memory that could be executed; kernels before 6.3 know no others.
    let made = match new(MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => new(MemfdFlags::empty()),
        made => made,
    };
    let mut file = std::fs::File::from(made?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
