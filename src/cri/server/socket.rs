//! The server's socket: root's alone, and never taken from a server that lives.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Who waits to be let in.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{0}: another process serves on this socket already")]
    Busy(PathBuf),
    #[error("{0} is there and is no socket: it is left alone")]
    NoSocket(PathBuf),
    #[error("{attempt} {path}: {cause}")]
    Failed { attempt: &'static str, path: PathBuf, cause: std::io::Error },
}

/// Listens at a path; what a dead server left there is replaced.
///
/// # Errors
/// See [`SocketError`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let fail = |attempt| move |cause| SocketError::Failed { attempt, path: path.to_owned(), cause };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail("make the directory of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::Busy(path.to_owned())),
            // Nobody listens.
            Err(cause) if cause.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(fail("remove the old socket"))?;
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            // It may only be slow.
            Err(cause) => return Err(fail("find out who serves at")(cause)),
        },
        Err(_) => {}
    }
    listen(path).map_err(fail("listen at"))
}

/// Who may speak here is root of the host, from the first moment on: nobody connects before it listens.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_never_taken_from_who_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/cri.sock");
        let first = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(SocketError::Busy(_))));
        drop(first);
        bind(&path).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(&file), Err(SocketError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
