//! Whether mounts can spread as a volume asks for. PURE, but for the host's mount table.

use std::path::{Path, PathBuf};

use super::reset::unescape;
use crate::cri::{CriError, Mount};

/// Refuses a volume whose mounts would silently stay where they are made: the host's mount that it lies on has to be shared,
/// or, to let the host's mounts in, at least a slave (Kubernetes, "Mount propagation"; mount_namespaces(7)).
///
/// # Errors
/// Names the volume, the mount it is on, and what that is not.
pub fn check(mounts: &[Mount]) -> Result<(), CriError> {
    let asks = |mount: &&Mount| matches!(mount.propagation.as_str(), "rshared" | "rslave");
    let mut asking = mounts.iter().filter(asks).peekable();
    if asking.peek().is_none() {
        return Ok(());
    }
    let info = std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| CriError::failed("read /proc/self/mountinfo", error))?;
    for mount in asking {
        // As the kernel names it: a link may lead there. What is not there yet is made where it is said.
        let path = mount.host_path.canonicalize().unwrap_or_else(|_| mount.host_path.clone());
        let refused = |why| CriError::failed(format!("mount {} on {}", mount.host_path.display(), mount.container_path.display()), why);
        judge(&info, &path, &mount.propagation).map_err(refused)?;
    }
    Ok(())
}

/// `info`: mountinfo (proc_pid_mountinfo(5)), whose optional fields say `shared:` and `master:`.
fn judge(info: &str, path: &Path, propagation: &str) -> Result<(), String> {
    let mounts = info.lines().filter_map(|line| {
        let (point, fields) = (unescape(line.split(' ').nth(4)?), line.split(' ').skip(6));
        path.starts_with(&point).then(|| (point, fields.take_while(|field| *field != "-").collect::<Vec<_>>()))
    });
    // Of those on one another the last is what is seen.
    let Some((point, fields)) = mounts.max_by_key(|(point, _): &(PathBuf, _)| point.components().count()) else { return Ok(()) };
    let is = |word: &str| fields.iter().any(|field| field.starts_with(word));
    let (holds, wanted) = match propagation {
        "rshared" => (is("shared:"), "a shared mount"),
        _ => (is("shared:") || is("master:"), "a shared or slave mount"),
    };
    if holds { Ok(()) } else { Err(format!("path {path:?} is mounted on {point:?} but it is not {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_volume_lies_on_decides() {
        let info = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    30 27 0:30 / /srv rw shared:1 - tmpfs a rw\n\
                    31 30 0:31 / /srv/slave\\040one rw master:1 - tmpfs b rw\n\
                    32 30 0:32 / /srv/over rw shared:7 master:2 - tmpfs c rw\n\
                    33 32 0:33 / /srv/over rw - tmpfs d rw\n";
        for (path, shared, slave) in [
            ("/srv", true, true),
            ("/srv/a", true, true),
            ("/srv/slave one/a", false, true),
            ("/srv/over/a", false, false),
            ("/srva", false, false),
        ] {
            let holds = |propagation| judge(info, Path::new(path), propagation).is_ok();
            assert_eq!((holds("rshared"), holds("rslave")), (shared, slave), "{path}");
        }
        let why = judge(info, Path::new("/var/x"), "rshared").unwrap_err();
        assert_eq!(why, r#"path "/var/x" is mounted on "/" but it is not a shared mount"#);
    }
}
