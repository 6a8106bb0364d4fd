//! A git repository of manifests.
//!
//! Reading one is work on hostile input by a large C library, so it happens in a child process (this
//! binary again, `podbay internal-git-fetch`) with resource limits, a time limit, an empty
//! environment, and, for a repository on this host, the rights of its owner.
//!
//! - `url`: which transports there are, and what may be printed of a URL
//! - `wire`: what parent and child say to each other, JSON over pipes
//! - `child`: the child: a repository on this host is read in place, any other through a shallow
//!   bare clone; blobs come straight from the commit's tree, nothing is ever checked out
//! - `hosts`: OpenSSH's `known_hosts`
//! - `sys`: what of OpenSSL is not linked
//!
//! Invariants: no message holds a token or a password; a commit that cannot be read whole is
//! unreachable, one that was read and is beyond a bound is refused.

pub mod child;
mod hosts;
mod read;
mod remote;
#[cfg(target_arch = "x86_64")]
mod sys;
mod url;
pub mod wire;

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::source::{Fetch, Fetched};
use crate::model::GitSource;
use url::Place;
use wire::{Answer, Bounds, Request};

/// How the child is started and bounded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program: this binary.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Clones live below it: `DATA_DIR/git`.
    pub clones_dir: PathBuf,
    pub time_limit: Duration,
    /// What one fetch may use.
    pub bounds: Bounds,
}

impl Options {
    /// This very binary as the child.
    pub fn new(clones_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["internal-git-fetch".to_owned()],
            clones_dir: clones_dir.into(),
            time_limit: Duration::from_secs(120),
            bounds: Bounds::default(),
        }
    }
}

/// What a child may answer at most: all the bytes a tree may have, in base64.
const ANSWER_BYTES: u64 = 256 << 20;
/// The end of what a child says on stderr.
const STDERR_BYTES: u64 = 64 << 10;

/// A git source.
pub struct Git {
    request: Request,
    /// A repository on this host: the directory.
    local: Option<String>,
    options: Options,
    /// What came of the last commit, so that it is not read again while it is the newest.
    last: Mutex<Option<Fetched>>,
}

impl Git {
    /// # Errors
    /// A sentence: the URL or its credentials cannot be used.
    pub fn new(name: &str, spec: &GitSource, path: &str, options: Options) -> Result<Self, String> {
        let place = Place::parse(spec)?;
        let mut request = Request::new(spec, path);
        request.bounds = options.bounds;
        request.clone_dir = options.clones_dir.join(clone_name(name)).display().to_string();
        let local = match place {
            Place::Local(directory) => Some(directory),
            Place::Https | Place::Http | Place::Ssh => None,
        };
        Ok(Self { request, local, options, last: Mutex::default() })
    }

    async fn ask(&self, request: &Request) -> Result<Answer, String> {
        let question = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let mut command = tokio::process::Command::new(&self.options.program);
        command.args(&self.options.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.env_clear().current_dir("/");
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // OpenSSL takes it from here, beside the system's directory of authorities.
        command.envs(request.ca_file.as_ref().map(|file| ("SSL_CERT_FILE", file)));
        // libgit2 looks for configuration and known hosts below HOME: there is none but ours, and none for the owner of
        // a repository, who may not look into our directories.
        command.env("HOME", if request.run_as.is_some() { "/nonexistent".to_owned() } else { format!("{}.home", request.clone_dir) });
        let mut child = command.spawn().map_err(|error| format!("start the fetch process: {error}"))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err("start the fetch process: no pipes".to_owned());
        };
        let talk = async {
            let (mut answer, mut complaint) = (Vec::new(), Vec::new());
            let (mut stdout, mut stderr) = (stdout.take(ANSWER_BYTES), stderr.take(STDERR_BYTES));
            let write = async move {
                let written = stdin.write_all(&question).await;
                drop(stdin);
                written
            };
            // A child that died before it read says why on stderr; the broken pipe is not news.
            let (_, read, _) = tokio::join!(write, stdout.read_to_end(&mut answer), stderr.read_to_end(&mut complaint));
            read.map_err(|error| format!("read from the fetch process: {error}"))?;
            let status = child.wait().await.map_err(|error| format!("wait for the fetch process: {error}"))?;
            Ok::<_, String>((status, answer, complaint))
        };
        let (status, answer, complaint) = tokio::time::timeout(self.options.time_limit, talk)
            .await
            .map_err(|_| format!("fetching took longer than {} seconds", self.options.time_limit.as_secs()))??;
        serde_json::from_slice(&answer).map_err(|_| {
            if let Some(why) = beyond(status.signal(), request.bounds) {
                return why;
            }
            let complaint = String::from_utf8_lossy(&complaint);
            let line = complaint.lines().last().unwrap_or_default();
            format!("the fetch process ended with {status} {}", line.escape_debug()).trim_end().to_owned()
        })
    }
}

#[async_trait]
impl Fetch for Git {
    async fn fetch(&self) -> Fetched {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = self.request.clone();
        // Now: it may have been made, or given away, since the daemon started.
        request.run_as = self.local.as_deref().and_then(owner_of);
        request.known_revision = last.as_ref().and_then(Fetched::revision).map(str::to_owned);
        let fetched = match self.ask(&request).await {
            Err(why) | Ok(Answer::Failed(why)) => return Fetched::Unreachable(format!("{}: {why}", url::printable(&request.url))),
            Ok(Answer::Unchanged) => {
                let never = "the fetch process knows nothing new of a repository never read";
                return last.unwrap_or_else(|| Fetched::Unreachable(never.to_owned()));
            }
            Ok(Answer::Refused { revision, why }) => Fetched::Refused { revision: Some(revision), why },
            Ok(Answer::Tree(tree)) => Fetched::Tree(tree.into_tree()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched.clone());
        fetched
    }
}

/// Which bound a child was ended by.
fn beyond(signal: Option<i32>, bounds: Bounds) -> Option<String> {
    match Signal::try_from(signal?).ok()? {
        Signal::SIGXCPU => Some(format!("fetching used more than {} seconds of CPU time", bounds.cpu_seconds)),
        Signal::SIGXFSZ => Some(format!("fetching wrote a file of more than {} bytes", bounds.file_bytes)),
        // What cannot allocate aborts.
        Signal::SIGABRT => Some(format!("fetching needed more than {} bytes of memory", bounds.memory_bytes)),
        _ => None,
    }
}

/// A source's name is a DNS name; its clone's directory is called the same.
fn clone_name(source: &str) -> String {
    source.chars().map(|letter| if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.') { letter } else { '_' }).collect()
}

/// The owner whose rights a local repository is read with; only root can become somebody else.
fn owner_of(directory: &str) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let meta = std::fs::metadata(directory).ok()?;
    (meta.uid() != 0).then_some((meta.uid(), meta.gid()))
}

#[cfg(test)]
mod tests;
