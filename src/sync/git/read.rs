//! Reads a commit's manifests straight from its tree: nothing is written to a work tree, no link leads
//! out of the tree, no submodule is entered.

use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid, Repository, RepositoryOpenFlags};

use crate::sync::link::{End, Entry, TARGET_BYTES, follow};
use crate::sync::select::{IGNORE_FILE, Limits, NO_IGNORE_FILE, Selection, TreeError, is_manifest, joined};
use crate::sync::source::Tree;

const LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;

/// Why there are no manifests of a commit.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It was read, and is not taken.
    #[error(transparent)]
    Refused(#[from] TreeError),
    /// It could not be read.
    #[error("{0}")]
    Unread(String),
}

/// Opens a repository of this host and finds its commit.
pub(super) fn open(path: &str, reference: Option<&str>) -> Result<(Repository, Oid), String> {
    let none: [&str; 0] = [];
    let repository =
        Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none).map_err(|error| format!("open: {}", error.message()))?;
    let commit = resolve(&repository, reference)?;
    Ok((repository, commit))
}

fn resolve(repository: &Repository, reference: Option<&str>) -> Result<Oid, String> {
    let Some(name) = reference else {
        let head = repository.head().and_then(|head| head.peel_to_commit());
        return head.map(|commit| commit.id()).map_err(|error| format!("HEAD: {}", error.message()));
    };
    for full in [format!("refs/heads/{name}"), format!("refs/tags/{name}"), name.to_owned()] {
        if !git2::Reference::is_valid_name(&full) || !full.starts_with("refs/") {
            continue;
        }
        match repository.find_reference(&full).and_then(|found| found.peel_to_commit()) {
            Ok(commit) => return Ok(commit.id()),
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(error) => return Err(format!("{}: {}", name.escape_debug(), error.message())),
        }
    }
    full_id(name)
        .and_then(|id| repository.find_commit(id).ok())
        .map(|commit| commit.id())
        .ok_or_else(|| format!("there is no branch, tag or full commit id `{}`", name.escape_debug()))
}

/// A full commit id; short ones are ambiguous tomorrow.
pub(super) fn full_id(name: &str) -> Option<Oid> {
    (name.len() == 40).then(|| Oid::from_str(name).ok()).flatten()
}

/// The manifests of a commit below a path.
pub(super) fn tree(repository: &Repository, commit: Oid, path: &str, limits: Limits) -> Result<Tree, ReadError> {
    let failed = |error: git2::Error| ReadError::Unread(format!("read commit {commit}: {}", error.message()));
    let found = repository.find_commit(commit).map_err(failed)?;
    let subject: String =
        found.summary().ok().flatten().unwrap_or_default().chars().filter(|letter| !letter.is_control()).take(200).collect();
    let root = found.tree().map_err(failed)?;
    let start = match follow(path, |at| entry_at(repository, &root, at))? {
        End::Directory(at) if at.is_empty() => root,
        End::Directory(at) => root.get_path(Path::new(&at)).and_then(|entry| repository.find_tree(entry.id())).map_err(failed)?,
        End::File(_) | End::Submodule | End::Special | End::Nowhere => {
            return Ok(Tree { revision: commit.to_string(), subject, ..Tree::default() });
        }
        end @ (End::Out | End::TooFar) => return Err(TreeError::Path { path: path.to_owned(), what: end.of_a_link() }.into()),
    };
    let walk = Walk { repository, root: &start };
    let (ignore, note) = walk.ignore_file(limits)?;
    let mut selection = Selection::new(limits, &ignore);
    note.into_iter().for_each(|note| selection.note(note));
    let mut todo = vec![(String::new(), start.clone())];
    while let Some((prefix, directory)) = todo.pop() {
        for entry in &directory {
            if let Some((path, id)) = walk.visit(&prefix, &entry, &mut selection)? {
                todo.push((path, repository.find_tree(id).map_err(failed)?));
            }
        }
    }
    Ok(Tree { revision: commit.to_string(), subject, ..selection.finish() })
}

/// The tree of the source's path.
struct Walk<'r> {
    repository: &'r Repository,
    root: &'r git2::Tree<'r>,
}

