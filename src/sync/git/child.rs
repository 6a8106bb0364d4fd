//! The fetch process: bounds itself, gives up rights it does not need, answers one request.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::read::ReadError;
use super::url::Place;
use super::wire::{Answer, Request, WireTree};
use super::{read, remote};
use crate::model::GitSource;

/// What `podbay internal-git-fetch` does: one request on stdin, one answer on stdout. Must run before
/// any thread is started.
pub fn main() -> ExitCode {
    let mut question = Vec::new();
    let read = std::io::stdin().lock().take(1 << 20).read_to_end(&mut question);
    let answer = match read
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_slice::<Request>(&question).map_err(|error| error.to_string()))
    {
        Ok(request) => match confine(&request) {
            Ok(()) => serve(&request),
            Err(error) => Answer::Failed(format!("confine the fetch process: {error}")),
        },
        Err(error) => Answer::Failed(format!("read the request: {error}")),
    };
    let written = serde_json::to_vec(&answer).map_err(std::io::Error::other).and_then(|bytes| std::io::stdout().write_all(&bytes));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Limits first, then rights: nothing is read before.
fn confine(request: &Request) -> nix::Result<()> {
    let bounds = request.bounds;
    for (resource, soft, hard) in [
        (Resource::RLIMIT_AS, bounds.memory_bytes, bounds.memory_bytes),
        (Resource::RLIMIT_FSIZE, bounds.file_bytes, bounds.file_bytes),
        // The signal of the soft limit says which one it was.
        (Resource::RLIMIT_CPU, bounds.cpu_seconds, bounds.cpu_seconds + 1),
        (Resource::RLIMIT_CORE, 0, 0),
    ] {
        setrlimit(resource, soft, hard)?;
    }
    if let Some((uid, gid)) = request.run_as {
        setgroups(&[])?;
        setgid(Gid::from_raw(gid))?;
        setuid(Uid::from_raw(uid))?;
    }
    renounce()
}

/// What comes over the network is parsed by C libraries: no right of root's is left to whoever takes
/// them over, but to read the files (keys, certificates, working copies) that the source names.
fn renounce() -> nix::Result<()> {
    let failed = |_| nix::errno::Errno::EPERM;
    nix::sys::prctl::set_no_new_privs()?;
    let kept: caps::CapsHashSet = caps::read(None, caps::CapSet::Permitted).map_err(failed)?;
    let kept: caps::CapsHashSet = kept.into_iter().filter(|one| *one == caps::Capability::CAP_DAC_READ_SEARCH).collect();
    for set in [caps::CapSet::Ambient, caps::CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed)?;
    }
    for set in [caps::CapSet::Effective, caps::CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(failed)?;
    }
    Ok(())
}

/// Held for as long as the clone is used.
fn turn(clone_dir: &str) -> Result<File, String> {
    let path = format!("{clone_dir}.lock");
    let failed = |error: std::io::Error| format!("lock {path}: {error}");
    if let Some(above) = Path::new(&path).parent() {
        std::fs::create_dir_all(above).map_err(failed)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Carries out a request with the rights this process has.
pub fn serve(request: &Request) -> Answer {
    let spec = GitSource {
        url: request.url.clone(),
        token_file: request.token_file.clone(),
        ca_file: request.ca_file.clone(),
        ssh_key_file: request.ssh_key_file.clone(),
        known_hosts_file: request.known_hosts_file.clone(),
        ..GitSource::default()
    };
    let commit = Place::parse(&spec).and_then(|place| match place {
        Place::Local(path) => read::open(&path, request.reference.as_deref()).map(|found| (found, None)),
        Place::Https | Place::Http | Place::Ssh => {
            // One at a time: a preview fetches as well, and the clone may have to be made anew.
            let turn = turn(&request.clone_dir)?;
            remote::fetch(request, &place).map(|found| (found, Some(turn)))
        }
    });
    match commit {
        Ok(((_, commit), _)) if request.known_revision.as_deref() == Some(&commit.to_string()) => Answer::Unchanged,
        Ok(((repository, commit), _turn)) => match read::tree(&repository, commit, &request.path, request.limits) {
            Ok(tree) => Answer::Tree(WireTree::new(&tree)),
            Err(ReadError::Refused(why)) => Answer::Refused { revision: commit.to_string(), why: why.to_string() },
            Err(ReadError::Unread(why)) => Answer::Failed(why),
        },
        Err(error) => Answer::Failed(error),
    }
}
