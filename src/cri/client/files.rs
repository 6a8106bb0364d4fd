//! Files of the host that containers get mounted: /etc/hosts of their pod, and one for their last words.
//!
//! ```text
//! DIR/<sandbox>/config               what it was made from: each of its containers is made with it again
//! DIR/<sandbox>/hosts
//! DIR/<sandbox>/message-<random>    named in the container's annotation
//! ```

use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use prost::Message as _;

use crate::cri::wire::{self, sandbox::namespaces_from_wire};
use crate::cri::{ContainerConfig, ContainerState, ContainerStatus, Mount, Namespaces, PodSandbox, PodSandboxConfig};
use crate::runtime::files::{hosts, hosts_of_host};

/// Which file a container's termination message is in.
const ANNOTATION: &str = "podbay.dev/termination-message-file";
/// As much of a termination message as Kubernetes keeps.
const MESSAGE_LIMIT_BYTES: u64 = 4096;
const HOSTS: &str = "/etc/hosts";
/// How the files for last words are called.
const MESSAGE: &str = "message-";

/// A directory of ours.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Ids come from the other side of the socket: they name nothing else than a directory of ours.
    fn of_sandbox(&self, id: &str) -> io::Result<PathBuf> {
        let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if plain { Ok(self.dir.join(id)) } else { Err(io::Error::other(format!("{id:?} is no sandbox id"))) }
    }

    /// Those that were made through this directory.
    pub fn sandboxes(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let made = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        made.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether this is the file for a container's last words: nothing else that another process names is read or removed.
    fn is_message(&self, path: &Path) -> bool {
        let name_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let Some((id, name)) = path.parent().and_then(name_of).zip(name_of(path)) else { return false };
        let plain = name.strip_prefix(MESSAGE).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        plain && self.of_sandbox(&id).is_ok_and(|dir| dir.join(&name) == path)
    }

    /// Whether we have added this mount.
    fn is_ours(&self, mount: &Mount) -> bool {
        let hosts = mount.container_path == Path::new(HOSTS) && mount.host_path.starts_with(&self.dir);
        hosts || self.is_message(&mount.host_path)
    }

    pub fn write_sandbox(&self, id: &str, config: &wire::PodSandboxConfig) -> io::Result<()> {
        let dir = self.of_sandbox(id)?;
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("config"), config.encode_to_vec())
    }

    /// `None`: the sandbox was made by somebody else.
    pub fn sandbox_config(&self, id: &str) -> Option<wire::PodSandboxConfig> {
        let bytes = std::fs::read(self.of_sandbox(id).ok()?.join("config")).ok()?;
        wire::PodSandboxConfig::decode(bytes.as_slice()).ok()
    }

    /// For a sandbox that runs.
    pub fn write_hosts(&self, config: &PodSandboxConfig, sandbox: &PodSandbox) -> io::Result<()> {
        let dir = self.of_sandbox(&sandbox.id)?;
        std::fs::create_dir_all(&dir)?;
        let text = match std::fs::read_to_string(HOSTS) {
            Ok(host) if config.host_network => hosts_of_host(config, &host),
            _ => hosts(config, &config.hostname, sandbox.ips.first().map(String::as_str)),
        };
        std::fs::write(dir.join("hosts"), text)
    }

    /// The configuration with what we add to it.
    pub fn add(&self, sandbox_id: &str, config: &ContainerConfig) -> io::Result<ContainerConfig> {
        let (mut config, dir) = (config.clone(), self.of_sandbox(sandbox_id)?);
        let hosts = dir.join("hosts");
        let ids = self.sandbox_config(sandbox_id).and_then(|pod| namespaces(&pod).users);
        if hosts.exists() && !config.mounts.iter().any(|mount| mount.container_path == Path::new(HOSTS)) {
            let readonly = config.security.readonly_rootfs;
            config.mounts.push(Mount { container_path: HOSTS.into(), host_path: hosts, readonly, ids, ..Mount::default() });
        }
        if !config.termination_message_path.is_empty() {
            std::fs::create_dir_all(&dir)?;
            let path = dir.join(format!("{MESSAGE}{}", uuid::Uuid::new_v4().simple()));
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path)?;
            // Whoever the container runs as.
            file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
            config.annotations.insert(ANNOTATION.into(), path.to_string_lossy().into_owned());
            let target = config.termination_message_path.clone().into();
            config.mounts.push(Mount { container_path: target, host_path: path, ids, ..Mount::default() });
        }
        Ok(config)
    }

    /// A status without what we added to the configuration, and with the termination message.
    pub fn complete(&self, status: &mut ContainerStatus) {
        let message = status.annotations.remove(ANNOTATION).map(PathBuf::from);
        status.mounts.retain(|mount| !self.is_ours(mount));
        if let Some(path) = message.filter(|path| status.state == ContainerState::Exited && self.is_message(path)) {
            let text = read_message(&path);
            if !text.is_empty() {
                status.message = text;
            }
        }
    }

    pub fn remove_message(&self, mounts: &[Mount]) {
        for mount in mounts.iter().filter(|mount| self.is_message(&mount.host_path)) {
            // Else it goes with the sandbox's directory.
            std::fs::remove_file(&mount.host_path).ok();
        }
    }

    pub fn remove_sandbox(&self, id: &str) -> io::Result<()> {
        match std::fs::remove_dir_all(self.of_sandbox(id)?) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }
}

