use std::path::Path;

use git2::{Oid, Repository, Signature};

use super::child::serve;
use super::*;
use crate::sync::select::Limits;
use crate::sync::source::Tree;

/// A commit of these files (mode, path, content) on a branch, its parent whatever the branch had.
fn commit(repository: &Repository, branch: &str, files: &[(i32, &str, &str)]) -> Oid {
    let tree = write_tree(repository, files);
    commit_tree(repository, branch, tree)
}

fn write_tree(repository: &Repository, files: &[(i32, &str, &str)]) -> Oid {
    let mut builder = repository.treebuilder(None).unwrap();
    let mut below: std::collections::BTreeMap<&str, Vec<(i32, &str, &str)>> = std::collections::BTreeMap::new();
    for (mode, path, content) in files {
        match path.split_once('/') {
            Some((name, rest)) => below.entry(name).or_default().push((*mode, rest, content)),
            None if *mode == 0o160_000 => {
                builder.insert(path, Oid::from_str("0123456789012345678901234567890123456789").unwrap(), *mode).unwrap();
            }
            None => {
                builder.insert(path, repository.blob(content.as_bytes()).unwrap(), *mode).unwrap();
            }
        }
    }
    for (name, files) in below {
        builder.insert(name, write_tree(repository, &files), 0o040_000).unwrap();
    }
    builder.write().unwrap()
}

fn commit_tree(repository: &Repository, branch: &str, tree: Oid) -> Oid {
    let tree = repository.find_tree(tree).unwrap();
    let who = Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
    let name = format!("refs/heads/{branch}");
    let parent = repository.refname_to_id(&name).ok().map(|id| repository.find_commit(id).unwrap());
    let parents: Vec<_> = parent.iter().collect();
    repository.commit(Some(&name), &who, &who, "A subject\n\nand a body", &tree, &parents).unwrap()
}

fn new_repository(directory: &Path) -> Repository {
    let repository = Repository::init_bare(directory).unwrap();
    repository.set_head("refs/heads/main").unwrap();
    repository
}

fn ask(repository: &Repository, reference: Option<&str>, path: &str) -> Result<Tree, String> {
    let spec = GitSource { url: repository.path().display().to_string(), reference: reference.map(str::to_owned), ..GitSource::default() };
    answer(serve(&Request::new(&spec, path)))
}

fn answer(answer: Answer) -> Result<Tree, String> {
    match answer {
        Answer::Tree(tree) => Ok(tree.into_tree()),
        Answer::Refused { why, .. } | Answer::Failed(why) => Err(why),
        Answer::Unchanged => Err("unchanged".to_owned()),
    }
}

const FILE: i32 = 0o100_644;

#[test]
fn branches_tags_and_commits_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let first = commit(&repository, "main", &[(FILE, "apps/a.yaml", "1"), (FILE, "README.md", "x")]);
    repository.tag_lightweight("v1", &repository.find_object(first, None).unwrap(), false).unwrap();
    let who = Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
    repository.tag("v1-annotated", &repository.find_object(first, None).unwrap(), &who, "m", false).unwrap();
    let second = commit(&repository, "main", &[(FILE, "apps/a.yaml", "2"), (FILE, "b.json", "{}")]);
    commit(&repository, "other", &[(FILE, "c.yaml", "3")]);

    let head = ask(&repository, None, "").unwrap();
    assert_eq!((head.revision.as_str(), head.subject.as_str()), (second.to_string().as_str(), "A subject"));
    assert_eq!(head.files.keys().collect::<Vec<_>>(), ["apps/a.yaml", "b.json"]);
    for reference in ["v1", "v1-annotated", &first.to_string()] {
        assert_eq!(ask(&repository, Some(reference), "/apps/").unwrap().files["a.yaml"], b"1", "{reference}");
    }
    assert_eq!(ask(&repository, Some("other"), "").unwrap().files["c.yaml"], b"3");
    assert!(!ask(&repository, None, "nowhere").unwrap().path_exists);
    assert!(!ask(&repository, None, "b.json").unwrap().path_exists);
    for unknown in ["gone", &first.to_string()[..10], "../../etc", "HEAD~1", ""] {
        let found = ask(&repository, Some(unknown), "");
        assert!(unknown.is_empty() || found.unwrap_err().contains("no branch, tag or full commit id"), "{unknown}");
    }
}

