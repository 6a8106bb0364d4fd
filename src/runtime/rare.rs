//! Hierarchies of cgroup v1 and hybrid hosts in which there is a cgroup only for who asks for its limits: `cpuset`, `blkio`
//! and `hugetlb`, which a hybrid host may have in its one of v2 (cgroup-v1/cpusets.rst, cgroup-v1/blkio-controller.rst,
//! cgroup-v1/hugetlb.rst, cgroup-v2.rst).

use std::io;
use std::path::{Path, PathBuf};

use super::limits::Limit;

/// In v2 and in v1.
const CONTROLLERS: [(&str, &str); 3] = [("cpuset", "cpuset"), ("hugetlb", "hugetlb"), ("io", "blkio")];
/// Empty in a new cgroup, which nothing can enter like that.
const SETS: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Where one of these controllers is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// As v2 names it.
    pub controller: &'static str,
    mount: PathBuf,
    /// v2's.
    unified: bool,
}

/// Those of this host, from its mountinfo (proc(5)). `offers`: what a mount of v2 says it has.
pub(super) fn detect(info: &str, offers: &dyn Fn(&Path) -> String) -> Vec<Hierarchy> {
    let find = |(controller, old): (&'static str, &'static str)| {
        let of = |line: &str| {
            let (mount, source) = line.split_once(" - ")?;
            let mount = PathBuf::from(mount.split(' ').nth(4)?);
            let mut words = source.split(' ');
            let unified = match words.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let named = if unified { offers(&mount).replace(' ', ",") } else { words.nth(1)?.to_owned() };
            let wanted = if unified { controller } else { old };
            named.trim().split(',').any(|name| name == wanted).then_some(Hierarchy { controller, mount, unified })
        };
        info.lines().find_map(of)
    };
    CONTROLLERS.into_iter().filter_map(find).collect()
}

impl Hierarchy {
    /// Makes a cgroup, and everything above it such that it has something to give.
    pub fn make(&self, full: &str) -> io::Result<()> {
        let mut at = self.mount.clone();
        for part in full.split('/').filter(|part| !part.is_empty()) {
            let above = at.clone();
            at.push(part);
            if self.unified {
                pass_on(&above, self.controller)?;
            }
            match std::fs::create_dir(&at) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if self.controller == "cpuset" {
                SETS.into_iter().try_for_each(|file| inherit(&above, &at, file))?;
            }
        }
        Ok(())
    }

    /// Where a cgroup is, or would be.
    pub fn directory(&self, full: &str) -> PathBuf {
        self.mount.join(full)
    }

    /// Where a limit is written, and what; `None`: this kernel has no such file.
    pub fn file(&self, full: &str, limit: &Limit) -> Option<(PathBuf, String)> {
        let name = if self.unified { limit.file.clone() } else { in_v1(&limit.file) };
        choose(&self.mount.join(full), &name, limit)
    }

    /// A line for each that is in it.
    pub fn processes(&self, full: &str) -> String {
        std::fs::read_to_string(self.mount.join(full).join("cgroup.procs")).unwrap_or_default()
    }

    /// Moves a process with all its threads, if it is still there.
    pub fn enter(&self, full: &str, pid: &str) -> io::Result<()> {
        match std::fs::write(self.mount.join(full).join("cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            written => written,
        }
    }

    /// What is written to, to enter the cgroup; `None`: there is none.
    pub fn entrance(&self, full: &str) -> Option<PathBuf> {
        let file = if self.unified { "cgroup.procs" } else { "tasks" };
        Some(self.mount.join(full).join(file)).filter(|file| file.exists())
    }
}

/// The first file that is there of a limit's own, called `name` here, and those instead of it.
pub(super) fn choose(directory: &Path, name: &str, limit: &Limit) -> Option<(PathBuf, String)> {
    let own = [(name, &limit.value)].into_iter();
    let all = own.chain(limit.instead.iter().map(|(name, value)| (name.as_str(), value)));
    all.map(|(name, value)| (directory.join(name), value.clone())).find(|(file, _)| file.exists())
}

/// v2's name of a limit in v1's words.
fn in_v1(file: &str) -> String {
    file.strip_suffix(".max").map_or_else(|| file.to_owned(), |stem| format!("{stem}.limit_in_bytes"))
}

fn pass_on(directory: &Path, controller: &str) -> io::Result<()> {
    let file = directory.join("cgroup.subtree_control");
    if std::fs::read_to_string(&file)?.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    std::fs::write(file, format!("+{controller}"))
}

fn inherit(above: &Path, at: &Path, file: &str) -> io::Result<()> {
    if !std::fs::read_to_string(at.join(file))?.trim().is_empty() {
        return Ok(());
    }
    std::fs::write(at.join(file), std::fs::read_to_string(above.join(file))?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_where_they_are() {
        let line = |at: &str, kind: &str, options: &str| format!("34 31 0:31 / /sys/fs/cgroup/{at} rw - {kind} cgroup rw,{options}\n");
        let offers = |mount: &Path| if mount.ends_with("unified") { "hugetlb misc\n".to_owned() } else { String::new() };
        let hybrid =
            line("cpuset", "cgroup", "cpuset,noprefix") + &line("unified", "cgroup2", "nsdelegate") + &line("blkio", "cgroup", "blkio");
        let at = |controller, mount: &str, unified| Hierarchy { controller, mount: Path::new("/sys/fs/cgroup").join(mount), unified };
        assert_eq!(detect(&hybrid, &offers), [at("cpuset", "cpuset", false), at("hugetlb", "unified", true), at("io", "blkio", false)]);
        let of_io = |mount: &Path| if mount.ends_with("unified") { "io\n".to_owned() } else { String::new() };
        assert_eq!(detect(&line("unified", "cgroup2", "nsdelegate"), &of_io), [at("io", "unified", true)]);
        assert_eq!(detect(&line("both", "cgroup", "hugetlb,cpuset"), &offers), [at("cpuset", "both", false), at("hugetlb", "both", false)]);
        assert_eq!(detect("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,cpuset\n", &offers), []);
    }

    #[test]
    fn the_first_file_that_is_there_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let [limit] = super::super::limits::block_io(Some(500), &[], &[]).try_into().unwrap();
        let chosen = || choose(dir.path(), &limit.file, &limit).map(|(file, value)| (file.file_name().unwrap().to_owned(), value));
        assert_eq!(chosen(), None);
        for (file, expected) in [("blkio.bfq.weight", "500"), ("io.weight", "4950"), ("io.bfq.weight", "500")] {
            std::fs::write(dir.path().join(file), "").unwrap();
            assert_eq!(chosen(), Some((file.into(), expected.to_owned())));
        }
    }

    #[test]
    fn limits_have_other_names_in_v1() {
        let names = ["cpuset.cpus", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"].map(in_v1);
        assert_eq!(names, ["cpuset.cpus", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.rsvd.limit_in_bytes"]);
    }
}
