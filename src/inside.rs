//! What is inside a directory, found by the kernel: no link and no `..` on its way leads out (openat2(2)).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// Tries before it fails after all: only who mounts or renames all the time, on purpose, makes so many fail in a row.
const TRIES: u32 = 128;

/// Opens a path as `resolve` says: `IN_ROOT` or `BENEATH`. Where there is a `..` on the way, also in a link, the kernel
/// cannot be sure of it while anything is mounted or renamed on this host, and says EAGAIN: it is asked again.
///
/// # Errors
/// As openat2(2).
pub fn open(directory: impl AsFd, path: impl Arg + Copy, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    for _ in 1..TRIES {
        match openat2(&directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    openat2(&directory, path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_is_renamed_elsewhere_meanwhile_hinders_nobody() {
        let (inside, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(inside.path().join("a")).unwrap();
        let names = [elsewhere.path().join("one"), elsewhere.path().join("two")];
        fs::write(&names[0], "").unwrap();
        let directory = fs::File::open(inside.path()).unwrap();
        let path = ["a/.."; 40].join("/");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(&names[0], &names[1]).unwrap();
                    fs::rename(&names[1], &names[0]).unwrap();
                }
            });
            let opened = (0..2000).map(|_| open(&directory, path.as_str(), OFlags::PATH, ResolveFlags::IN_ROOT).map(drop));
            let opened: Vec<_> = opened.filter(Result::is_err).collect();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(opened, []);
        });
    }
}