/// What no work tree can hold; for all else see `dir::like_git_tests`.
#[test]
fn links_that_no_file_system_holds_are_refused_and_submodules_left_out_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let (link, long) = (0o120_000, "a".repeat(9 << 20));
    let rest = [(link, "to-module", "module"), (0o160_000, "module", ""), (0o160_000, ".hidden", ""), (FILE, "a.yaml", "1")];
    for target in ["", &long, "a.yaml\0", "module/a.yaml"] {
        commit(&repository, "main", &[&rest[..], &[(link, "b.yaml", target)]].concat());
        let why = ask(&repository, None, "").unwrap_err();
        assert!(why.contains("b.yaml is a link that leads nowhere: a manifest is a file of the source"), "{why}");
    }
    commit(&repository, "main", &rest);
    let tree = ask(&repository, None, "").unwrap();
    assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["a.yaml"]);
    assert_eq!(tree.notes, ["module: a submodule, left out", "to-module: a link to a submodule, left out"]);
    assert!(!ask(&repository, None, "to-module").unwrap().path_exists);
}

#[test]
fn ignored_and_hidden_files_are_not_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    commit(
        &repository,
        "main",
        &[(FILE, "x/.podbayignore", "no/\n"), (FILE, "x/no/a.yaml", "1"), (FILE, "x/.github/b.yaml", "1"), (FILE, "x/c.yaml", "1")],
    );
    assert_eq!(ask(&repository, None, "x").unwrap().files.keys().collect::<Vec<_>>(), ["c.yaml"]);
}

/// A tree object with an entry that git itself would never write.
fn hostile_tree(repository: &Repository, name: &[u8]) -> Oid {
    let blob = repository.blob(b"x").unwrap();
    let mut raw = b"100644 ".to_vec();
    raw.extend_from_slice(name);
    raw.push(0);
    raw.extend_from_slice(blob.as_bytes());
    repository.odb().unwrap().write(git2::ObjectType::Tree, &raw).unwrap()
}

#[test]
fn hostile_names_are_refused() {
    for (name, why) in [
        (&b"../../escape.yaml"[..], "`../../escape.yaml` is no name for a file or directory: it holds a slash"),
        (b"a/b.yaml", "`a/b.yaml` is no name for a file or directory: it holds a slash"),
        (b"bell\x07.yaml", "`bell\\u{7}.yaml` is no name for a file or directory: it has control characters"),
        (b"not-utf8-\xff.yaml", "`not-utf8-\u{fffd}.yaml` is no name for a file or directory: it is not UTF-8"),
        (b"esc\x1b[2J.yaml", "`esc\\u{1b}[2J.yaml` is no name for a file or directory: it has control characters"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let repository = new_repository(dir.path());
        let tree = hostile_tree(&repository, name);
        let id = commit_tree(&repository, "main", tree);
        assert_eq!(refused(&repository), (id.to_string(), why.to_owned()));
    }
}

/// The commit that is refused, and why.
fn refused(repository: &Repository) -> (String, String) {
    let spec = GitSource { url: repository.path().display().to_string(), ..GitSource::default() };
    match serve(&Request::new(&spec, "")) {
        Answer::Refused { revision, why } => (revision, why),
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn what_is_beyond_a_bound_is_a_refused_commit_and_what_is_broken_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let big = commit(&repository, "main", &[(FILE, "apps/big.yaml", &"a".repeat(9 << 20))]);
    assert_eq!(refused(&repository), (big.to_string(), "apps/big.yaml is larger than 8388608 bytes".to_owned()));
    let missing = Oid::from_str("0123456789012345678901234567890123456789").unwrap();
    let mut raw = b"100644 a.yaml\0".to_vec();
    raw.extend_from_slice(missing.as_bytes());
    let tree = repository.odb().unwrap().write(git2::ObjectType::Tree, &raw).unwrap();
    commit_tree(&repository, "main", tree);
    let spec = GitSource { url: repository.path().display().to_string(), ..GitSource::default() };
    let found = serve(&Request::new(&spec, ""));
    assert!(matches!(&found, Answer::Failed(why) if why.starts_with("read a.yaml: ")), "{found:?}");
}

/// The fetch process says how often it has read, and that nothing is new where it is told what is known.
#[tokio::test]
async fn a_refused_commit_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let spec = GitSource { url: dir.path().display().to_string(), ..GitSource::default() };
    let reads = dir.path().join("reads");
    let script = format!(
        r#"grep -q '"known_revision":"c1"' && echo '"Unchanged"' && exit
        echo >> {0}; printf '{{"Refused": {{"revision": "c1", "why": "read %d"}}}}' $(wc -l < {0})"#,
        reads.display()
    );
    let options = Options {
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), format!("PATH=/bin:/usr/bin; {script}")],
        clones_dir: dir.path().join("git"),
        time_limit: Duration::from_secs(120),
        bounds: Bounds::default(),
    };
    let git = Git::new("web", &spec, "", options).unwrap();
    let expected = Fetched::Refused { revision: Some("c1".to_owned()), why: "read 1".to_owned() };
    assert_eq!((git.fetch().await, git.fetch().await), (expected.clone(), expected));
}

