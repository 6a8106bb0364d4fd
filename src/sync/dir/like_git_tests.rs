//! A work tree and its commit are the same set: both readers on the same files and links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use git2::{Oid, Repository, Signature};
use proptest::prelude::*;

use super::walk::look;
use crate::model::GitSource;
use crate::sync::git::child::serve;
use crate::sync::git::wire::{Answer, Request};
use crate::sync::select::Limits;
use crate::sync::source::Tree;

#[derive(Clone, Debug)]
enum Node {
    File(String),
    Link(String),
    Module,
}

fn file(content: &str) -> Node {
    Node::File(content.to_owned())
}

fn link(target: &str) -> Node {
    Node::Link(target.to_owned())
}

/// Commits what is in the work tree, as git does.
fn commit(repository: &Repository) {
    let tree = repository.find_tree(tree_of(repository, repository.workdir().unwrap())).unwrap();
    let who = Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
    repository.commit(Some("HEAD"), &who, &who, "m", &tree, &[]).unwrap();
}

fn tree_of(repository: &Repository, directory: &Path) -> Oid {
    let mut builder = repository.treebuilder(None).unwrap();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != ".git") {
        let (at, kind) = (entry.path(), entry.file_type().unwrap());
        let (id, mode) = if kind.is_symlink() {
            (repository.blob(fs::read_link(at).unwrap().as_os_str().as_encoded_bytes()).unwrap(), 0o120_000)
        } else if kind.is_file() {
            (repository.blob(&fs::read(at).unwrap()).unwrap(), 0o100_644)
        } else if at.join(".git").exists() {
            (Oid::from_str("0123456789012345678901234567890123456789").unwrap(), 0o160_000)
        } else {
            (tree_of(repository, &at), 0o040_000)
        };
        builder.insert(entry.file_name(), id, mode).unwrap();
    }
    builder.write().unwrap()
}

fn make(root: &Path, path: &str, node: &Node) {
    let at = root.join(path);
    // A name below a file or a link is none; nor is one that is there.
    let mut above = at.ancestors().skip(1).take_while(|above| *above != root);
    if at.symlink_metadata().is_ok() || above.any(|above| above.symlink_metadata().is_ok_and(|it| !it.is_dir())) {
        return;
    }
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    match node {
        Node::File(content) => fs::write(at, content).unwrap(),
        Node::Link(target) => symlink(target, at).unwrap(),
        Node::Module => {
            fs::create_dir(&at).unwrap();
            fs::write(at.join("m.yaml"), "m").unwrap();
            fs::write(at.join(".git"), "gitdir: elsewhere").unwrap();
        }
    }
}

/// What both readers make of a path, without what only a commit has; an error is one whatever its words.
fn read(nodes: &[(String, Node)], path: &str) -> Option<Tree> {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::init(dir.path()).unwrap();
    nodes.iter().for_each(|(path, node)| make(dir.path(), path, node));
    commit(&repository);
    let work_tree = look(dir.path(), path, Limits::default(), true).ok().and_then(|look| look.tree.ok());
    let spec = GitSource { url: dir.path().display().to_string(), ..GitSource::default() };
    let committed = match serve(&Request::new(&spec, path)) {
        Answer::Tree(tree) => Some(Tree { revision: String::new(), subject: String::new(), ..tree.into_tree() }),
        Answer::Refused { .. } | Answer::Failed(_) => None,
        Answer::Unchanged => panic!("nothing is known before"),
    };
    assert_eq!(work_tree, committed, "the work tree and the commit of {nodes:?} at {path:?}");
    committed
}

fn named(nodes: &[(&str, Node)]) -> Vec<(String, Node)> {
    nodes.iter().map(|(path, node)| ((*path).to_owned(), node.clone())).collect()
}

/// A tree with links of every kind that does no harm.
fn harmless() -> Vec<(String, Node)> {
    named(&[
        ("apps/a.yaml", file("a")),
        ("apps/second.yaml", link("a.yaml")),
        ("apps/data.yaml", link("sub/data.txt")),
        ("apps/sub/data.txt", file("data")),
        ("apps/sub/up.yaml", link("../.hidden/h.yaml")),
        ("apps/.hidden/h.yaml", file("h")),
        ("apps/chain.yaml", link("second.yaml")),
        ("apps/through.yaml", link("again/data.txt")),
        ("apps/again", link("sub")),
        ("apps/readme", link("a.yaml")),
        ("apps/loop", link("loop")),
        ("apps/base", link("../base")),
        ("base/b.yaml", file("b")),
        ("base/c.txt", file("c")),
        ("apps/module", Node::Module),
        ("apps/quiet", link("../base")),
        ("apps/.podbayignore", link("../apps/sub/none")),
    ])
}

