//! Opens what a Source object names: a directory or a git repository.
//!
//! A place that is open is opened by nobody a second time: a preview asks the worker's own, which
//! knows on which mount a directory lay at first. Only one fetch at a time touches a source's clone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;

use super::dir::Directory;
use super::git::{Git, Options};
use super::source::{Fetch, Fetched, OpenSource};
use crate::model::{GitSource, SourceSpec};

/// The real places.
pub struct Places {
    git: Options,
    open: Mutex<BTreeMap<String, Open>>,
}

/// What of a spec says where the manifests are.
type Where = (Option<String>, Option<GitSource>, Option<String>);

/// The place of one source.
#[derive(Default)]
struct Open {
    at: Where,
    place: Option<Weak<dyn Fetch>>,
    /// Whose turn it is: kept over changes of the spec, as the clone is.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Places {
    pub fn new(git: Options) -> Self {
        Self { git, open: Mutex::default() }
    }

    fn open_anew(&self, name: &str, spec: &SourceSpec, turn: &Arc<tokio::sync::Mutex<()>>) -> Result<Arc<dyn Fetch>, String> {
        let path = spec.path.as_deref().unwrap_or_default();
        if path.split('/').any(|part| part == "..") {
            return Err(format!("path `{}` leads out of the source", path.escape_debug()));
        }
        match (&spec.directory, &spec.git) {
            (Some(directory), None) if directory.starts_with('/') => Ok(Arc::new(Directory::new(directory, path))),
            (Some(directory), None) => Err(format!("directory `{}` is not an absolute path", directory.escape_debug())),
            (None, Some(git)) => Ok(Arc::new(InTurn { git: Git::new(name, git, path, self.git.clone())?, turn: Arc::clone(turn) })),
            (Some(_), Some(_)) => Err("a source has a directory or a git repository, not both".to_owned()),
            (None, None) => Err("a source needs a directory or a git repository".to_owned()),
        }
    }
}

impl OpenSource for Places {
    fn open(&self, name: &str, spec: &SourceSpec) -> Result<Arc<dyn Fetch>, String> {
        let at: Where = (spec.directory.clone(), spec.git.clone(), spec.path.clone());
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(name.to_owned()).or_default();
        if open.at == at
            && let Some(place) = open.place.as_ref().and_then(Weak::upgrade)
        {
            return Ok(place);
        }
        let place = self.open_anew(name, spec, &open.turn)?;
        (open.at, open.place) = (at, Some(Arc::downgrade(&place)));
        Ok(place)
    }
}

/// A repository whose clone only one fetch at a time works on.
struct InTurn {
    git: Git,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[async_trait]
impl Fetch for InTurn {
    async fn fetch(&self) -> Fetched {
        let _turn = self.turn.lock().await;
        self.git.fetch().await
    }

    async fn changed(&self) {
        self.git.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_place_is_opened_by_nobody_a_second_time() {
        let clones = tempfile::tempdir().unwrap();
        let places = Places::new(Options::new(clones.path()));
        let directory = |path: &str| SourceSpec { directory: Some(path.to_owned()), ..SourceSpec::default() };
        let first = places.open("web", &directory("/srv")).unwrap();
        assert!(Arc::ptr_eq(&first, &places.open("web", &directory("/srv")).unwrap()));
        let git = GitSource { url: clones.path().display().to_string(), ..GitSource::default() };
        let git = SourceSpec { git: Some(git), ..SourceSpec::default() };
        let worker = places.open("web", &git).unwrap();
        assert!(Arc::ptr_eq(&worker, &places.open("web", &git).unwrap()));
        // Another reference of the same source has another place, but the same clone and turn.
        let turn = Arc::clone(&places.open.lock().unwrap()["web"].turn);
        let mut other = git.clone();
        other.git.as_mut().unwrap().reference = Some("v1".to_owned());
        let preview = places.open("web", &other).unwrap();
        assert!(!Arc::ptr_eq(&worker, &preview) && Arc::ptr_eq(&turn, &places.open.lock().unwrap()["web"].turn));
        assert!(places.open("web", &SourceSpec::default()).is_err());
    }
}
