//! Which files of a tree are manifests, and how many there may be. PURE.

use std::collections::BTreeSet;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use sha2::{Digest as _, Sha256};

use super::link::End;
use super::source::Tree;

/// The file of gitignore patterns at the root of the source's path.
pub const IGNORE_FILE: &str = ".podbayignore";

/// Said where that is something else than a file of the tree, or a link to one.
pub const NO_IGNORE_FILE: &str = ".podbayignore: not a file of the source, nothing is ignored";

/// Bytes of all manifests of a tree.
pub const TREE_BYTES: u64 = 64 << 20;

/// Bounds of one tree: a hostile one is refused, never cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    pub files: usize,
    pub file_bytes: u64,
    pub total_bytes: u64,
    pub depth: usize,
    pub directories: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 20_000, file_bytes: 8 << 20, total_bytes: TREE_BYTES, depth: 64, directories: 50_000 }
    }
}

/// Why a tree cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("more than {0} manifest files")]
    TooMany(usize),
    #[error("{path} is larger than {limit} bytes")]
    TooLarge { path: String, limit: u64 },
    #[error("the manifests are larger than {0} bytes together")]
    TooMuch(u64),
    #[error("more than {0} directories")]
    TooManyDirectories(usize),
    #[error("{path} is deeper than {limit} directories")]
    TooDeep { path: String, limit: usize },
    #[error("`{}` is no name for a file or directory: {why}", path.escape_debug())]
    BadName { path: String, why: &'static str },
    /// What was there before would be taken for no longer wanted.
    #[error("{path} is {what}: a manifest is a file of the source, or is named in .podbayignore")]
    Link { path: String, what: &'static str },
    #[error("the source's path {} is {what}", path.escape_debug())]
    Path { path: String, what: &'static str },
}

/// The files of one walk, bounded.
pub struct Selection {
    limits: Limits,
    ignore: Gitignore,
    tree: Tree,
    /// The first of what was left out, by path: the same in whatever order the tree is read.
    notes: BTreeSet<String>,
    more_notes: usize,
    bytes: u64,
    directories: usize,
}

/// Notes told of one tree.
const NOTES: usize = 100;

impl Selection {
    /// `ignore` is the content of the ignore file, empty where there is none.
    pub fn new(limits: Limits, ignore: &[u8]) -> Self {
        let mut builder = GitignoreBuilder::new("");
        for line in String::from_utf8_lossy(ignore).lines() {
            // A line that is no pattern is no pattern, as in git.
            let _ = builder.add_line(None, line);
        }
        let ignore = builder.build().unwrap_or_else(|_| Gitignore::empty());
        let tree = Tree { path_exists: true, ..Tree::default() };
        Self { limits, ignore, tree, notes: BTreeSet::new(), more_notes: 0, bytes: 0, directories: 0 }
    }

    /// Whether to walk into a directory, by its path relative to the source's.
    ///
    /// # Errors
    /// A hostile name, too deep, or too many.
    pub fn enters(&mut self, path: &str) -> Result<bool, TreeError> {
        check_name(path)?;
        if path.split('/').count() > self.limits.depth {
            return Err(TreeError::TooDeep { path: path.to_owned(), limit: self.limits.depth });
        }
        self.directories += 1;
        if self.directories > self.limits.directories {
            return Err(TreeError::TooManyDirectories(self.limits.directories));
        }
        Ok(!is_hidden(path) && !self.ignore.matched_path_or_any_parents(path, true).is_ignore())
    }

    /// Whether a file is a manifest, by its path relative to the source's.
    ///
    /// # Errors
    /// A hostile name.
    pub fn takes(&self, path: &str) -> Result<bool, TreeError> {
        if !is_manifest(path) || is_hidden(path) {
            return Ok(false);
        }
        check_name(path)?;
        Ok(!self.ignore.matched_path_or_any_parents(path, false).is_ignore())
    }

    /// Passes over a name that is not UTF-8, which nothing that is read has, in a directory by its path.
    ///
    /// # Errors
    /// It is neither hidden nor ignored, and it is a manifest's or a directory's, with manifests in it perhaps: what was
    /// there before would be taken for no longer wanted.
    pub fn passes_over(&self, directory: &str, name: &[u8], is_directory: bool) -> Result<(), TreeError> {
        let path = joined(directory, &String::from_utf8_lossy(name));
        let is_ignored = is_hidden(&path) || self.ignore.matched_path_or_any_parents(&path, is_directory).is_ignore();
        if is_ignored || !(is_directory || is_manifest(&path)) {
            return Ok(());
        }
        Err(TreeError::BadName { path, why: "it is not UTF-8" })
    }

    /// The file that a link stands for, if it is taken as one of the manifests. A link to a manifest that is read already,
    /// and one to a directory, are left out aloud, these whatever their names: there may have been manifests below before.
    ///
    /// # Errors
    /// A hostile name, or a manifest's name that ends at no file.
    pub fn link(&mut self, path: &str, end: End) -> Result<Option<String>, TreeError> {
        let takes = self.takes(path)?;
        let what = end.of_a_link();
        match end {
            End::File(_) if !takes => {}
            End::File(at) if !self.reads(&at) => return Ok(Some(at)),
            End::File(_) => self.leaves_out(path, false, "a link to a manifest that is read already"),
            End::Directory(_) | End::Submodule => self.leaves_out(path, true, what),
            _ if takes => return Err(TreeError::Link { path: path.escape_debug().to_string(), what }),
            _ => self.leaves_out(path, false, what),
        }
        Ok(None)
    }

    /// Whether the walk comes to a file and takes it.
    fn reads(&self, at: &str) -> bool {
        let is_entered = |(end, _): (usize, &str)| !is_hidden(&at[..end]);
        at.match_indices('/').all(is_entered) && self.takes(at).unwrap_or(false)
    }

    /// Nobody wants to hear of it.
    pub fn is_quiet(&self, path: &str) -> bool {
        is_hidden(path) || self.ignore.matched_path_or_any_parents(path, false).is_ignore()
    }

    /// Leaves out aloud what is neither hidden nor ignored.
    pub fn leaves_out(&mut self, path: &str, is_directory: bool, what: &str) {
        let as_directory = || is_directory && self.ignore.matched_path_or_any_parents(path, true).is_ignore();
        if !self.is_quiet(path) && !as_directory() {
            self.note(format!("{}: {what}, left out", path.escape_debug()));
        }
    }

    /// Bytes that the next file may have.
    pub fn room(&self) -> u64 {
        self.limits.file_bytes
    }

    /// Takes a file's content.
    ///
    /// # Errors
    /// A bound is exceeded.
    pub fn add(&mut self, path: &str, content: Vec<u8>) -> Result<(), TreeError> {
        let size = content.len() as u64;
        if size > self.limits.file_bytes {
            return Err(TreeError::TooLarge { path: path.to_owned(), limit: self.limits.file_bytes });
        }
        self.bytes += size;
        if self.bytes > self.limits.total_bytes {
            return Err(TreeError::TooMuch(self.limits.total_bytes));
        }
        self.tree.files.insert(path.to_owned(), content);
        if self.tree.files.len() > self.limits.files {
            return Err(TreeError::TooMany(self.limits.files));
        }
        Ok(())
    }

    /// Says aloud that something was left out. Bounded, as everything from a tree.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.insert(note.into());
        if self.notes.len() > NOTES {
            self.notes.pop_last();
            self.more_notes += 1;
        }
    }

    pub fn finish(mut self) -> Tree {
        self.tree.notes.extend(self.notes);
        if self.more_notes > 0 {
            self.tree.notes.push(format!("and {} more that are left out", self.more_notes));
        }
        self.tree
    }
}

/// `*.yaml *.yml *.json *.toml`
pub fn is_manifest(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| matches!(extension, "yaml" | "yml" | "json" | "toml"))
}

