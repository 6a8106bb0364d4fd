//! Wakes a directory's reader when the kernel says that something changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::RecommendedWatcher;
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::Notify;

/// Quiet time after the last event.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often the debouncer looks at its queue, events or not: no oftener than it has to, because an idle daemon does nothing else.
const TICK: Duration = DEBOUNCE;

pub(super) struct Wake {
    changed: Arc<Notify>,
    /// Watches as long as it lives. Absent where the kernel has no watches left: the periodic look
    /// finds everything a little later.
    _watcher: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
}

impl Wake {
    pub fn new(root: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let watcher = new_debouncer(DEBOUNCE, Some(TICK), move |result: DebounceEventResult| {
            // Reading a file is an event, too: our own looks must not wake us.
            let real = result.map_or(true, |events| events.iter().any(|event| !event.kind.is_access()));
            if real {
                told.notify_one();
            }
        })
        .and_then(|mut watcher| watcher.watch(root, notify::RecursiveMode::Recursive).map(|()| watcher))
        .inspect_err(|error| tracing::warn!(directory = %root.display(), %error, "cannot watch the directory, looking periodically only"))
        .ok();
        Self { changed, _watcher: watcher }
    }

    pub async fn wait(&self) {
        self.changed.notified().await;
    }
}
