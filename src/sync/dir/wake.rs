//! Wakes a directory's reader when the kernel says that something changed.
//!
//! The kernel watches what lies at a path, not the path: where the directory was replaced, what came in its place is to
//! be watched anew; where there is none yet, what it will come into is.

use std::fs::symlink_metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::Notify;

/// Quiet time after the last event.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often the debouncer looks at its queue, events or not: no oftener than it has to, because an idle daemon does nothing else.
const TICK: Duration = DEBOUNCE;
/// What is there may change while it is being watched: after so many times the next look goes on.
const TRIES: usize = 4;

type Watcher = Debouncer<RecommendedWatcher, RecommendedCache>;

pub(super) struct Wake {
    root: PathBuf,
    heard: Arc<Heard>,
    watching: Mutex<Watching>,
}

/// What the kernel told.
#[derive(Default)]
struct Heard {
    changed: Notify,
    /// Something befell the root itself, or what is above it.
    moved: AtomicBool,
}

#[derive(Default)]
struct Watching {
    at: Option<At>,
    /// Watches as long as it lives. Absent where the kernel has no watches left: the periodic look
    /// finds everything a little later, and tries again.
    watcher: Option<Watcher>,
    /// Told already.
    failed: bool,
}

/// What is watched.
#[derive(PartialEq, Eq)]
struct At {
    /// The root, or the nearest directory above it that is there.
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The root is a link: what it leads to is watched, and where it lies.
    is_link: bool,
}

impl Wake {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), heard: Arc::default(), watching: Mutex::default() }
    }

    /// Watches what is at the root now, unless it does so already: before each look, so that what changes after it wakes.
    pub fn keep(&self) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let moved = self.heard.moved.swap(false, Ordering::SeqCst);
            let at = At::nearest(&self.root);
            if !moved && watching.watcher.is_some() && watching.at == at {
                return;
            }
            // The old one first: there are only so many watches.
            watching.watcher = None;
            let watched = at.as_ref().map(|at| self.watch(at)).transpose();
            let failed = watched.as_ref().err().filter(|_| !watching.failed);
            if let Some(error) = failed {
                tracing::warn!(directory = %self.root.display(), %error, "cannot watch the directory, looking periodically only");
            }
            watching.failed = watched.is_err();
            (watching.at, watching.watcher) = (at, watched.unwrap_or_default());
            if watching.watcher.is_none() {
                return;
            }
        }
    }

    fn watch(&self, at: &At) -> notify::Result<Watcher> {
        let (heard, root) = (Arc::clone(&self.heard), self.root.clone());
        let mut watcher = new_debouncer(DEBOUNCE, Some(TICK), move |result: DebounceEventResult| heard.take(&root, &result))?;
        let mode = if at.path == self.root { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        watcher.watch(&at.path, mode)?;
        if let Some(above) = at.path.parent().filter(|_| at.is_link) {
            watcher.watch(above, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    pub async fn wait(&self) {
        self.heard.changed.notified().await;
    }
}

impl Heard {
    fn take(&self, root: &Path, result: &DebounceEventResult) {
        // Reading a file is an event, too: our own looks must not wake us.
        let real = |event: &&DebouncedEvent| !event.kind.is_access();
        let (mut moved, mut inside) = (false, false);
        match result {
            Ok(events) => {
                for event in events.iter().filter(real) {
                    moved |= event.paths.iter().any(|path| root.starts_with(path));
                    // One that names nothing says that others were lost.
                    inside |= event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(root));
                }
            }
            Err(_) => inside = true,
        }
        if moved {
            self.moved.store(true, Ordering::SeqCst);
        }
        if moved || inside {
            self.changed.notify_one();
        }
    }
}

impl At {
    /// The root, or what is nearest to it.
    fn nearest(root: &Path) -> Option<Self> {
        let is_link = symlink_metadata(root).is_ok_and(|found| found.is_symlink());
        root.ancestors().find_map(|path| {
            let found = path.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            let is_link = is_link && path == root;
            Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), is_link })
        })
    }
}
