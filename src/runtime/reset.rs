//! Takes every trace of the engine off the host: on half-made state, without an engine, as often as one likes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::cgroup::Tree;
use super::record::{self, SandboxRecord};
use super::{Options, RuntimeError};
use crate::network::PodNetwork;

/// What is still there, for a person or a test to compare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    pub processes: Vec<i32>,
    pub mounts: Vec<PathBuf>,
    pub cgroup: bool,
    pub sandboxes: Vec<String>,
}

impl Remains {
    /// Looks at the host.
    pub fn look(options: &Options) -> Result<Self, RuntimeError> {
        let cgroups = Tree::detect(&options.cgroup_root)?;
        let sandboxes = sandboxes(&options.root_dir);
        let all = std::iter::once("").chain(cgroups_elsewhere(&sandboxes));
        let mut processes: Vec<i32> = all.flat_map(|path| cgroups.processes(path)).collect();
        processes.sort_unstable();
        Ok(Self {
            processes,
            mounts: mounts_below(&[&options.run_dir, &options.root_dir]),
            cgroup: cgroups.exists(),
            sandboxes: sandboxes.into_iter().map(|(name, _)| name).collect(),
        })
    }
}

/// Kills all processes of all pods, then takes mounts, interfaces, cgroups and files away. No engine may run.
pub async fn reset(options: &Options, network: &dyn PodNetwork) -> Result<(), RuntimeError> {
    let cgroups = Tree::detect(&options.cgroup_root)?;
    let sandboxes = sandboxes(&options.root_dir);
    for path in std::iter::once("").chain(cgroups_elsewhere(&sandboxes)) {
        cgroups.kill(path)?;
    }
    for (_, record) in &sandboxes {
        if let Some(record) = record.as_ref().filter(|record| !record.config.host_network) {
            network.detach(record.network_key()).await?;
        }
    }
    for mount in mounts_below(&[&options.run_dir, &options.root_dir]).into_iter().rev() {
        rustix::mount::unmount(&mount, UnmountFlags::DETACH).map_err(|errno| RuntimeError::file("unmount", &mount)(errno.into()))?;
    }
    for path in std::iter::once("").chain(cgroups_elsewhere(&sandboxes)) {
        cgroups.remove(path)?;
    }
    // After a boot all that is there was made by others since.
    let boot_id = record::boot_id();
    let records = sandboxes.iter().filter_map(|(_, record)| record.as_ref()).filter(|record| record.boot_id == boot_id);
    let made: BTreeSet<&PathBuf> = records.flat_map(|record| &record.made_cgroups).collect();
    // What lies below others first; somebody else may be in it.
    made.into_iter().rev().for_each(|directory| drop(std::fs::remove_dir(directory)));
    for dir in [options.run_dir.join("sandboxes"), options.root_dir.join("sandboxes"), options.trash_dir()] {
        match std::fs::remove_dir_all(&dir) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(RuntimeError::file("remove", &dir)(cause)),
            _ => {}
        }
    }
    Ok(())
}

/// Cgroups of pods that are not below our root, where a client wanted them.
fn cgroups_elsewhere(sandboxes: &[(String, Option<SandboxRecord>)]) -> impl Iterator<Item = &str> {
    let all = sandboxes.iter().filter_map(|(_, record)| record.as_ref());
    all.map(|record| record.config.cgroup_parent.as_str()).filter(|path| path.starts_with('/'))
}

/// Their directories' names, and records as far as they can be read.
fn sandboxes(root_dir: &Path) -> Vec<(String, Option<SandboxRecord>)> {
    let entries = std::fs::read_dir(root_dir.join("sandboxes")).into_iter().flatten().flatten();
    let read = |entry: std::fs::DirEntry| {
        let record = record::read(&entry.path().join("sandbox.json")).ok();
        (entry.file_name().to_string_lossy().into_owned(), record)
    };
    entries.map(read).collect()
}

/// In the order they were mounted. Not what is mounted on such a directory itself: that is the host's.
fn mounts_below(dirs: &[&Path]) -> Vec<PathBuf> {
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // As the kernel names them: a link may lead to them.
    let of = |dir: PathBuf| dir.canonicalize().unwrap_or(dir);
    let ours: Vec<PathBuf> = dirs.iter().map(|dir| of(dir.join("sandboxes"))).collect();
    let points = info.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| ours.iter().any(|dir| point != dir && point.starts_with(dir))).collect()
}

/// mountinfo writes blanks as `\040`.
pub fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('\\') {
        out.push_str(head);
        let code = tail.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &tail[3..];
            }
            None => {
                out.push('\\');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points() {
        assert_eq!(unescape("/a\\040b/c\\\\"), PathBuf::from("/a b/c\\\\"));
    }
}
