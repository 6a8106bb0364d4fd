//! Keeps which pod has which ids of the host, in the pods' own directories: a pod's range is its own until nothing of the pod
//! is left on this host, whatever restarts meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::config::Layout;
use super::id_plan::{self, PoolError};
use super::volume;
use crate::cri::IdRange;

/// A pod has no range.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    #[error("find ids for a user namespace: {0}")]
    Pool(#[from] PoolError),
    #[error("find ids for a user namespace: every range of this host has a pod")]
    Full,
    #[error("find ids for a user namespace: {attempt} {path}: {source}")]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One choice at a time, so that no two pods get the same.
static CHOOSING: Mutex<()> = Mutex::new(());

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdError {
    let path = path.to_owned();
    move |source| IdError::File { attempt, path, source }
}

/// The range a pod has; `None`: none yet.
///
/// # Errors
/// What is on record cannot be read: nobody knows then which one it is.
pub fn recorded(layout: &Layout, uid: &str) -> Result<Option<IdRange>, IdError> {
    let path = layout.ids(uid);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("read", &path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// The range a pod has, or gets now.
///
/// # Errors
/// There is none to have, or it cannot be kept.
pub fn of_pod(layout: &Layout, uid: &str) -> Result<IdRange, IdError> {
    let _choosing = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(range) = recorded(layout, uid)? {
        return Ok(range);
    }
    let host = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(failed("read", Path::new(path))),
    };
    let pool = id_plan::pool(&host("/etc/subuid")?, &host("/etc/subgid")?)?;
    let others = volume::known_uids(layout).into_iter().map(|uid| recorded(layout, &uid));
    let taken = others.filter_map(Result::transpose).map(|range| range.map(|range| range.host)).collect::<Result<BTreeSet<u32>, _>>()?;
    let range = pool.free(&taken).ok_or(IdError::Full)?;
    let path = layout.ids(uid);
    write(&path, range).map_err(failed("write", &path))?;
    Ok(range)
}

/// On the disk before any process runs with it.
fn write(path: &Path, range: IdRange) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let next = path.with_extension("new");
    let mut file = fs::File::create(&next)?;
    file.write_all(serde_json::to_string(&range)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_pods_own_until_its_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let (a, b) = (of_pod(&layout, "a").unwrap(), of_pod(&layout, "b").unwrap());
        assert_ne!(a.host, b.host);
        assert_eq!(of_pod(&layout, "a").unwrap(), a, "asked again");
        assert_eq!(recorded(&layout, "b").unwrap(), Some(b));
        assert_eq!(recorded(&layout, "c").unwrap(), None);
        volume::tear_down(&layout, "a").unwrap();
        assert_eq!(of_pod(&layout, "c").unwrap(), a);
    }

    #[test]
    fn a_record_nobody_can_read_gives_no_range_away() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        of_pod(&layout, "a").unwrap();
        fs::write(layout.ids("a"), "{").unwrap();
        let refused = of_pod(&layout, "b").unwrap_err().to_string();
        assert!(refused.contains("read") && refused.contains("pods/a/ids"), "{refused}");
    }
}