#[test]
fn links_are_followed_inside_the_source_and_left_out_elsewhere() {
    let nodes = harmless();
    let tree = read(&nodes, "apps").unwrap();
    let files: Vec<_> = tree.files.iter().map(|(path, content)| (path.as_str(), std::str::from_utf8(content).unwrap())).collect();
    assert_eq!(files, [("a.yaml", "a"), ("data.yaml", "data"), ("sub/up.yaml", "h"), ("through.yaml", "data")]);
    assert_eq!(
        tree.notes,
        [
            ".podbayignore: not a file of the source, nothing is ignored",
            "again: a link to a directory, left out",
            "base: a link that leads out of the source, left out",
            "chain.yaml: a link to a manifest that is read already, left out",
            "loop: a link that leads through too many others, left out",
            "module: a submodule, left out",
            "quiet: a link that leads out of the source, left out",
            "second.yaml: a link to a manifest that is read already, left out",
        ]
    );
    // From further up less leads out.
    let more = [nodes.clone(), named(&[("apps/c.yaml", link("../base/c.txt")), ("apps/own.yaml", link("../apps/a.yaml"))])].concat();
    let whole = read(&more, "").unwrap();
    assert_eq!(whole.files["apps/c.yaml"], b"c");
    for note in ["apps/base: a link to a directory, left out", "apps/own.yaml: a link to a manifest that is read already, left out"] {
        assert!(whole.notes.contains(&note.to_owned()), "{:?}", whole.notes);
    }
    // The source's path is followed as well.
    assert_eq!(read(&nodes, "apps/again"), None, "up.yaml leads out of it");
    assert!(!read(&nodes, "apps/data.yaml").unwrap().path_exists);
    assert!(!read(&nodes, "apps/module").unwrap().path_exists);
}

/// Else what it was before would be taken for no longer wanted.
#[test]
fn a_manifest_that_is_a_link_to_no_file_of_the_source_is_refused_unless_it_is_ignored() {
    for target in ["../base/b.yaml", "/etc/passwd", "../apps/a.yaml", "none.yaml", ".git/config", "module/m.yaml", "bad.yaml"] {
        let bad = [harmless(), named(&[("apps/bad.yaml", link(target))])].concat();
        assert_eq!(read(&bad, "apps"), None, "{target}");
        let mut ignored: Vec<_> = bad.into_iter().filter(|(path, _)| path != "apps/.podbayignore").collect();
        ignored.extend(named(&[("apps/.podbayignore", link("ignored")), ("apps/ignored", file("bad*\nquiet\nbase\n"))]));
        let notes = read(&ignored, "apps").unwrap().notes;
        assert!(!notes.iter().any(|note| ["bad", "quiet", "base", "."].iter().any(|word| note.starts_with(word))), "{notes:?}");
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "a", "b", "x.yaml", "y.json", "x.yaml", "data", ".h.yaml", ".podbayignore"])
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => name(), 2 => Just(".."), 1 => prop::sample::select(vec![".", "none", ".git", "", "a\\b"])];
    (prop::bool::weighted(0.05), prop::collection::vec(part, 1..5)).prop_map(|(absolute, parts)| {
        let target = parts.join("/");
        match (absolute, target.as_str()) {
            // The kernel makes no link of nothing.
            (true, _) | (false, "") => format!("/{target}"),
            (false, _) => target,
        }
    })
}

fn node() -> impl Strategy<Value = Node> {
    let content = prop::sample::select(vec!["1", "a/\nx.yaml\n", "b\n", "*.json\n!y.json"]);
    prop_oneof![4 => content.prop_map(file), 5 => target().prop_map(Node::Link), 1 => Just(Node::Module)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_work_tree_and_its_commit_are_the_same_set(
        nodes in prop::collection::vec((path(), node()), 0..20),
        at in prop_oneof![Just(String::new()), path()],
    ) {
        read(&nodes, &at);
    }
}
