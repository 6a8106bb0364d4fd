//! Keeps the logs of a runtime that does not do it itself within their limits, as the kubelet's container log manager:
//! the file is moved away, then the runtime is told to write on into a new one. `log_plan` decides.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, RenameFlags};

use super::context::Context;
use super::log_plan::{Limits, Seen, Step, plan};
use super::node_api::logs::Folder;
use super::observed::is_running;
use crate::cri::{CriError, Runtime};

/// Between two looks, as the kubelet's `containerLogMonitorInterval`.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for ever; not at all where the runtime does it itself.
pub async fn run(context: Arc<Context>) {
    if context.runtime.rotates_logs() {
        return;
    }
    let logs = context.layout.all_logs();
    loop {
        if let Err(error) = look(&*context.runtime, &logs, Limits::default()).await {
            tracing::warn!(%error, "cannot look after the logs");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One look at the logs of all that runs, of those below `logs`.
async fn look(runtime: &dyn Runtime, logs: &Path, limits: Limits) -> Result<(), CriError> {
    for container in runtime.list_answering().await?.iter().filter(|one| is_running(one) && one.log_path.starts_with(logs)) {
        if let Err(cause) = rotate(runtime, &container.id, &container.log_path, limits).await {
            // The others' are looked at all the same.
            tracing::warn!(container = container.id, log = %container.log_path.display(), %cause, "a log is not rotated");
        }
    }
    Ok(())
}

async fn rotate(runtime: &dyn Runtime, id: &str, path: &Path, limits: Limits) -> Result<(), CriError> {
    let failed = |cause: io::Error| CriError::failed(format!("rotate the log {}", path.display()), cause);
    let reopen = aside(path, move |folder| {
        let steps = plan(&seen(folder)?, limits);
        steps.iter().try_for_each(|step| act(folder, *step))?;
        Ok(steps.contains(&Step::Reopen))
    });
    if !reopen.await.map_err(failed)? {
        return Ok(());
    }
    if let Err(error) = runtime.reopen_container_log(id).await {
        // It is written on under its new name; under the old one it is found. Unless the runtime made a new one after all.
        aside(path, |folder| Ok(renamed(folder, 1, 0).ok())).await.map_err(failed)?;
        return Err(error);
    }
    Ok(())
}

/// Files are looked at on a thread that may wait.
async fn aside<T: Send + 'static>(path: &Path, work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let path: PathBuf = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&Folder::open(&path)?)).await;
    done.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn numbered(folder: &Folder, number: u32) -> String {
    if number == 0 { folder.name.clone() } else { format!("{}.{number}", folder.name) }
}

/// Something else in a log's place is none of ours.
fn seen(folder: &Folder) -> io::Result<Seen> {
    let bytes = match rustix::fs::statat(&folder.directory, &folder.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Some(u64::try_from(stat.st_size).unwrap_or(0)),
        Ok(_) => return Err(io::Error::other("it is no file")),
        Err(rustix::io::Errno::NOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    let prefix = format!("{}.", folder.name);
    let number = |file: String| file.strip_prefix(&prefix)?.parse().ok().filter(|number| *number > 0 && numbered(folder, *number) == file);
    Ok(Seen { bytes, older: folder.files()?.into_iter().filter_map(number).collect() })
}

fn act(folder: &Folder, step: Step) -> io::Result<()> {
    match step {
        Step::Remove(number) => Ok(rustix::fs::unlinkat(&folder.directory, numbered(folder, number), AtFlags::empty())?),
        Step::Age(number) => renamed(folder, number, number + 1),
        Step::Reopen => Ok(()),
    }
}

/// Never over another one.
fn renamed(folder: &Folder, from: u32, to: u32) -> io::Result<()> {
    let (from, to, at) = (numbered(folder, from), numbered(folder, to), &folder.directory);
    Ok(rustix::fs::renameat_with(at, from, at, to, RenameFlags::NOREPLACE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::fake::FakeRuntime;
    use crate::cri::{ContainerConfig, PodSandboxConfig};

    fn text(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[tokio::test]
    async fn full_logs_are_moved_away_and_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let sandbox = PodSandboxConfig { log_directory: dir.path().join("pod"), ..PodSandboxConfig::default() };
        let sandbox = runtime.run_pod_sandbox(&sandbox).await.unwrap();
        let config = ContainerConfig { command: vec!["sleep".into()], log_path: "main/0.log".into(), ..ContainerConfig::default() };
        let id = runtime.create_container(&sandbox, &config).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let log = dir.path().join("pod/main/0.log");
        let older = |number: u32| log.with_file_name(format!("0.log.{number}"));
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        let limits = Limits { max_bytes: 3, max_files: 3 };
        for (written, expected) in [
            ("a", [Some("a"), None, None]),
            ("one", [Some(""), Some("one"), None]),
            ("two", [Some(""), Some("two"), Some("one")]),
            ("three", [Some(""), Some("three"), Some("two")]),
        ] {
            std::fs::write(&log, written).unwrap();
            look(&runtime, dir.path(), limits).await.unwrap();
            let found = [text(&log), text(&older(1)), text(&older(2))];
            assert_eq!(found.each_ref().map(Option::as_deref), expected);
        }
        // Another's log, and a link in a log's place, are left alone.
        look(&runtime, Path::new("/elsewhere"), Limits { max_bytes: 0, ..limits }).await.unwrap();
        std::fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink(older(1), &log).unwrap();
        look(&runtime, dir.path(), limits).await.unwrap();
        assert_eq!((text(&older(1)).as_deref(), log.is_symlink()), (Some("three"), true));
        // A runtime that cannot takes one, and no more however often it is tried.
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, "four").unwrap();
        runtime.fail_reopening(true);
        for _ in 0..3 {
            look(&runtime, dir.path(), limits).await.unwrap();
            let found = [text(&log), text(&older(1)), text(&older(2))];
            assert_eq!(found.each_ref().map(Option::as_deref), [Some("four"), None, Some("three")]);
        }
        runtime.fail_reopening(false);
        look(&runtime, dir.path(), limits).await.unwrap();
        let found = [text(&log), text(&older(1)), text(&older(2))];
        assert_eq!(found.each_ref().map(Option::as_deref), [Some(""), Some("four"), Some("three")]);
    }
}
