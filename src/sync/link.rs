//! Where a path of a tree leads, link by link and never out of the tree. PURE.
//!
//! Both readers ask it, the one of directories and the one of commits: a working tree and its commit
//! are the same set of files. So nobody else follows a link, neither the kernel nor libgit2.

/// Links that one path may lead through. Linux allows 40 (`path_resolution(7)`); a tree of manifests needs one or two.
const LINKS: usize = 8;
/// Names that are looked up for one path, those of its links among them.
const STEPS: usize = 256;
/// The longest target of a link, and the longest path: Linux' `PATH_MAX` with its zero byte.
pub const TARGET_BYTES: usize = 4095;

/// What a tree has under a name. A link is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Nothing,
    File,
    Directory,
    Submodule,
    /// A pipe, a device.
    Special,
    /// Its target, as it is written.
    Link(Vec<u8>),
}

/// Where a path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Without a link in it.
    File(String),
    /// Without a link in it; empty for the root.
    Directory(String),
    Submodule,
    Special,
    Nowhere,
    /// Above the root, or into a repository's own files, which no commit has.
    Out,
    TooFar,
}

impl End {
    /// What a link is whose target is no file of the tree.
    pub fn of_a_link(&self) -> &'static str {
        match self {
            Self::File(_) => "a link to a file",
            Self::Directory(_) => "a link to a directory",
            Self::Submodule => "a link to a submodule",
            Self::Special => "a link to something that is not a file",
            Self::Nowhere => "a link that leads nowhere",
            Self::Out => "a link that leads out of the source",
            Self::TooFar => "a link that leads through too many others",
        }
    }
}

/// Follows a path from the root of a tree; `look` says what the tree has under a path without links.
///
/// # Errors
/// What `look` failed with.
pub fn follow<E>(path: &str, mut look: impl FnMut(&str) -> Result<Entry, E>) -> Result<End, E> {
    let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut here: Vec<String> = Vec::new();
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = todo.pop() {
        steps += 1;
        if steps > STEPS {
            return Ok(End::TooFar);
        }
        match name.as_str() {
            "" | "." => continue,
            ".." if here.pop().is_some() => continue,
            ".." | ".git" => return Ok(End::Out),
            _ => here.push(name),
        }
        let at = here.join("/");
        if at.len() > TARGET_BYTES {
            return Ok(End::Nowhere);
        }
        match look(&at)? {
            Entry::Directory => {}
            Entry::Link(target) => {
                links += 1;
                if links > LINKS {
                    return Ok(End::TooFar);
                }
                here.pop();
                match String::from_utf8(target) {
                    Ok(target) if target.starts_with('/') => return Ok(End::Out),
                    Ok(target) if is_target(&target) => todo.extend(target.split('/').rev().map(str::to_owned)),
                    _ => return Ok(End::Nowhere),
                }
            }
            // A slash behind it asks for a directory.
            Entry::File if todo.is_empty() => return Ok(End::File(at)),
            Entry::Special if todo.is_empty() => return Ok(End::Special),
            Entry::Submodule if todo.iter().all(String::is_empty) => return Ok(End::Submodule),
            Entry::Nothing | Entry::File | Entry::Special | Entry::Submodule => return Ok(End::Nowhere),
        }
    }
    Ok(End::Directory(here.join("/")))
}

/// Whether the kernel would make such a link: a commit can hold any bytes as one.
fn is_target(target: &str) -> bool {
    !target.is_empty() && target.len() <= TARGET_BYTES && !target.contains('\0')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    fn end(tree: &[(&str, Entry)], path: &str) -> End {
        let tree: BTreeMap<&str, &Entry> = tree.iter().map(|(path, entry)| (*path, entry)).collect();
        let look = |at: &str| Ok::<_, Infallible>(tree.get(at).map_or(Entry::Nothing, |entry| (*entry).clone()));
        let Ok(end) = follow(path, look);
        end
    }

    fn link(target: &str) -> Entry {
        Entry::Link(target.as_bytes().to_vec())
    }

    #[test]
    fn links_lead_where_the_kernel_takes_them_and_never_out() {
        let file = |at: &str| End::File(at.to_owned());
        let rows = [
            ("a.yaml", file("dir/a.yaml"), "dir/a.yaml"),
            ("a.yaml", file("dir/a.yaml"), "./dir//sub/../a.yaml"),
            ("dir/b.yaml", file("dir/a.yaml"), "../other/a.yaml"),
            ("dir/b.yaml", file("x.yaml"), "../x.yaml"),
            ("dir/b.yaml", End::Out, "../../root/dir/a.yaml"),
            ("a.yaml", End::Out, "dir/../../dir/a.yaml"),
            ("a.yaml", End::Out, "/dir/a.yaml"),
            ("a.yaml", End::Out, ".git/config"),
            ("a.yaml", End::Nowhere, "dir/none.yaml"),
            ("a.yaml", End::Nowhere, "none/../dir/a.yaml"),
            ("a.yaml", End::Nowhere, "x.yaml/../dir/a.yaml"),
            ("a.yaml", End::Nowhere, "dir/a.yaml/"),
            ("a.yaml", End::Nowhere, ""),
            ("a.yaml", End::Nowhere, "dir/a\0.yaml"),
            ("a.yaml", End::TooFar, "a.yaml"),
            ("sub", End::Directory("dir/sub".to_owned()), "other/sub/"),
            ("sub", End::Directory(String::new()), "."),
            ("sub", End::Submodule, "module/"),
            ("sub", End::Nowhere, "module/a.yaml"),
            ("sub", End::Special, "pipe"),
        ];
        for (path, wanted, target) in rows {
            let tree = [
                ("dir", Entry::Directory),
                ("dir/sub", Entry::Directory),
                ("dir/a.yaml", Entry::File),
                ("x.yaml", Entry::File),
                ("other", link("dir")),
                ("module", Entry::Submodule),
                ("pipe", Entry::Special),
                (path, link(target)),
            ];
            assert_eq!(end(&tree, path), wanted, "{path} -> {target}");
        }
        assert_eq!(end(&[("a", Entry::Link(vec![0xff]))], "a"), End::Nowhere);
        assert_eq!(end(&[("a", link(&"x".repeat(TARGET_BYTES + 1)))], "a"), End::Nowhere);
    }

    #[test]
    fn chains_are_bounded() {
        let names: Vec<String> = (0..=LINKS + 1).map(|index| format!("l{index}")).collect();
        let mut tree = vec![("l0", Entry::File)];
        tree.extend(names.windows(2).map(|two| (two[1].as_str(), link(&two[0]))));
        assert_eq!(end(&tree, &names[LINKS]), End::File("l0".to_owned()));
        assert_eq!(end(&tree, &names[LINKS + 1]), End::TooFar);
        let long = "a/../".repeat(STEPS);
        assert_eq!(end(&[("a", Entry::Directory), ("l", link(&long))], "l"), End::TooFar);
    }
}