/// Which namespaces a sandbox was asked to have.
pub(super) fn namespaces(pod: &wire::PodSandboxConfig) -> Namespaces {
    let security = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.map(namespaces_from_wire).unwrap_or_default()
}

fn read_message(path: &Path) -> String {
    let Ok(file) = std::fs::File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    file.take(MESSAGE_LIMIT_BYTES).read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::PodSandboxMetadata;

    #[test]
    fn ids_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        for id in ["", "..", "../x", "a/b", "."] {
            assert!(files.of_sandbox(id).is_err(), "{id:?}");
        }
        assert!(files.of_sandbox("0af3-x_1").is_ok());
        assert!(files.is_message(&dir.path().join("s1/message-0af3")));
        for path in ["s1/hosts", "s1/config", "s1/message-", "../s1/message-0a", "s1/../message-0a", "s1/message-0a/x", "message-0a"] {
            assert!(!files.is_message(&dir.path().join(path)), "{path}");
        }
        std::fs::write(dir.path().join(".endpoint"), "unix:///x").unwrap();
        std::fs::create_dir(dir.path().join("s1")).unwrap();
        assert_eq!(files.sandboxes(), ["s1"]);
    }

    #[test]
    fn last_words_are_read_from_a_file_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let mut config = ContainerConfig { termination_message_path: "/dev/termination-log".into(), ..ContainerConfig::default() };
        config.annotations.insert("a".into(), "b".into());
        let added = files.add("s1", &config).unwrap();
        assert_eq!(added.mounts[0].container_path, Path::new("/dev/termination-log"));
        std::fs::write(&added.mounts[0].host_path, "good-bye").unwrap();
        let mut status = ContainerStatus {
            id: "c1".into(),
            sandbox_id: "s1".into(),
            metadata: config.metadata.clone(),
            state: ContainerState::Exited,
            created_at: crate::model::Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code: 1,
            reason: "Error".into(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            image_ref: String::new(),
            labels: config.labels.clone(),
            annotations: added.annotations.clone(),
            log_path: PathBuf::new(),
            mounts: added.mounts.clone(),
            resources: config.resources.clone(),
            user: None,
            stop_signal: String::new(),
        };
        files.complete(&mut status);
        assert_eq!((status.message.as_str(), &status.annotations, status.mounts.len()), ("good-bye", &config.annotations, 0));
        files.remove_sandbox("s1").unwrap();
        files.remove_sandbox("s1").unwrap();
        assert!(!added.mounts[0].host_path.exists());
    }

    #[test]
    fn a_pod_knows_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let config = PodSandboxConfig { hostname: "web".into(), ..PodSandboxConfig::default() };
        let sandbox = PodSandbox {
            id: "s1".into(),
            metadata: PodSandboxMetadata::default(),
            state: crate::cri::SandboxState::Ready,
            created_at: crate::model::Timestamp::UNIX_EPOCH,
            ips: vec!["10.1.2.3".into()],
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            namespaces: crate::cri::Namespaces::default(),
            runtime_handler: String::new(),
        };
        files.write_hosts(&config, &sandbox).unwrap();
        let added = files.add("s1", &ContainerConfig::default()).unwrap();
        assert!(std::fs::read_to_string(&added.mounts[0].host_path).unwrap().contains("10.1.2.3\tweb"));
    }
}