/// The path of a name in a directory; the root's is empty.
pub fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn is_hidden(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with('.'))
}

/// The last part of a path comes from the tree: it may be anything.
fn check_name(path: &str) -> Result<(), TreeError> {
    let why = if path.split('/').any(|name| name.is_empty() || name == "." || name == "..") {
        "a part of it is empty, `.` or `..`"
    } else if path.chars().any(char::is_control) {
        "it has control characters"
    } else if path.len() > 4096 {
        "it is longer than 4096 bytes"
    } else {
        return Ok(());
    };
    Err(TreeError::BadName { path: path.to_owned(), why })
}

/// `sha256:…` over the paths and contents of a tree.
pub fn digest(tree: &Tree) -> String {
    let mut hash = Sha256::new();
    hash.update([u8::from(tree.path_exists)]);
    for (path, content) in &tree.files {
        for part in [path.as_bytes(), content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_chosen_by_name_and_ignore_file() {
        let mut selection = Selection::new(Limits::default(), b"/tests/\n*.tmp.yaml\n!keep.tmp.yaml\n# c\n");
        let rows = [
            ("a.yaml", true),
            ("a.yml", true),
            ("x/a.json", true),
            ("a.toml", true),
            ("README.md", false),
            ("Makefile", false),
            (".hidden.yaml", false),
            ("a.tmp.yaml", false),
            ("keep.tmp.yaml", true),
            ("tests/a.yaml", false),
            ("x/tests/a.yaml", true),
        ];
        for (path, taken) in rows {
            assert_eq!(selection.takes(path), Ok(taken), "{path}");
        }
        assert_eq!(selection.enters(".git"), Ok(false));
        assert_eq!(selection.enters("tests"), Ok(false));
        for hostile in ["../a.yaml", "a/../b.yaml", "./a.yaml", "a//b.yaml", "a\n.yaml", "\u{1b}[2Ja.yaml"] {
            assert!(selection.takes(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn bounds_are_refusals() {
        let limits = Limits { files: 2, file_bytes: 10, total_bytes: 15, depth: 2, directories: 3 };
        let mut selection = Selection::new(limits, b"");
        assert!(selection.add("a.yaml", vec![0; 11]).is_err());
        assert!(selection.add("a.yaml", vec![0; 9]).is_ok());
        assert!(matches!(selection.add("b.yaml", vec![0; 9]), Err(TreeError::TooMuch(15))));
        let mut selection = Selection::new(limits, b"");
        for name in ["a", "b"] {
            assert!(selection.add(name, Vec::new()).is_ok());
        }
        assert!(matches!(selection.add("c", Vec::new()), Err(TreeError::TooMany(2))));
        assert!(matches!(selection.enters("a/b/c"), Err(TreeError::TooDeep { .. })));
        assert!((0..3).all(|_| selection.enters("a").is_ok()));
        assert!(matches!(selection.enters("a"), Err(TreeError::TooManyDirectories(3))));
    }

    #[test]
    fn what_is_left_out_is_told_in_any_order_and_not_without_end() {
        let told = |paths: &mut dyn Iterator<Item = usize>| {
            let mut selection = Selection::new(Limits::default(), b"quiet/\nmute\n");
            for path in ["quiet", "mute", ".hidden"] {
                assert_eq!(selection.link(path, End::Directory("x".to_owned())), Ok(None));
            }
            paths.for_each(|index| selection.leaves_out(&format!("d{index:03}"), true, "a submodule"));
            selection.finish().notes
        };
        let notes = told(&mut (0..NOTES + 2));
        assert_eq!(notes, told(&mut (0..NOTES + 2).rev()));
        assert_eq!((notes[0].as_str(), notes[NOTES].as_str()), ("d000: a submodule, left out", "and 2 more that are left out"));
        assert_eq!(told(&mut (0..1)), ["d000: a submodule, left out"]);
    }

    #[test]
    fn a_link_is_a_manifest_by_its_own_name() {
        let mut selection = Selection::new(Limits::default(), b"no.yaml\n");
        let file = || End::File("x/data".to_owned());
        for (path, taken) in [("a.yaml", Some("x/data")), ("no.yaml", None), (".a.yaml", None), ("a", None)] {
            assert_eq!(selection.link(path, file()), Ok(taken.map(str::to_owned)), "{path}");
        }
        assert!(selection.link("a\u{1b}.yaml", file()).is_err());
        assert!(selection.finish().notes.is_empty());
    }

    #[test]
    fn the_revision_is_of_paths_and_contents() {
        let tree = |files: &[(&str, &str)]| Tree {
            files: files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect(),
            path_exists: true,
            ..Tree::default()
        };
        let one = digest(&tree(&[("a", "bc"), ("d", "")]));
        assert_eq!(one, digest(&tree(&[("d", ""), ("a", "bc")])));
        assert_ne!(one, digest(&tree(&[("ab", "c"), ("d", "")])));
        assert_ne!(digest(&tree(&[])), digest(&Tree::default()));
    }
}