#[test]
fn huge_blobs_and_deep_trees_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let big = "a".repeat(9 << 20);
    commit(&repository, "big", &[(FILE, "big.yaml", &big)]);
    assert!(ask(&repository, Some("big"), "").unwrap_err().contains("big.yaml is larger"));
    // Not a manifest: nobody reads it.
    commit(&repository, "bin", &[(FILE, "big.bin", &big)]);
    assert!(ask(&repository, Some("bin"), "").is_ok());
    let deep = format!("{}x.yaml", "d/".repeat(80));
    commit(&repository, "deep", &[(FILE, &deep, "1")]);
    assert!(ask(&repository, Some("deep"), "").unwrap_err().contains("deeper than"));
    let many: Vec<String> = (0..30).map(|index| format!("f{index}.yaml")).collect();
    let files: Vec<_> = many.iter().map(|name| (FILE, name.as_str(), "1")).collect();
    commit(&repository, "many", &files);
    let spec = GitSource { url: repository.path().display().to_string(), reference: Some("many".to_owned()), ..GitSource::default() };
    let mut request = Request::new(&spec, "");
    request.limits = Limits { files: 10, ..Limits::default() };
    assert!(answer(serve(&request)).unwrap_err().contains("more than 10"));
}

/// A tree that holds itself many times over: exponential for a walk without bounds.
#[test]
fn a_tree_bomb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let mut tree = write_tree(&repository, &[(FILE, "a.yaml", "1")]);
    for _ in 0..12 {
        let mut builder = repository.treebuilder(None).unwrap();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            builder.insert(name, tree, 0o040_000).unwrap();
        }
        tree = builder.write().unwrap();
    }
    commit_tree(&repository, "main", tree);
    assert!(ask(&repository, None, "").unwrap_err().contains("more than 20000"));
    let mut tree = write_tree(&repository, &[(FILE, "README", "1")]);
    for _ in 0..12 {
        let mut builder = repository.treebuilder(None).unwrap();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            builder.insert(name, tree, 0o040_000).unwrap();
        }
        tree = builder.write().unwrap();
    }
    commit_tree(&repository, "empty", tree);
    assert!(ask(&repository, Some("empty"), "").unwrap_err().contains("more than 50000 directories"));
}

#[test]
fn what_is_no_repository_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    for (url, part) in [(dir.path().display().to_string(), "open"), ("/nowhere/at/all".to_owned(), "open")] {
        let spec = GitSource { url, ..GitSource::default() };
        assert!(answer(serve(&Request::new(&spec, ""))).unwrap_err().contains(part));
    }
    let empty = new_repository(dir.path());
    assert!(ask(&empty, None, "").unwrap_err().contains("HEAD"));
}

#[test]
fn an_unchanged_commit_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let repository = new_repository(dir.path());
    let id = commit(&repository, "main", &[(FILE, "a.yaml", "1")]);
    let spec = GitSource { url: repository.path().display().to_string(), ..GitSource::default() };
    let mut request = Request::new(&spec, "");
    request.known_revision = Some(id.to_string());
    assert!(matches!(serve(&request), Answer::Unchanged));
}

#[test]
fn a_token_is_never_in_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cr3t-token\n").unwrap();
    let spec = GitSource {
        // Nothing listens there.
        url: "https://127.0.0.1:1/x.git".to_owned(),
        token_file: Some(token.display().to_string()),
        ..GitSource::default()
    };
    let mut request = Request::new(&spec, "");
    request.clone_dir = dir.path().join("clone").display().to_string();
    let error = answer(serve(&request)).unwrap_err();
    assert!(!error.is_empty() && !error.contains("s3cr3t"), "{error}");
}

/// A child that says nothing, says rubbish, or never ends.
#[tokio::test]
async fn a_misbehaving_fetch_process_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let spec = GitSource { url: dir.path().display().to_string(), ..GitSource::default() };
    let rows =
        [("exit 3", "exit status: 3", 120), ("echo rubbish; echo why >&2", "why", 120), ("exec sleep 600", "longer than 1 seconds", 1)];
    for (script, part, seconds) in rows {
        let options = Options {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            clones_dir: dir.path().join("git"),
            time_limit: Duration::from_secs(seconds),
            bounds: Bounds::default(),
        };
        let fetched = Git::new("web", &spec, "", options).unwrap().fetch().await;
        assert!(matches!(&fetched, Fetched::Unreachable(why) if why.contains(part)), "{script}: {fetched:?}");
    }
}
