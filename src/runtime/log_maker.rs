//! Makes a container's log before it starts: whoever hears of the start looks for it. What hinders its writer, which makes
//! what is missing, is the writer's to deal with, and a disk that hangs holds nobody up for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::log_file;
use super::wire::LogFile;

/// A start waits so long for the disk of its log.
const PATIENCE: Duration = Duration::from_secs(1);

/// One thread at the most for each directory of logs: where a disk hangs there is no more than that.
#[derive(Clone, Debug)]
pub(super) struct LogMaker {
    patience: Duration,
    busy: Arc<Busy>,
}

/// The directories that a thread is at, and since when.
#[derive(Debug, Default)]
struct Busy {
    directories: Mutex<BTreeMap<String, Instant>>,
    freed: Condvar,
}

impl Default for LogMaker {
    fn default() -> Self {
        Self { patience: PATIENCE, busy: Arc::default() }
    }
}

impl LogMaker {
    pub fn make(&self, place: &LogFile) {
        let wanted = place.clone();
        self.at(&place.directory, move || drop(log_file::open(&wanted)));
    }

    fn at(&self, directory: &str, make: impl FnOnce() + Send + 'static) {
        let Some(turn) = self.turn(directory) else { return };
        let (sender, made) = mpsc::channel::<()>();
        let work = move || {
            make();
            drop((turn, sender));
        };
        if std::thread::Builder::new().name("log".into()).spawn(work).is_ok() {
            // The sender's end is what is waited for.
            made.recv_timeout(self.patience).ok();
        }
    }

    /// None: the one before hangs.
    fn turn(&self, directory: &str) -> Option<Turn> {
        let mut directories = self.busy.lock();
        while let Some(since) = directories.get(directory) {
            let left = self.patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
            directories = self.busy.freed.wait_timeout(directories, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        directories.insert(directory.to_owned(), Instant::now());
        Some(Turn { busy: self.busy.clone(), directory: directory.to_owned() })
    }
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody else is at that directory while this lives.
struct Turn {
    busy: Arc<Busy>,
    directory: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.directory);
        self.busy.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn maker(patience: Duration) -> LogMaker {
        LogMaker { patience, busy: Arc::default() }
    }

    #[test]
    fn a_disk_that_hangs_keeps_one_thread_and_no_more() {
        let all = maker(Duration::from_millis(20));
        let (free, freed) = mpsc::channel::<()>();
        all.at("a", move || {
            freed.recv().ok();
        });
        let made = Arc::new(AtomicUsize::new(0));
        let count = |directory: &str| {
            let made = made.clone();
            all.at(directory, move || {
                made.fetch_add(1, Ordering::SeqCst);
            });
        };
        (0..5).for_each(|_| count("a"));
        assert_eq!(all.busy.lock().len(), 1);
        drop(free);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !all.busy.lock().is_empty() {
            assert!(Instant::now() < deadline, "it is never free again");
            std::thread::yield_now();
        }
        assert_eq!(made.load(Ordering::SeqCst), 0, "nobody makes what nobody waits for");
        // Only now with patience: each is made before its start goes on.
        let all = LogMaker { patience: Duration::from_secs(60), ..all };
        let (made, other) = (made.clone(), made);
        all.at("a", move || {
            made.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(other.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_comes_while_another_is_at_it_waits_and_other_directories_do_not() {
        let all = maker(Duration::from_secs(60));
        let (free, freed) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let start = |directory: &'static str, name: &'static str| {
            let (all, tell) = (all.clone(), tell.clone());
            std::thread::spawn(move || all.at(directory, move || tell.send(name).unwrap_or_default()))
        };
        let (first_all, first_tell) = (all.clone(), tell.clone());
        let first = std::thread::spawn(move || {
            first_all.at("a", move || {
                first_tell.send("begun").unwrap_or_default();
                freed.recv().ok();
                first_tell.send("first").unwrap_or_default();
            });
        });
        assert_eq!(told.recv(), Ok("begun"));
        let second = start("a", "second");
        start("b", "other").join().unwrap();
        assert_eq!(told.recv(), Ok("other"));
        drop(free);
        for start in [first, second] {
            start.join().unwrap();
        }
        assert_eq!([told.recv(), told.recv()], [Ok("first"), Ok("second")]);
    }
}
