//! Where manifests come from. SEAM.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::model::SourceSpec;

/// A place that can be read as a whole at one revision.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Reads the manifests at the newest revision.
    async fn fetch(&self) -> Fetched;

    /// Returns when something may have changed since the last call; never, where that cannot be
    /// known. Cancel-safe.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Opens the place that a Source object names.
pub trait OpenSource: Send + Sync {
    /// # Errors
    /// A sentence: the spec cannot be opened as it is.
    fn open(&self, name: &str, spec: &SourceSpec) -> Result<Arc<dyn Fetch>, String>;
}

/// What came of a look. Unreachable is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    Tree(Tree),
    /// The place was reached, and what it holds is not taken, whatever its manifests say: a file is too large, a name
    /// is none. The last good revision stays.
    Refused {
        /// Commit id; a directory that is not read whole has no revision.
        revision: Option<String>,
        why: String,
    },
    /// Nothing is known, in a sentence: the last good revision stays.
    Unreachable(String),
}

impl Fetched {
    /// What was read, where it has an id.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Tree(tree) => Some(&tree.revision),
            Self::Refused { revision, .. } => revision.as_deref(),
            Self::Unreachable(_) => None,
        }
    }
}

/// The manifest files of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Commit id, or `sha256:…` over the directory's manifest files.
    pub revision: String,
    /// For people: a commit's subject line; empty for a directory.
    pub subject: String,
    /// Manifest files only (`*.yaml *.yml *.json *.toml`, not hidden, not ignored), by path relative
    /// to the source's path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The source's path exists in this revision. False: everything would be pruned, so it needs approval.
    pub path_exists: bool,
    /// What was left out, loudly: a submodule, a link that ends at no file of the tree.
    pub notes: Vec<String>,
}
