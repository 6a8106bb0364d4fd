//! CDI: devices that their vendors describe in files of this host, and containers ask for by name.
//!
//! `plan` (pure) reads the files and says what a container gets; here they are looked for, at each creation: the files of
//! /var/run/cdi come and go with what they describe.

mod plan;

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;
use rustix::fs::FileType;

pub use plan::CdiError;
use plan::{Document, Hook, Node};

use crate::cri::ContainerConfig;

/// So many files of a directory are looked at.
const FILES: usize = 1000;
/// A file is at most this long.
const FILE_BYTES: u64 = 4 << 20;

/// Gives a container the devices that it asks for. Returns the hooks that go with them; no `hooks`: nobody runs them.
pub fn inject(directories: &[PathBuf], config: &mut ContainerConfig, hooks: bool) -> Result<Option<oci::Hooks>, CdiError> {
    let wanted = plan::wanted(config)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut broken = Vec::new();
    // A later directory counts for more.
    let found: Vec<_> = directories.iter().rev().map(|directory| documents(directory, &mut broken)).collect();
    let all = plan::resolve(&wanted, &found, &broken)?;
    let refuse = |device: &str, cause: String| CdiError::Edit { device: device.to_owned(), cause };
    for (device, node) in &all.nodes {
        check(node).map_err(|cause| refuse(device, cause))?;
    }
    if let Some((device, hook)) = all.hooks.first().filter(|_| !hooks) {
        let text = format!("its hook {} ({}) takes another OCI runtime, which a RuntimeClass names", hook.path.display(), hook.hook_name);
        return Err(refuse(device, text));
    }
    all.apply(config);
    let mut wanted = oci::Hooks::default();
    for (device, hook) in &all.hooks {
        add(&mut wanted, hook).map_err(|cause| refuse(device, cause))?;
    }
    Ok((!all.hooks.is_empty()).then_some(wanted))
}

/// The files of a directory that can be read, by name.
fn documents(directory: &Path, broken: &mut Vec<String>) -> Vec<(PathBuf, Document)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let described = |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(described).take(FILES).collect();
    files.sort_unstable();
    let mut all = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let parsed = read(&path).map_err(|cause| format!("{name}: {cause}")).and_then(|bytes| plan::parse(&name, &bytes));
        match parsed {
            Ok(document) => all.push((path, document)),
            Err(cause) => broken.push(cause),
        }
    }
    all
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > FILE_BYTES {
        return Err(std::io::Error::other(format!("it is no file of at most {FILE_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// That the host's device is the one that is described.
fn check(node: &Node) -> Result<(), String> {
    let host = node.on_host();
    let stat = std::fs::metadata(host).map_err(|cause| format!("{} is not on this host: {cause}", host.display()))?;
    let kind = match FileType::from_raw_mode(stat.mode()) {
        FileType::BlockDevice => "b",
        FileType::CharacterDevice => "c",
        _ => return Err(format!("{} is no device", host.display())),
    };
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    // `u` is another word for `c`.
    let wanted = match node.kind.as_str() {
        "" => kind,
        "u" => "c",
        kind => kind,
    };
    // 0:0 is what says nothing.
    let numbers = node.major.zip(node.minor).filter(|numbers| *numbers != (0, 0)).unwrap_or((major, minor));
    if (wanted, numbers) == (kind, (major, minor)) {
        return Ok(());
    }
    Err(format!("{} is {kind} {major}:{minor} on this host, and not {wanted} {}:{}", host.display(), numbers.0, numbers.1))
}

/// Adds a hook to those of its name.
fn add(hooks: &mut oci::Hooks, hook: &Hook) -> Result<(), String> {
    if !hook.path.is_absolute() {
        return Err(format!("the path of hook {:?} is not absolute", hook.path.display()));
    }
    let mut built = oci::HookBuilder::default().path(hook.path.clone());
    if !hook.args.is_empty() {
        built = built.args(hook.args.clone());
    }
    if !hook.env.is_empty() {
        built = built.env(hook.env.clone());
    }
    if let Some(seconds) = hook.timeout.filter(|seconds| *seconds > 0) {
        built = built.timeout(seconds);
    }
    let built = built.build().map_err(|cause| cause.to_string())?;
    let with = |known: &Option<Vec<oci::Hook>>| Some(known.iter().flatten().cloned().chain([built.clone()]).collect::<Vec<_>>());
    match hook.hook_name.as_str() {
        #[allow(deprecated)]
        "prestart" => hooks.set_prestart(with(hooks.prestart())),
        "createRuntime" => hooks.set_create_runtime(with(hooks.create_runtime())),
        "createContainer" => hooks.set_create_container(with(hooks.create_container())),
        "startContainer" => hooks.set_start_container(with(hooks.start_container())),
        "poststart" => hooks.set_poststart(with(hooks.poststart())),
        "poststop" => hooks.set_poststop(with(hooks.poststop())),
        other => return Err(format!("{other:?} is no hook's name")),
    };
    Ok(())
}
