//! A directory of manifests on the server's host.
//!
//! Looked at when `notify` says so and at the loop's interval, since inotify loses events. Taken
//! only when two looks in a row are equal: an editor or an rsync in the middle is not a revision. A
//! directory that vanished, or lies on another mount than at first, is unreachable, never empty; one beyond a bound is
//! refused. What is mounted anew and holds what was taken last is the same again.
//!
//! - `walk`: one look
//! - `wake`: the watcher

mod wake;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::select::{Limits, TreeError, digest};
use super::source::{Fetch, Fetched, Tree};
use wake::Wake;
use walk::{Identity, Look, LookError};

/// Looks before a directory that never holds still is called unreachable.
const LOOKS: usize = 20;

/// A directory source.
pub struct Directory {
    root: PathBuf,
    /// Below the root; empty for the root itself.
    path: String,
    limits: Limits,
    is_work_tree: bool,
    /// Between two looks that must be equal.
    pause: Duration,
    known: Mutex<Known>,
    wake: Arc<Wake>,
}

#[derive(Default)]
struct Known {
    /// The mount of the first look; in memory only: after a restart of the host or of the server it is another.
    identity: Option<Identity>,
    /// What was returned last: one equal look is enough then.
    revision: Option<String>,
}

impl Directory {
    pub fn new(root: impl Into<PathBuf>, path: &str) -> Self {
        let root = root.into();
        let wake = Arc::new(Wake::new(&root));
        let path = path.trim_matches('/').to_owned();
        let pause = Duration::from_millis(60);
        Self { root, path, limits: Limits::default(), is_work_tree: false, pause, known: Mutex::default(), wake }
    }

    /// A repository's work tree: to be read as a commit of it will be, without submodules. A directory that is a
    /// source itself has no such thing: clones below it are directories like others.
    pub fn as_work_tree(mut self) -> Self {
        self.is_work_tree = true;
        self
    }

    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    async fn look(&self) -> Result<Result<Tree, TreeError>, String> {
        let (root, path, limits, is_work_tree) = (self.root.clone(), self.path.clone(), self.limits, self.is_work_tree);
        let look = tokio::task::spawn_blocking(move || walk::look(&root, &path, limits, is_work_tree)).await;
        let Look { identity, tree } = look.map_err(|error| error.to_string())?.map_err(|error: LookError| error.to_string())?;
        let tree = tree.map(|tree| Tree { revision: digest(&tree), ..tree });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *known.identity.get_or_insert(identity);
        if first != identity {
            let is_the_same = tree.as_ref().is_ok_and(|tree| known.revision.as_ref() == Some(&tree.revision));
            if !(is_the_same && identity.is_mounted_again(first)) {
                let root = self.root.display();
                return Err(format!("{root} is on another mount than before: a restart of the server takes it as it is now"));
            }
            known.identity = Some(identity);
        }
        Ok(tree)
    }

    /// What came of looks that were equal.
    fn taken(&self, seen: Result<Tree, TreeError>) -> Fetched {
        match seen {
            Ok(tree) => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).revision = Some(tree.revision.clone());
                Fetched::Tree(tree)
            }
            Err(why) => Fetched::Refused { revision: None, why: why.to_string() },
        }
    }

    fn is_known(&self, tree: &Tree) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.revision.as_ref() == Some(&tree.revision)
    }
}

#[async_trait]
impl Fetch for Directory {
    async fn fetch(&self) -> Fetched {
        let wake = Arc::clone(&self.wake);
        if let Err(error) = tokio::task::spawn_blocking(move || wake.keep()).await {
            return Fetched::Unreachable(error.to_string());
        }
        let mut last: Option<Result<Tree, TreeError>> = None;
        for _ in 0..LOOKS {
            let seen = match self.look().await {
                Ok(seen) => seen,
                Err(why) => return Fetched::Unreachable(why),
            };
            if seen.as_ref().is_ok_and(|tree| self.is_known(tree)) || last.as_ref() == Some(&seen) {
                return self.taken(seen);
            }
            last = Some(seen);
            tokio::time::sleep(self.pause).await;
        }
        Fetched::Unreachable(format!("{} does not hold still: no two looks were equal", self.root.display()))
    }

    async fn changed(&self) {
        self.wake.wait().await;
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod like_git_tests;
