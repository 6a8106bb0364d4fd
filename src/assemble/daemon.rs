//! A daemon's surroundings: its lock, its log, its signals, its word to systemd.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::resident;

/// A start is over by then, with everything that it had to catch up on.
const SETTLED: Duration = Duration::from_secs(30);
const GIVE_BACK_EVERY: Duration = Duration::from_secs(600);

/// Says that a daemon of this role works on these directories, for as long as the process lives.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

fn lock_path(dir: &Path, role: &str) -> PathBuf {
    dir.join(format!("{role}.lock"))
}

impl Lock {
    /// Takes the role (`server`, `agent`) of the run directory and of the data directory: two
    /// daemons that share either would undo each other's work.
    ///
    /// # Errors
    /// When another process has it: its pid is named.
    pub fn take(dirs: &[&Path], role: &str) -> anyhow::Result<Self> {
        let files = dirs.iter().map(|dir| Self::take_one(dir, role)).collect::<anyhow::Result<_>>()?;
        Ok(Self { _files: files })
    }

    fn take_one(dir: &Path, role: &str) -> anyhow::Result<File> {
        make_private_dir(dir)?;
        let path = lock_path(dir, role);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).with_context(|| format!("read {}", path.display()))?;
            bail!("a podbay {role} (pid {}) already works with {}", pid.trim(), dir.display());
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }
}

/// Pods are namespaces, mounts, cgroups and firewall rules: a node without the rights would register
/// and then run nothing.
///
/// # Errors
/// When this process is not root.
pub fn demand_root(verb: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("`podbay {verb}` needs root: it makes namespaces, mounts, cgroups and firewall rules")
}

/// Makes a directory that only root enters.
pub fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("make directory {}", path.display()))
}

/// Makes these directories below the data directory private, also those that an earlier version or another
/// umask left open.
pub fn make_private_data(data_dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    make_private_dir(data_dir)?;
    for name in names {
        let path = data_dir.join(name);
        make_private_dir(&path)?;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, mode).with_context(|| format!("make {} private", path.display()))?;
    }
    Ok(())
}

/// The pid of the daemon that holds a role, if one does.
pub fn holder(dir: &Path, role: &str) -> Option<Pid> {
    let mut file = File::open(lock_path(dir, role)).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    Pid::from_raw(pid.trim().parse().ok()?)
}

/// Ends the daemons of these directories: SIGTERM, then after 20 s SIGKILL.
///
/// # Errors
/// When one does not end.
pub fn stop(dirs: &[&Path]) -> anyhow::Result<()> {
    let own = rustix::process::getpid();
    for (dir, role) in dirs.iter().flat_map(|dir| ["server", "agent"].map(|role| (*dir, role))) {
        let Some(pid) = holder(dir, role).filter(|pid| *pid != own) else { continue };
        let started = Instant::now();
        let mut killed = false;
        // A process that is gone already is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
        while holder(dir, role) == Some(pid) {
            if !killed && started.elapsed() > Duration::from_secs(20) {
                let _ = kill_process(pid, Signal::KILL);
                killed = true;
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("the podbay {role} (pid {}) does not end", pid.as_raw_nonzero());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Logs go to standard error, which is the journal under systemd. `PODBAY_LOG` filters them.
pub fn start_log() {
    let filter =
        EnvFilter::try_from_env("PODBAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube=warn,tower=warn,hyper=warn,rustls=warn"));
    let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Fails only when a test installed its own: then that one is used.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(!plain).with_target(false).try_init();
}

/// Cancelled by SIGTERM and SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn end_on_signals() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ended.cancel();
    });
    Ok(token)
}

/// Tells systemd that the daemon is ready, and feeds its watchdog until the end.
pub fn tell_ready(end: CancellationToken) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(limit / 3);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = beat.tick() => { let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); }
            }
        }
    });
}

/// From the start's end on, gives memory back that was needed for a while: heap that the C library keeps otherwise, and
/// code that only a start runs.
pub fn give_memory_back(end: CancellationToken) {
    tokio::spawn(async move {
        let mut wait = SETTLED;
        while tokio::time::timeout(wait, end.cancelled()).await.is_err() {
            resident::give_memory_back();
            wait = GIVE_BACK_EVERY;
        }
    });
}

/// Tells systemd that the daemon is on its way out.
pub fn tell_stopping() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_leave_on_disk_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        std::fs::set_permissions(dir.path().join("pods"), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private_data(dir.path(), &["pods", "logs"]).unwrap();
        for name in ["pods", "logs"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
    }

    #[test]
    fn a_directory_has_one_daemon_a_role() {
        let (run, other, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(holder(run.path(), "server"), None);
        let lock = Lock::take(&[run.path(), data.path()], "server").unwrap();
        assert_eq!(holder(run.path(), "server"), Some(rustix::process::getpid()));
        // Another run directory does not make it another node: the data are the same.
        let refused = Lock::take(&[other.path(), data.path()], "server").unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())) && refused.contains("already works with"), "{refused}");
        Lock::take(&[run.path(), data.path()], "agent").unwrap();
        drop(lock);
        Lock::take(&[other.path(), data.path()], "server").unwrap();
    }
}