impl Walk<'_> {
    /// The patterns of what is not read, and what is to be said of them.
    fn ignore_file(&self, limits: Limits) -> Result<(Vec<u8>, Option<&'static str>), ReadError> {
        match self.follow(IGNORE_FILE)? {
            End::File(at) => Ok((self.content(&at, IGNORE_FILE, limits.file_bytes)?, None)),
            _ if self.root.get_name(IGNORE_FILE).is_none() => Ok((Vec::new(), None)),
            _ => Ok((Vec::new(), Some(NO_IGNORE_FILE))),
        }
    }

    /// Takes an entry, leaves it out, or returns the directory to walk into.
    fn visit(&self, prefix: &str, entry: &git2::TreeEntry<'_>, selection: &mut Selection) -> Result<Option<(String, Oid)>, ReadError> {
        let is_directory = entry.kind() == Some(ObjectType::Tree);
        let Ok(name) = entry.name() else {
            selection.passes_over(prefix, entry.name_bytes(), is_directory)?;
            return Ok(None);
        };
        let path = joined(prefix, name);
        // Git itself writes none.
        if name.contains('/') {
            let matters = is_directory || is_manifest(name);
            return if matters { Err(TreeError::BadName { path, why: "it holds a slash" }.into()) } else { Ok(None) };
        }
        match (entry.kind(), entry.filemode()) {
            (Some(ObjectType::Tree), _) => {
                let enters = selection.enters(&path)?;
                return Ok(enters.then(|| (path, entry.id())));
            }
            (_, SUBMODULE) => selection.leaves_out(&path, true, "a submodule"),
            (Some(ObjectType::Blob), LINK) if selection.is_quiet(&path) => {}
            (Some(ObjectType::Blob), LINK) => {
                if let Some(at) = selection.link(&path, self.follow(&path)?)? {
                    let content = self.content(&at, &path, selection.room())?;
                    selection.add(&path, content)?;
                }
            }
            (Some(ObjectType::Blob), _) if selection.takes(&path)? => {
                let content = blob(self.repository, entry.id(), &path, selection.room())?;
                selection.add(&path, content)?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn follow(&self, path: &str) -> Result<End, ReadError> {
        follow(path, |at| entry_at(self.repository, self.root, at))
    }

    /// The content of the file at a path without links, for the file that is called `path`.
    fn content(&self, at: &str, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let entry = self.root.get_path(Path::new(at)).map_err(unread(path))?;
        blob(self.repository, entry.id(), path, limit)
    }
}

/// What a tree has at a path.
fn entry_at(repository: &Repository, root: &git2::Tree<'_>, at: &str) -> Result<Entry, ReadError> {
    let entry = match root.get_path(Path::new(at)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(Entry::Nothing),
        Err(error) => return Err(unread(at)(error)),
    };
    Ok(match (entry.kind(), entry.filemode()) {
        (Some(ObjectType::Tree), _) => Entry::Directory,
        (_, SUBMODULE) => Entry::Submodule,
        // No file system holds a longer one: it is none.
        (Some(ObjectType::Blob), LINK) if blob_size(repository, entry.id(), at)? > TARGET_BYTES as u64 => Entry::Link(Vec::new()),
        (Some(ObjectType::Blob), LINK) => Entry::Link(blob(repository, entry.id(), at, TARGET_BYTES as u64)?),
        (Some(ObjectType::Blob), _) => Entry::File,
        _ => Entry::Nothing,
    })
}

fn blob_size(repository: &Repository, id: Oid, path: &str) -> Result<u64, ReadError> {
    let (size, _) = repository.odb().map_err(unread(path))?.read_header(id).map_err(unread(path))?;
    Ok(size as u64)
}

/// A blob's content. Its size comes from its header, before it is read.
fn blob(repository: &Repository, id: Oid, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
    if blob_size(repository, id, path)? > limit {
        return Err(TreeError::TooLarge { path: path.to_owned(), limit }.into());
    }
    Ok(repository.find_blob(id).map_err(unread(path))?.content().to_vec())
}

fn unread(path: &str) -> impl Fn(git2::Error) -> ReadError {
    move |error| ReadError::Unread(format!("read {}: {}", path.escape_debug(), error.message()))
}
