//! The last known pods of this node on disk: what the agent goes by when it starts and the server is away.
//!
//! One file a pod, `DATA_DIR/agent/pods/<uid>.json`, 0600. The pod's object only: values of Secrets are
//! never in it. Beside it, while its containers are being resized, `<uid>.resize`: the sizes of which it was told that they
//! are given.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::observed::uid;

/// Why a record cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("write {path}: {source}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn file(dir: &Path, uid: &str) -> PathBuf {
    dir.join(format!("{uid}.json"))
}

/// Keeps the pod; nothing is written when the same is already there.
///
/// # Errors
/// The file cannot be written.
pub fn save(dir: &Path, pod: &Pod) -> Result<(), RecordError> {
    let path = file(dir, uid(pod));
    let failed = |source| RecordError::Write { path: path.clone(), source };
    let mut pod = pod.clone();
    pod.metadata.managed_fields = None;
    let json = serde_json::to_vec(&pod).map_err(|cause| failed(cause.into()))?;
    if fs::read(&path).is_ok_and(|old| old == json) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let next = path.with_extension("json.new");
        let mut options = fs::OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        io::Write::write_all(&mut out, &json)?;
        fs::rename(&next, &path)
    };
    write().map_err(failed)
}

/// Forgets the pod. No error when it was not known.
///
/// # Errors
/// A file cannot be deleted.
pub fn forget(dir: &Path, uid: &str) -> Result<(), RecordError> {
    remove(resize_file(dir, uid))?;
    remove(file(dir, uid))
}

fn remove(path: PathBuf) -> Result<(), RecordError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordError::Write { path, source }),
        _ => Ok(()),
    }
}

fn resize_file(dir: &Path, uid: &str) -> PathBuf {
    dir.join(format!("{uid}.resize"))
}

/// Notes the sizes that a pod's containers began to get; `None`: that they have what they are to have.
///
/// # Errors
/// The file cannot be written or deleted.
pub fn note_resize(dir: &Path, uid: &str, sizes: Option<&str>) -> Result<(), RecordError> {
    let path = resize_file(dir, uid);
    let Some(sizes) = sizes else { return remove(path) };
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(&path, sizes));
    written.map_err(|source| RecordError::Write { path, source })
}

/// What was noted so, by whatever process.
pub fn resize(dir: &Path, uid: &str) -> Option<String> {
    fs::read_to_string(resize_file(dir, uid)).ok()
}

/// Every pod that is known, by UID. A file that is not a pod (cut off by a crash) is left out, loudly.
pub fn load(dir: &Path) -> Vec<Pod> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort_unstable();
    let read = |path: &PathBuf| {
        let pod = fs::read(path).map_err(|cause| cause.to_string());
        match pod.and_then(|bytes| serde_json::from_slice::<Pod>(&bytes).map_err(|cause| cause.to_string())) {
            Ok(pod) => Some(pod),
            Err(cause) => {
                tracing::warn!(path = %path.display(), cause, "the record of a pod cannot be read");
                None
            }
        }
    };
    paths.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid}, "spec": {"containers": [{"name": "main"}]}}),
        )
        .unwrap()
    }

    #[test]
    fn pods_are_kept_found_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &pod("b")).unwrap();
        save(dir.path(), &pod("a")).unwrap();
        fs::write(dir.path().join("c.json"), "{").unwrap();
        assert_eq!(load(dir.path()), [pod("a"), pod("b")]);
        let meta = fs::metadata(dir.path().join("a.json")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        save(dir.path(), &pod("a")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a.json")).unwrap().ino(), meta.ino(), "the same again writes nothing");
        note_resize(dir.path(), "a", Some("main {}\n")).unwrap();
        assert_eq!((resize(dir.path(), "a").as_deref(), resize(dir.path(), "b")), (Some("main {}\n"), None));
        assert_eq!(load(dir.path()).len(), 2, "it is no pod");
        forget(dir.path(), "a").unwrap();
        forget(dir.path(), "a").unwrap();
        assert_eq!(resize(dir.path(), "a"), None);
        note_resize(dir.path(), "b", None).unwrap();
        assert_eq!(load(dir.path()), [pod("b")]);
        assert_eq!(load(Path::new("/nonexistent")), []);
    }
}
