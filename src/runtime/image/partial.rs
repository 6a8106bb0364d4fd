//! A blob that is still coming: its file grows while another thread reads it, and what there is of it
//! serves the next attempt, in this process or the next.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::fcntl::FlockArg;
use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::lock::{Locked, lock, lock_file};
use super::reference::Digest;

/// The writing end. Only one at a time has it, over all processes.
pub(super) struct Partial {
    file: Arc<Locked>,
    path: PathBuf,
    hash: Sha256,
    growth: Arc<Growth>,
    /// What was there from an earlier attempt, which nobody has verified.
    inherited: u64,
}

#[derive(Default)]
struct Growth {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    written: u64,
    end: Option<Result<(), String>>,
}

impl Growth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    /// Opens or makes the file; `None` while somebody else fetches the same blob. Reads what is there.
    pub fn open(path: &Path, size: u64) -> Result<Option<Self>, ImageError> {
        let fail = || ImageError::io(format!("open {}", path.display()));
        let file = loop {
            let locked = lock(path, FlockArg::LockExclusiveNonblock).map_err(ImageError::io(format!("lock {}", path.display())))?;
            let Some(file) = locked else { return Ok(None) };
            // Whoever had it before may have finished and removed it.
            if file.metadata().map_err(fail())?.nlink() > 0 {
                break file;
            }
        };
        let mut there = file.metadata().map_err(fail())?.len();
        if there > size {
            file.set_len(0).map_err(fail())?;
            there = 0;
        }
        let mut partial =
            Self { file: Arc::new(file), path: path.to_owned(), hash: Sha256::new(), growth: Arc::default(), inherited: there };
        partial.rehash(there).map_err(fail())?;
        partial.growth.lock().written = there;
        Ok(Some(partial))
    }

    fn rehash(&mut self, length: u64) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while at < length {
            let want = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.file.read_at(&mut buffer[..want], at)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hash.update(&buffer[..count]);
            at += count as u64;
        }
        Ok(())
    }

    pub fn written(&self) -> u64 {
        self.growth.lock().written
    }

    pub fn inherited(&self) -> bool {
        self.inherited > 0
    }

    /// Appends; a page cache write of at most a few 10 KiB.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let written = self.written();
        self.file.write_all_at(bytes, written).map_err(ImageError::io(format!("write {}", self.path.display())))?;
        self.hash.update(bytes);
        self.growth.lock().written = written + bytes.len() as u64;
        self.growth.grown.notify_all();
        Ok(())
    }

    /// Says that it is whole, if it is what it should be.
    pub fn finish(&mut self, what: &str, expected: &Digest) -> Result<(), ImageError> {
        let actual = Digest::of_hash(std::mem::take(&mut self.hash));
        if actual != *expected {
            let error = ImageError::Digest { what: what.to_owned(), expected: expected.clone(), actual };
            self.end(Err(error.to_string()));
            return Err(error);
        }
        self.end(Ok(()));
        Ok(())
    }

    /// Tells readers that nothing more comes.
    pub fn fail(&self, cause: &ImageError) {
        self.end(Err(cause.to_string()));
    }

    fn end(&self, end: Result<(), String>) {
        self.growth.lock().end.get_or_insert(end);
        self.growth.grown.notify_all();
    }

    /// Another reader from the beginning.
    pub fn reader(&self) -> Growing {
        Growing { file: self.file.clone(), growth: self.growth.clone(), at: 0 }
    }

    /// What it held is used up, or worth nothing.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.end(Err("the download was given up".to_owned()));
    }
}

/// Reads what is there and waits for what is not, to the end of the download.
pub(super) struct Growing {
    file: Arc<Locked>,
    growth: Arc<Growth>,
    at: u64,
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.growth.lock();
        while state.written <= self.at && state.end.is_none() {
            state = self.growth.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (written, end) = (state.written, state.end.clone());
        drop(state);
        if let Some(Err(cause)) = end {
            return Err(io::Error::other(cause));
        }
        let want = usize::try_from(written.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Whether nobody is at work on a leftover: then it is locked, and may be removed while this lives.
pub(super) fn abandoned(path: &Path) -> Option<Locked> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    lock_file(file, FlockArg::LockExclusiveNonblock).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, size: u64) -> Partial {
        Partial::open(path, size).expect("open").expect("nobody else has it")
    }

    #[test]
    fn a_reader_sees_what_is_written_and_the_end() {
        let directory = tempfile::tempdir().expect("make a directory");
        let path = directory.path().join("blob");
        let content = vec![7; 100_000];
        let mut partial = open(&path, 100_000);
        let mut reader = partial.reader();
        let read = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        content.chunks(999).for_each(|chunk| partial.append(chunk).expect("append"));
        partial.finish("blob", &Digest::of(&content)).expect("whole");
        assert!(read.join().expect("no panic").expect("whole") == content);
    }

    #[test]
    fn the_next_attempt_goes_on_and_a_false_beginning_is_noticed() {
        let directory = tempfile::tempdir().expect("make a directory");
        let path = directory.path().join("blob");
        let mut first = open(&path, 6);
        first.append(b"abc").expect("append");
        let mut reader = first.reader();
        drop(first);
        assert!(reader.read(&mut [0; 9]).is_err(), "what was given up is no content");
        // It shares the lock.
        drop(reader);
        let mut second = open(&path, 6);
        assert_eq!((second.written(), second.inherited()), (3, true));
        second.append(b"def").expect("append");
        second.finish("blob", &Digest::of(b"abcdef")).expect("whole");
        drop(second);
        let mut third = open(&path, 6);
        assert!(matches!(third.finish("blob", &Digest::of(b"abcdeg")), Err(ImageError::Digest { .. })));
        drop(third);
        assert_eq!(open(&path, 5).written(), 0, "longer than it can be");
    }

    #[test]
    fn one_at_a_time_and_never_a_removed_file() {
        let directory = tempfile::tempdir().expect("make a directory");
        let path = directory.path().join("blob");
        let first = open(&path, 6);
        assert!(abandoned(&path).is_none());
        assert!(Partial::open(&path, 6).expect("open").is_none(), "the first has it");
        first.remove();
        let second = open(&path, 6);
        assert_eq!(second.written(), 0);
        drop(first);
        assert!(path.exists(), "the second made its own");
        drop(second);
        assert!(abandoned(&path).is_some());
    }
}
