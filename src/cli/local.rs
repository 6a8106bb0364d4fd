//! What a verb needs of this host without a server. `assemble` provides it.

use std::path::Path;

use async_trait::async_trait;

use crate::model::SourceSpec;
use crate::sync::source::Tree;

/// A preview, both ways it can be printed, and what to exit with.
#[derive(Debug, Clone)]
pub struct Previewed {
    pub text: String,
    pub json: serde_json::Value,
    /// 0 no change, 1 changes, 2 refused.
    pub exit_code: u8,
}

/// What a directory holds, or the preview of what a source will not take whatever its manifests say.
pub enum Read {
    Tree(Tree),
    Refused(Previewed),
}

/// Host-side helpers of the client verbs.
#[async_trait]
pub trait Local: Sync {
    /// The manifest files of a directory, as the source it stands for would read them: of a repository's clone those
    /// below the path that the source reads.
    async fn read_tree(&self, name: &str, directory: &Path, source: Option<&SourceSpec>) -> anyhow::Result<Read>;

    /// What a commit of this directory would do to the cluster of the snapshot file (none: an empty one).
    async fn preview_offline(&self, source: &str, directory: &Path, snapshot: Option<&Path>, adopt: bool) -> anyhow::Result<Previewed>;

    /// The text of a preview that the server computed.
    fn preview_text(&self, preview: &serde_json::Value) -> anyhow::Result<Previewed>;

    /// What each controller waits for, from a snapshot as `GET /podbay/v1/snapshot` gives it:
    /// (subject as `Deployment web/a`, reason).
    fn waits(&self, snapshot: &[u8]) -> anyhow::Result<Vec<(String, String)>>;
}
