//! The host's device nodes, for containers that are given some.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use super::RuntimeError;
use super::devices::Node;
use super::launch::plan::is_own_device;
use crate::cri::{ContainerConfig, CriError, Device};

/// So many nodes one container is given by name, at most.
const LIMIT: usize = 1000;
/// Below a directory of devices, what is a container's own or none of a device.
const OWN_DIRECTORIES: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// What is there, if it is a device. Links are not followed.
fn look(host: &Path, path: PathBuf, access: &str) -> Option<Node> {
    let stat = std::fs::symlink_metadata(host).ok()?;
    let block = match FileType::from_raw_mode(stat.mode()) {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => false,
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
    Some(Node { host: host.to_owned(), path, block, major, minor, mode, uid, gid, access: access.to_owned() })
}

/// The device nodes in the host's /dev and below, but what a container has of its own.
pub fn all() -> Vec<Node> {
    let own = ["pts", "shm", "mqueue", "ptmx", "console"].map(|name| Path::new("/dev").join(name));
    let (mut all, mut open) = (Vec::new(), vec![PathBuf::from("/dev")]);
    while let Some(dir) = open.pop() {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !own.contains(&entry.path())) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_char_device() || kind.is_block_device() => all.extend(look(&entry.path(), entry.path(), "rwm")),
                _ => {}
            }
        }
    }
    all.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    all
}

/// The nodes that a container's configuration names, with every one below where it names a directory, as containerd has it.
///
/// # Errors
/// There is no such device, or the container cannot have it there.
pub fn named(config: &ContainerConfig) -> Result<Vec<Node>, RuntimeError> {
    let mut nodes = Vec::new();
    for device in &config.devices {
        let invalid = |cause: &str| CriError::Invalid(format!("device {}: {cause}", device.host_path.display()));
        if !is_place(&device.container_path) {
            return Err(invalid(&format!("{} is no place for it in a container", device.container_path.display())).into());
        }
        let host = device.host_path.canonicalize().map_err(|cause| invalid(&format!("it is not on this host: {cause}")))?;
        match look(&host, device.container_path.clone(), &device.permissions) {
            Some(node) => nodes.push(node),
            None if host.is_dir() && host.starts_with("/dev") => below(&host, device, &mut nodes),
            None => return Err(invalid("it is no device of this host").into()),
        }
        if nodes.len() > LIMIT {
            return Err(invalid(&format!("with it there are more than {LIMIT} in container {}", config.metadata.name)).into());
        }
    }
    match nodes.iter().find(|node| is_own_device(&node.path) && node.path != node.host) {
        Some(node) => {
            let text = format!("device {}: every container has one of its own at {}", node.host.display(), node.path.display());
            Err(CriError::Invalid(text).into())
        }
        None => {
            nodes.retain(|node| !is_own_device(&node.path));
            Ok(nodes)
        }
    }
}

/// An absolute path without detours, and not into what the kernel shows there.
fn is_place(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let shown = ["/proc", "/sys"].iter().any(|root| path.starts_with(root));
    path.is_absolute() && plain && !shown && path != Path::new("/")
}

/// Every node below a directory of the host, at the same places below the container's. One more than may be is enough.
fn below(host: &Path, device: &Device, nodes: &mut Vec<Node>) {
    let mut open = vec![(host.to_owned(), device.container_path.clone())];
    while let Some((dir, at)) = open.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&dir).into_iter().flatten().flatten().collect();
        entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && OWN_DIRECTORIES.iter().any(|own| name == *own) => {}
                Ok(kind) if kind.is_dir() => open.push((path, at.join(&name))),
                Ok(_) if name != "console" => nodes.extend(look(&path, at.join(&name), &device.permissions)),
                _ => {}
            }
            if nodes.len() > LIMIT {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &Path, container: &str) -> Result<Vec<Node>, String> {
        let device = Device { host_path: host.into(), container_path: container.into(), permissions: "rw".into() };
        let config = ContainerConfig { devices: vec![device], ..ContainerConfig::default() };
        named(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_a_link_to_one_and_a_directory_of_some_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let one = of(&link, "/dev/given").unwrap();
        assert_eq!(
            (one[0].host.as_path(), one[0].path.as_path(), one[0].line().as_str()),
            ("/dev/zero".as_ref(), "/dev/given".as_ref(), "c 1:5 rw")
        );
        let some = of(Path::new("/dev"), "/dev/host").unwrap();
        let at = |path: &str| some.iter().any(|node| node.path == Path::new(path));
        assert!(
            at("/dev/host/null") && !at("/dev/host/console") && !some.iter().any(|node| node.path.starts_with("/dev/host/pts")),
            "{some:?}"
        );
        assert!(of(dir.path(), "/dev/none").is_err(), "those of the host are below /dev");
        assert_eq!(of(Path::new("/dev/null"), "/dev/null").unwrap(), [], "it is there anyway");
    }

    #[test]
    fn what_is_no_device_or_no_place_for_one_is_refused() {
        for (host, container, word) in [
            ("/etc/passwd", "/dev/x", "no device"),
            ("/dev/not-there", "/dev/x", "not on this host"),
            ("/dev/zero", "/dev/null", "its own"),
            ("/dev/zero", "/dev/ptmx", "its own"),
            ("/dev/zero", "dev/x", "no place"),
            ("/dev/zero", "/dev/../etc/x", "no place"),
            ("/dev/zero", "/proc/self/x", "no place"),
            ("/dev/zero", "/sys/x", "no place"),
            ("/dev/zero", "/", "no place"),
        ] {
            let refused = of(Path::new(host), container);
            assert!(refused.as_ref().is_err_and(|text| text.contains(word)), "{host} at {container}: {refused:?}");
        }
    }
}
