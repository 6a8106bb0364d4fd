//! The `mountOptions` of a persistent volume, as far as a bind mount has them: what mount(8) calls options that do not depend on
//! the file system, of one mount and not of all mounts of a disk. PURE.

use std::fmt;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::MountFlags;

/// Flags of a mount that are another's but for these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// As they were written.
    words: Vec<String>,
    set: MountFlags,
    clear: MountFlags,
}

impl Default for Options {
    /// None.
    fn default() -> Self {
        Self { words: Vec::new(), set: MountFlags::empty(), clear: MountFlags::empty() }
    }
}

/// A word, what it sets and what it clears.
const TABLE: [(&str, MountFlags, MountFlags); 19] = {
    const NONE: MountFlags = MountFlags::empty();
    const ALL_TIMES: MountFlags = MountFlags::NOATIME.union(MountFlags::RELATIME).union(MountFlags::STRICTATIME);
    [
        ("defaults", NONE, NONE),
        ("bind", NONE, NONE),
        ("ro", MountFlags::RDONLY, NONE),
        ("rw", NONE, MountFlags::RDONLY),
        ("nosuid", MountFlags::NOSUID, NONE),
        ("suid", NONE, MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV, NONE),
        ("dev", NONE, MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC, NONE),
        ("exec", NONE, MountFlags::NOEXEC),
        ("nosymfollow", MountFlags::NOSYMFOLLOW, NONE),
        ("symfollow", NONE, MountFlags::NOSYMFOLLOW),
        ("noatime", MountFlags::NOATIME, ALL_TIMES),
        ("atime", NONE, MountFlags::NOATIME),
        ("nodiratime", MountFlags::NODIRATIME, NONE),
        ("diratime", NONE, MountFlags::NODIRATIME),
        ("relatime", MountFlags::RELATIME, ALL_TIMES),
        ("norelatime", NONE, MountFlags::RELATIME),
        ("strictatime", MountFlags::STRICTATIME, ALL_TIMES),
    ]
};

impl Options {
    /// Reads them in their order; a later one overrides an earlier one. One entry may name several, as for mount(8).
    ///
    /// # Errors
    /// The first that is none of a bind mount.
    pub fn parse<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut all = Self::default();
        for word in written.into_iter().flat_map(|entry| entry.split(',')).map(str::trim).filter(|word| !word.is_empty()) {
            let Some((_, set, clear)) = TABLE.iter().find(|(known, ..)| *known == word) else {
                return Err(format!("mount option {word:?} is none of a bind mount, which is all that is made here"));
            };
            all.set = (all.set - *clear) | *set;
            all.clear = (all.clear - *set) | (*clear - *set);
            all.words.push(word.to_owned());
        }
        Ok(all)
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The flags of a bind mount of what is mounted with these.
    pub fn over(&self, mounted: StatVfsMountFlags) -> MountFlags {
        let same = [
            (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::from_bits_retain(ST_NOSYMFOLLOW), MountFlags::NOSYMFOLLOW),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        ];
        let has = same.iter().filter(|(has, _)| mounted.contains(*has)).fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
        (has - self.clear) | self.set
    }
}

/// Linux' `ST_NOSYMFOLLOW` (`include/linux/statfs.h`), which the library has no name for.
const ST_NOSYMFOLLOW: u64 = 0x2000;

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_each_kind_counts() {
        let (all, plain) = (StatVfsMountFlags::all(), StatVfsMountFlags::RELATIME);
        for (written, over, expected) in [
            (&[][..], plain, MountFlags::RELATIME),
            (&["defaults"], plain, MountFlags::RELATIME),
            (&["noexec", "nodev,ro"], plain, MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::RDONLY | MountFlags::RELATIME),
            (&["ro", "rw"], plain, MountFlags::RELATIME),
            (&["rw", "ro"], plain, MountFlags::RDONLY | MountFlags::RELATIME),
            (&["noatime"], plain, MountFlags::NOATIME),
            (&["noatime", "strictatime"], plain, MountFlags::STRICTATIME),
            (&["strictatime", "relatime", "nodiratime"], plain, MountFlags::RELATIME | MountFlags::NODIRATIME),
            // What the mount below it has stays, unless the contrary is said.
            (&["suid"], StatVfsMountFlags::NOSUID | StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (&["exec", "dev", "suid", "rw", "atime", "diratime", "norelatime", "symfollow"], all, MountFlags::empty()),
        ] {
            let options = Options::parse(written.iter().copied()).unwrap();
            assert_eq!(options.over(over), expected, "{written:?}");
            assert_eq!(Options::parse([options.to_string().as_str()]), Ok(options), "{written:?}");
        }
        assert!(Options::parse(["", ","]).unwrap().is_empty() && !Options::parse(["bind"]).unwrap().is_empty());
    }

    #[test]
    fn what_is_of_a_file_system_is_no_option_of_a_bind_mount() {
        for written in ["discard", "data=journal", "nfsvers=4", "RO", "remount", "sync", "uid=0"] {
            let refused = Options::parse(["noexec", written]).unwrap_err();
            assert_eq!(refused, format!("mount option {written:?} is none of a bind mount, which is all that is made here"));
        }
    }
}
