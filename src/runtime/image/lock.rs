//! Locks on files of the image store, between threads and between processes.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// What is locked until it is dropped, and no longer: it is unlocked then, not only closed. A process that another thread
/// is starting just now has a copy of every descriptor until it is another program, and a lock lasts to the last copy.
pub(super) type Locked = Flock<File>;

/// Locks a file, which is made where it is missing. None: somebody else has it, and `how` does not wait.
pub(super) fn lock(path: &Path, how: FlockArg) -> io::Result<Option<Locked>> {
    lock_file(File::options().create(true).truncate(false).read(true).write(true).open(path)?, how)
}

/// The same for a file that is open.
pub(super) fn lock_file(file: File, how: FlockArg) -> io::Result<Option<Locked>> {
    match Flock::lock(file, how) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_though_a_copy_of_its_descriptor_is_left() {
        let directory = tempfile::tempdir().expect("make a directory");
        let path = directory.path().join("lock");
        let exclusive = || lock(&path, FlockArg::LockExclusiveNonblock).expect("lock");
        let shared = lock(&path, FlockArg::LockShared).expect("lock").expect("it waits");
        assert!(exclusive().is_none(), "it is in use");
        // As a process that is being started has it.
        let _copy = shared.try_clone().expect("copy");
        drop(shared);
        assert!(exclusive().is_some());
    }
}
