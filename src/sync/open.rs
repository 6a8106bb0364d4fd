//! Opens what a Source object names: a directory or a git repository.

use std::sync::Arc;

use super::dir::Directory;
use super::git::{Git, Options};
use super::source::{Fetch, OpenSource};
use crate::model::SourceSpec;

/// The real places.
#[derive(Clone, Debug)]
pub struct Places {
    pub git: Options,
}

impl OpenSource for Places {
    fn open(&self, name: &str, spec: &SourceSpec) -> Result<Arc<dyn Fetch>, String> {
        let path = spec.path.as_deref().unwrap_or_default();
        if path.split('/').any(|part| part == "..") {
            return Err(format!("path `{}` leads out of the source", path.escape_debug()));
        }
        match (&spec.directory, &spec.git) {
            (Some(directory), None) if directory.starts_with('/') => Ok(Arc::new(Directory::new(directory, path))),
            (Some(directory), None) => Err(format!("directory `{}` is not an absolute path", directory.escape_debug())),
            (None, Some(git)) => Ok(Arc::new(Git::new(name, git, path, self.git.clone())?)),
            (Some(_), Some(_)) => Err("a source has a directory or a git repository, not both".to_owned()),
            (None, None) => Err("a source needs a directory or a git repository".to_owned()),
        }
    }
}
