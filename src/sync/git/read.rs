//! Reads a commit's manifests straight from its tree: nothing is written to a work tree, no link is
//! followed, no submodule entered.

use git2::{ErrorCode, ObjectType, Oid, Repository, RepositoryOpenFlags};

use crate::sync::select::{IGNORE_FILE, Limits, Selection, TreeError, is_manifest};
use crate::sync::source::Tree;

const LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;

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
pub(super) fn tree(repository: &Repository, commit: Oid, path: &str, limits: Limits) -> Result<Tree, String> {
    let failed = |error: git2::Error| format!("read commit {commit}: {}", error.message());
    let found = repository.find_commit(commit).map_err(failed)?;
    let subject: String =
        found.summary().ok().flatten().unwrap_or_default().chars().filter(|letter| !letter.is_control()).take(200).collect();
    let root = found.tree().map_err(failed)?;
    let start = if path.is_empty() { Some(root) } else { below(repository, &root, path).map_err(failed)? };
    let Some(start) = start else {
        return Ok(Tree { revision: commit.to_string(), subject, ..Tree::default() });
    };
    let ignore = match start.get_name(IGNORE_FILE) {
        Some(entry) if entry.kind() == Some(ObjectType::Blob) && entry.filemode() != LINK => {
            blob(repository, entry.id(), IGNORE_FILE, limits.file_bytes)?
        }
        _ => Vec::new(),
    };
    let mut selection = Selection::new(limits, &ignore);
    let mut todo = vec![(String::new(), start)];
    while let Some((prefix, directory)) = todo.pop() {
        for entry in &directory {
            if let Some((path, id)) = visit(repository, &prefix, &entry, &mut selection)? {
                todo.push((path, repository.find_tree(id).map_err(failed)?));
            }
        }
    }
    Ok(Tree { revision: commit.to_string(), subject, ..selection.finish() })
}

/// Takes an entry, leaves it out, or returns the directory to walk into.
fn visit(
    repository: &Repository,
    prefix: &str,
    entry: &git2::TreeEntry<'_>,
    selection: &mut Selection,
) -> Result<Option<(String, Oid)>, String> {
    let name = match entry.name() {
        Ok(name) if !name.contains('/') => name.to_owned(),
        _ => {
            let name = String::from_utf8_lossy(entry.name_bytes()).into_owned();
            return if is_manifest(&name) { Err(TreeError::BadName(name).to_string()) } else { Ok(None) };
        }
    };
    let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    let mode = entry.filemode();
    if entry.kind() == Some(ObjectType::Tree) {
        let enters = selection.enters(&path).map_err(|error| error.to_string())?;
        return Ok(enters.then(|| (path, entry.id())));
    }
    if mode == SUBMODULE {
        selection.note(format!("{}: a submodule, left out", path.escape_debug()));
    } else if selection.takes(&path).map_err(|error| error.to_string())? {
        if mode == LINK {
            selection.note(format!("{path}: a link, not followed"));
        } else if entry.kind() == Some(ObjectType::Blob) {
            let content = blob(repository, entry.id(), &path, selection.room())?;
            selection.add(&path, content).map_err(|error| error.to_string())?;
        }
    }
    Ok(None)
}

/// The tree at a path; `None` where there is none.
fn below<'r>(repository: &'r Repository, root: &git2::Tree<'r>, path: &str) -> Result<Option<git2::Tree<'r>>, git2::Error> {
    let mut here = root.clone();
    for name in path.split('/') {
        let next = match here.get_name(name) {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => repository.find_tree(entry.id())?,
            _ => return Ok(None),
        };
        here = next;
    }
    Ok(Some(here))
}

/// A blob's content. Its size comes from its header, before it is read.
fn blob(repository: &Repository, id: Oid, path: &str, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error: git2::Error| format!("read {path}: {}", error.message());
    let odb = repository.odb().map_err(failed)?;
    let (size, _) = odb.read_header(id).map_err(failed)?;
    if size as u64 > limit {
        return Err(TreeError::TooLarge { path: path.to_owned(), limit }.to_string());
    }
    Ok(repository.find_blob(id).map_err(failed)?.content().to_vec())
}
