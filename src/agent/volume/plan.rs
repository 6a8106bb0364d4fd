//! A pod's volumes as what has to be on disk. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume as ApiVolume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::downward;
use super::options::Options;
use crate::agent::env::References;
use crate::agent::resources::{Machine, page_bytes};
use crate::model::DEFAULT_ACCOUNT;
use crate::model::local_volume::directory;
use crate::model::pod::{all_containers, container_requests, each_container};
use crate::model::quantity::Quantity;
use crate::model::volume::{self as persistent, BLOCK, Claimed, FILESYSTEM, PersistentVolume};

/// One volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub content: Content,
}

/// What it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory of the pod's own.
    Empty { medium: Medium, size_bytes: Option<u64> },
    /// A path of the host.
    Host { path: PathBuf, check: Check },
    /// A path of the host that a persistent volume is. A pod keeps what it found first.
    /// `group`: it is the pod's fsGroup's; `options`: of the mounts that containers have of it.
    Persistent { path: PathBuf, check: Check, group: bool, options: Options },
    /// A directory that is made on this node for a PersistentVolume: its name and that one's UID.
    Made { name: String, volume: String, group: bool, options: Options },
    /// Files that the agent writes, by relative path. All but a ConfigMap's only ever in memory.
    Files { memory: bool, files: BTreeMap<PathBuf, File> },
}

/// `emptyDir.medium`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    Memory,
    /// Pages of so many bytes.
    HugePages(u64),
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    None,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

#[derive(Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Never shows what it holds.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes, {:o})", self.bytes.len(), self.mode)
    }
}

/// Why a volume cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume}: {kind} \"{name}\" not found")]
    NoObject { volume: String, kind: &'static str, name: String },
    #[error("volume {volume}: {kind} \"{name}\" has no key {key}")]
    NoKey { volume: String, kind: &'static str, name: String, key: String },
    #[error("volume {volume}: path {path:?} leads out of the volume")]
    Path { volume: String, path: String },
    #[error("volume {volume}: file {path}: {cause}")]
    Told { volume: String, path: String, cause: String },
    #[error("volume {volume}: {cause}")]
    Pages { volume: String, cause: String },
    #[error("volume {volume}: {cause}")]
    Claim { volume: String, cause: String },
    #[error("volume {0}: this kind of volume is not supported")]
    Unsupported(String),
}

/// What volumes are made from besides the pod.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    pub references: &'a References,
    /// What a limit that is not set stands for.
    pub machine: &'a Machine,
    /// Volumes that the pod has found already and keeps.
    pub kept: &'a BTreeSet<String>,
    /// This node as the server has it, once that is known.
    pub node: Option<&'a ObjectMeta>,
    /// The directory of the volumes that are made on it.
    pub made: &'a Path,
}

/// Every volume of the pod.
///
/// # Errors
/// What a volume refers to is not there (and not optional).
pub fn volumes(pod: &Pod, ground: Ground<'_>) -> Result<Vec<Volume>, VolumeError> {
    match possible(pod, ground) {
        (volumes, None) => Ok(volumes),
        (_, Some(error)) => Err(error),
    }
}

/// The volumes of which it is known what they hold, and why the first of the others is not among them. Images are volumes
/// that the runtime makes.
pub fn possible(pod: &Pod, ground: Ground<'_>) -> (Vec<Volume>, Option<VolumeError>) {
    let (mut volumes, mut first) = (Vec::new(), None);
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| volume.image.is_none()) {
        if ground.kept.contains(&volume.name) {
            continue;
        }
        match content(volume, pod, ground) {
            Ok(content) => volumes.push(Volume { name: volume.name.clone(), content }),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    (volumes, first)
}

/// Whether a volume holds what the pod is told of itself, which changes with its labels and annotations.
pub fn tells_of_pod(spec: &PodSpec) -> bool {
    let projected =
        |volume: &ApiVolume| volume.projected.iter().flat_map(|it| it.sources.iter().flatten()).any(|it| it.downward_api.is_some());
    spec.volumes.iter().flatten().any(|volume| volume.downward_api.is_some() || projected(volume))
}

fn content(volume: &ApiVolume, pod: &Pod, ground: Ground<'_>) -> Result<Content, VolumeError> {
    if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(Quantity::of).filter(|limit| !limit.is_zero());
        let medium = medium(source.medium.as_deref().unwrap_or_default(), pod)
            .map_err(|cause| VolumeError::Pages { volume: volume.name.clone(), cause })?;
        return Ok(Content::Empty { medium, size_bytes: limit.map(|q| q.bytes().unsigned_abs()) });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Content::Host { path: Path::new("/").join(&source.path), check: check(source.type_.as_deref().unwrap_or_default()) });
    }
    let of = |default| Sources { volume: &volume.name, default: mode(default, 0o644), pod, ground };
    if let Some(it) = &volume.config_map {
        let files = of(it.default_mode).config_map(&it.name, it.items.as_deref(), it.optional)?;
        return Ok(Content::Files { memory: false, files });
    }
    if let Some(it) = &volume.secret {
        let files = of(it.default_mode).secret(it.secret_name.as_deref().unwrap_or_default(), it.items.as_deref(), it.optional)?;
        return Ok(Content::Files { memory: true, files });
    }
    if let Some(it) = &volume.downward_api {
        return Ok(Content::Files { memory: true, files: of(it.default_mode).downward(it.items.as_deref().unwrap_or_default())? });
    }
    if let Some(it) = &volume.projected {
        return Ok(Content::Files { memory: true, files: of(it.default_mode).projected(it)? });
    }
    if let Some(claimed) = persistent::claimed(pod.metadata.name.as_deref().unwrap_or_default(), volume) {
        let found = found(&claimed, pod, ground);
        return found.map_err(|cause| VolumeError::Claim { volume: volume.name.clone(), cause });
    }
    // A volume without a source is an emptyDir.
    let value = serde_json::to_value(volume).unwrap_or_default();
    if value.as_object().is_none_or(|fields| fields.len() <= 1) {
        return Ok(Content::Empty { medium: Medium::Disk, size_bytes: None });
    }
    Err(VolumeError::Unsupported(volume.name.clone()))
}

/// What is behind a claim; the words are the kubelet's.
fn found(claimed: &Claimed<'_>, pod: &Pod, ground: Ground<'_>) -> Result<Content, String> {
    let name = &claimed.claim;
    let Some((claim, volume)) = ground.references.claims.get(name) else {
        return Err(format!("persistentvolumeclaim \"{name}\" not found"));
    };
    if claimed.ephemeral && !persistent::is_own(&claim.metadata, pod.metadata.uid.as_deref().unwrap_or_default()) {
        let (home, pod) = (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default());
        return Err(format!("PVC {home}/{name} was not created for pod {home}/{pod} (pod is not owner)"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    if !persistent::is_bound(claim) {
        return Err(format!("persistentvolumeclaim \"{name}\" is not bound"));
    }
    let of = persistent::volume_name(claim);
    let volume = volume.as_ref().ok_or_else(|| format!("persistentvolume \"{of}\" not found"))?;
    let uid = |uid: &Option<String>| uid.clone().unwrap_or_default();
    if volume.spec.claim_ref.as_ref().is_none_or(|to| uid(&to.uid) != uid(&claim.metadata.uid)) {
        return Err(format!("persistentvolume \"{of}\" is not bound to persistentvolumeclaim \"{name}\""));
    }
    // Of a pod that no scheduler placed.
    let none = BTreeMap::new();
    let suits = |node: &ObjectMeta| volume.suits_node(node.name.as_deref().unwrap_or_default(), node.labels.as_ref().unwrap_or(&none));
    if !ground.node.is_none_or(suits) {
        return Err(format!("NodeAffinity check failed for volume \"{of}\": no matching NodeSelectorTerms"));
    }
    let is_block = volume.mode() == BLOCK;
    let containers = || pod.spec.iter().flat_map(each_container);
    let mounted = containers().any(|it| it.volume_mounts.iter().flatten().any(|mount| mount.name == claimed.volume));
    let device = containers().any(|it| it.volume_devices.iter().flatten().any(|device| device.name == claimed.volume));
    if (is_block && mounted) || (!is_block && device) {
        let (mode, field) = if is_block { (BLOCK, "volumeMounts") } else { (FILESYSTEM, "volumeDevices") };
        return Err(format!("volume {} has volumeMode {mode}, but is specified in {field}", claimed.volume));
    }
    if volume.path().is_empty() {
        return Err(format!("persistentvolume \"{of}\": this kind of volume is not supported"));
    }
    let options = options(volume)?;
    // As in Kubernetes a group is given what is `local` and may be written to.
    let read_only = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .any(|it| it.name == claimed.volume && it.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true)));
    let group = volume.spec.local.is_some() && !is_block && !read_only;
    let is_made = |node: &ObjectMeta| directory(volume, node.name.as_deref().unwrap_or_default(), ground.made).is_some();
    if ground.node.is_some_and(is_made) {
        return Ok(Content::Made { name: volume.name().to_owned(), volume: uid(&volume.metadata.uid), group, options });
    }
    let check = match &volume.spec.host_path {
        _ if is_block => Check::BlockDevice,
        Some(source) => check(source.type_.as_deref().unwrap_or_default()),
        // As in Kubernetes a local volume is there before.
        None => Check::Directory,
    };
    Ok(Content::Persistent { path: Path::new("/").join(volume.path()), check, group, options })
}

/// With what its directory is mounted. As in Kubernetes a device has none, and a `hostPath` must not have any.
fn options(volume: &PersistentVolume) -> Result<Options, String> {
    let written = volume.spec.mount_options.iter().flatten().map(String::as_str).filter(|word| !word.is_empty());
    let written: Vec<&str> = written.filter(|_| volume.mode() != BLOCK).collect();
    let name = volume.name();
    if volume.spec.host_path.is_some() && !written.is_empty() {
        let check = "MountVolume.MountOptionSupport check failed for volume";
        return Err(format!("{check} \"{name}\" : Mount options are not supported for this volume type"));
    }
    Options::parse(written).map_err(|why| format!("MountVolume.SetUp failed for volume \"{name}\" : {why}"))
}

/// Where an emptyDir is. Huge pages are of a size that the pod's containers ask for; the only one, where none is named.
fn medium(name: &str, pod: &Pod) -> Result<Medium, String> {
    let Some(named) = name.strip_prefix("HugePages") else {
        return Ok(if name == "Memory" { Medium::Memory } else { Medium::Disk });
    };
    let containers = pod.spec.iter().flat_map(all_containers);
    let asked = containers.flat_map(|container| container_requests(container.resources.as_ref()).into_keys());
    let sizes: BTreeSet<u64> = asked.filter_map(|resource| page_bytes(&resource)).collect();
    match (named.strip_prefix('-'), sizes.iter().copied().collect::<Vec<_>>().as_slice()) {
        (None, [only]) => Ok(Medium::HugePages(*only)),
        (None, _) => Err("medium HugePages needs containers that ask for pages of exactly one size".to_owned()),
        (Some(size), _) => {
            let wanted = page_bytes(&format!("hugepages-{size}")).filter(|wanted| sizes.contains(wanted));
            wanted.map(Medium::HugePages).ok_or_else(|| format!("medium {name} needs a container that asks for hugepages-{size}"))
        }
    }
}

fn check(type_: &str) -> Check {
    match type_ {
        "DirectoryOrCreate" => Check::DirectoryOrCreate,
        "Directory" => Check::Directory,
        "FileOrCreate" => Check::FileOrCreate,
        "File" => Check::File,
        "Socket" => Check::Socket,
        "CharDevice" => Check::CharDevice,
        "BlockDevice" => Check::BlockDevice,
        _ => Check::None,
    }
}

fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default) & 0o777
}

type Files = BTreeMap<PathBuf, File>;

/// Makes the files of one volume from its sources.
struct Sources<'a> {
    volume: &'a str,
    /// Mode of files that have none of their own.
    default: u32,
    pod: &'a Pod,
    ground: Ground<'a>,
}

impl Sources<'_> {
    fn config_map(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files, VolumeError> {
        let data = self.ground.references.config_maps.get(name).map(|map| {
            let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
            text.chain(binary).collect()
        });
        self.keys(("configmap", name), data, items, optional == Some(true))
    }

    fn secret(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files, VolumeError> {
        let data = self.ground.references.secrets.get(name).map(|secret| {
            let data = secret.data.iter().flatten();
            data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
        });
        self.keys(("secret", name), data, items, optional == Some(true))
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile]) -> Result<Files, VolumeError> {
        let file = |item: &DownwardAPIVolumeFile| {
            let told = |cause| VolumeError::Told { volume: self.volume.to_owned(), path: item.path.clone(), cause };
            let text = downward::text(item, self.pod, self.ground.machine).map_err(told)?;
            Ok((self.inside(&item.path)?, File { bytes: text.into_bytes(), mode: mode(item.mode, self.default) }))
        };
        items.iter().map(file).collect()
    }

    /// Where two sources name the same file the later one has it.
    fn projected(&self, it: &ProjectedVolumeSource) -> Result<Files, VolumeError> {
        let mut all = Files::new();
        for source in it.sources.iter().flatten() {
            if let Some(it) = &source.secret {
                all.extend(self.secret(&it.name, it.items.as_deref(), it.optional)?);
            } else if let Some(it) = &source.config_map {
                all.extend(self.config_map(&it.name, it.items.as_deref(), it.optional)?);
            } else if let Some(it) = &source.downward_api {
                all.extend(self.downward(it.items.as_deref().unwrap_or_default())?);
            } else if let Some(it) = &source.service_account_token {
                all.insert(self.inside(&it.path)?, self.token(it)?);
            } else {
                return Err(VolumeError::Unsupported(self.volume.to_owned()));
            }
        }
        Ok(all)
    }

    fn token(&self, it: &ServiceAccountTokenProjection) -> Result<File, VolumeError> {
        let wanted = TokenWanted::of(self.pod, it);
        let token = self.ground.references.tokens.get(&wanted);
        let lacks =
            || VolumeError::NoObject { volume: self.volume.to_owned(), kind: "token of serviceaccount", name: wanted.account.clone() };
        Ok(File { bytes: token.ok_or_else(lacks)?.clone().into_bytes(), mode: self.default })
    }

    fn keys(
        &self,
        (kind, name): (&'static str, &str),
        data: Option<BTreeMap<String, Vec<u8>>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<Files, VolumeError> {
        let Some(data) = data else {
            if optional {
                return Ok(Files::new());
            }
            return Err(VolumeError::NoObject { volume: self.volume.to_owned(), kind, name: name.to_owned() });
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.into_iter().map(|(key, bytes)| Ok((self.inside(&key)?, File { bytes, mode: self.default }))).collect();
        };
        let mut files = Files::new();
        for item in items {
            let Some(bytes) = data.get(&item.key) else {
                if optional {
                    continue;
                }
                let (volume, name) = (self.volume.to_owned(), name.to_owned());
                return Err(VolumeError::NoKey { volume, kind, name, key: item.key.clone() });
            };
            files.insert(self.inside(&item.path)?, File { bytes: bytes.clone(), mode: mode(item.mode, self.default) });
        }
        Ok(files)
    }

    /// A relative path without `..`, and not one of the writer's own names.
    fn inside(&self, path: &str) -> Result<PathBuf, VolumeError> {
        let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !normal || path.starts_with("..") {
            return Err(VolumeError::Path { volume: self.volume.to_owned(), path: path.to_owned() });
        }
        Ok(PathBuf::from(path))
    }
}

/// A token that a pod is to have: of its account, and bound to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWanted {
    pub account: String,
    pub pod: String,
    pub uid: String,
    /// Empty: the API itself.
    pub audience: String,
    pub seconds: i64,
}

impl TokenWanted {
    fn of(pod: &Pod, it: &ServiceAccountTokenProjection) -> Self {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
        Self {
            account: account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned()),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            audience: it.audience.clone().unwrap_or_default(),
            seconds: it.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// Names of the ConfigMaps and Secrets something needs, and its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub tokens: BTreeSet<TokenWanted>,
    /// Of volumes: asked for once, when a pod begins.
    pub claims: BTreeSet<String>,
}

impl Names {
    /// Whether there is nothing that has to be looked at again.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty() && self.tokens.is_empty()
    }

    /// What the pod's volumes are made of.
    pub fn of_volumes(pod: &Pod) -> Self {
        let claims = persistent::claims(pod).map(|claimed| claimed.claim).collect();
        let mut names = Self { claims, ..Self::default() };
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            names.config_maps.extend(volume.config_map.as_ref().map(|it| it.name.clone()));
            names.secrets.extend(volume.secret.as_ref().and_then(|it| it.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|it| it.sources.iter().flatten()) {
                names.config_maps.extend(source.config_map.as_ref().map(|it| it.name.clone()));
                names.secrets.extend(source.secret.as_ref().map(|it| it.name.clone()));
                names.tokens.extend(source.service_account_token.as_ref().map(|it| TokenWanted::of(pod, it)));
            }
        }
        names
    }

    /// What a container's environment is made of.
    pub fn of_environment(container: &k8s_openapi::api::core::v1::Container) -> Self {
        let mut names = Self::default();
        for from in container.env_from.iter().flatten() {
            names.config_maps.extend(from.config_map_ref.as_ref().map(|source| source.name.clone()));
            names.secrets.extend(from.secret_ref.as_ref().map(|source| source.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            names.config_maps.extend(from.config_map_key_ref.as_ref().map(|source| source.name.clone()));
            names.secrets.extend(from.secret_key_ref.as_ref().map(|source| source.name.clone()));
        }
        names
    }

    /// Credentials for the pod's images.
    pub fn of_pulls(spec: &PodSpec) -> Self {
        Self { secrets: spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::local_volume::{HOME, LOCAL_PATH, PROVISIONED_BY};
    use serde_json::{Value, json};

    fn references() -> References {
        let config = json!({"metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
        let secret = json!({"metadata": {"name": "cred"}, "data": {"key": "c2VjcmV0"}});
        References {
            config_maps: [("conf".to_owned(), serde_json::from_value(config).unwrap())].into(),
            secrets: [("cred".to_owned(), serde_json::from_value(secret).unwrap())].into(),
            ..References::default()
        }
    }

    /// On a node of which nothing is known.
    fn bare<'a>(references: &'a References, kept: &'a BTreeSet<String>) -> Ground<'a> {
        static MACHINE: std::sync::LazyLock<Machine> = std::sync::LazyLock::new(Machine::default);
        Ground { references, machine: &MACHINE, kept, node: None, made: Path::new("/d/volumes") }
    }

    fn one(volume: Value) -> Result<Content, VolumeError> {
        let (references, kept) = (references(), BTreeSet::new());
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"containers": [], "volumes": [volume]}});
        let ground = bare(&references, &kept);
        Ok(volumes(&serde_json::from_value(pod).unwrap(), ground)?.remove(0).content)
    }

    fn listing(content: Content) -> Vec<(String, usize, u32)> {
        let Content::Files { files, .. } = content else { panic!("not files") };
        files.into_iter().map(|(path, file)| (path.display().to_string(), file.bytes.len(), file.mode)).collect()
    }

    #[test]
    fn sources_become_contents() {
        assert_eq!(one(json!({})), Ok(Content::Empty { medium: Medium::Disk, size_bytes: None }));
        let memory = one(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}));
        assert_eq!(memory, Ok(Content::Empty { medium: Medium::Memory, size_bytes: Some(1 << 20) }));
        let host = one(json!({"hostPath": {"path": "/srv", "type": "Directory"}}));
        assert_eq!(host, Ok(Content::Host { path: "/srv".into(), check: Check::Directory }));
        assert_eq!(one(json!({"nfs": {"server": "s", "path": "/"}})), Err(VolumeError::Unsupported("v".into())));
    }

    #[test]
    fn huge_pages_are_of_a_size_that_is_asked_for() {
        let of = |medium: &str, limits: Value| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}})).unwrap();
            super::medium(medium, &pod)
        };
        let (small, both) = (json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}));
        assert_eq!(of("HugePages", small.clone()), Ok(Medium::HugePages(2 << 20)));
        assert_eq!(of("HugePages-1Gi", both.clone()), Ok(Medium::HugePages(1 << 30)));
        assert!(of("HugePages", both).is_err() && of("HugePages", json!({})).is_err() && of("HugePages-1Gi", small).is_err());
    }

    #[test]
    fn keys_become_files() {
        let all = listing(one(json!({"configMap": {"name": "conf"}})).unwrap());
        assert_eq!(all, [("a".into(), 1, 0o644), ("b".into(), 1, 0o644), ("c".into(), 2, 0o644)]);
        let items = json!([{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o400}]);
        let some = listing(one(json!({"configMap": {"name": "conf", "items": items, "defaultMode": 0o600}})).unwrap());
        assert_eq!(some, [("x/y".into(), 1, 0o600), ("z".into(), 1, 0o400)]);
        let secret = one(json!({"secret": {"secretName": "cred", "defaultMode": 0o400}})).unwrap();
        assert!(matches!(secret, Content::Files { memory: true, .. }));
        assert!(!format!("{secret:?}").contains("secret\""), "{secret:?}");
        assert_eq!(listing(secret), [("key".into(), 6, 0o400)]);
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        let table = [
            (json!({"configMap": {"name": "no"}}), Some("volume v: configmap \"no\" not found")),
            (json!({"configMap": {"name": "no", "optional": true}}), None),
            (json!({"secret": {"secretName": "no"}}), Some("volume v: secret \"no\" not found")),
            (
                json!({"secret": {"secretName": "cred", "items": [{"key": "x", "path": "x"}]}}),
                Some("volume v: secret \"cred\" has no key x"),
            ),
            (json!({"secret": {"secretName": "cred", "optional": true, "items": [{"key": "x", "path": "x"}]}}), None),
        ];
        for (volume, want) in table {
            let got = one(volume.clone()).err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), want, "{volume}");
        }
    }

    /// Claims that fare in every way.
    fn claimed() -> References {
        let claim = |name: &str, volume: &str, more: Value| {
            let mut meta = json!({"name": name, "uid": format!("of-{name}"), "annotations": {(persistent::BIND_COMPLETED): "yes"}});
            more.as_object().into_iter().flatten().for_each(|(field, value)| meta[field] = value.clone());
            serde_json::from_value(json!({"metadata": meta, "spec": {"volumeName": volume}})).unwrap()
        };
        let volume = |claim: &str, source: Value| {
            let mut spec = source;
            spec["claimRef"] = json!({"uid": format!("of-{claim}")});
            Some(serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap())
        };
        let made = |claim: &str, path: &str| {
            let meta = json!({"name": "pvc-1", "uid": "of-pvc-1", "labels": {(HOME): "n1"}, "annotations": {(PROVISIONED_BY): LOCAL_PATH}});
            let spec = json!({"local": {"path": path}, "claimRef": {"uid": format!("of-{claim}")}});
            Some(serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap())
        };
        let local = || json!({"local": {"path": "/mnt/x"}});
        let block = || json!({"local": {"path": "/dev/x"}, "volumeMode": "Block"});
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let claims = [
            ("local", claim("local", "v", json!({})), volume("local", local())),
            ("host", claim("host", "v", json!({})), volume("host", json!({"hostPath": {"path": "/srv", "type": "DirectoryOrCreate"}}))),
            ("block", claim("block", "v", json!({})), volume("block", block())),
            ("going", claim("going", "v", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})), volume("going", local())),
            ("unbound", claim("unbound", "v", json!({"annotations": {}})), None),
            ("lost", claim("lost", "v", json!({})), None),
            ("other", claim("other", "v", json!({})), volume("local", local())),
            ("p-own", claim("p-own", "v", json!({"ownerReferences": owner})), volume("p-own", local())),
            ("p-theirs", claim("p-theirs", "v", json!({})), volume("p-theirs", local())),
            (
                "away",
                claim("away", "v", json!({})),
                volume(
                    "away",
                    json!({"local": {"path": "/x"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "host", "operator": "In", "values": ["n2"]}]}]}}}),
                ),
            ),
            ("made", claim("made", "pvc-1", json!({})), made("made", "/d/volumes/pvc-1")),
            ("forged", claim("forged", "pvc-1", json!({})), made("forged", "/etc")),
            ("cloud", claim("cloud", "v", json!({})), volume("cloud", json!({"csi": {}}))),
            (
                "quiet",
                claim("quiet", "v", json!({})),
                volume("quiet", json!({"local": {"path": "/x"}, "mountOptions": ["noexec", "ro,nodev"]})),
            ),
            ("odd", claim("odd", "v", json!({})), volume("odd", json!({"local": {"path": "/x"}, "mountOptions": ["data=journal"]}))),
            (
                "optional",
                claim("optional", "v", json!({})),
                volume("optional", json!({"hostPath": {"path": "/x"}, "mountOptions": ["ro"]})),
            ),
            (
                "raw",
                claim("raw", "v", json!({})),
                volume("raw", json!({"local": {"path": "/dev/x"}, "volumeMode": "Block", "mountOptions": ["odd"]})),
            ),
        ];
        let claims = claims.into_iter().map(|(name, claim, volume)| (name.to_owned(), (claim, volume))).collect();
        References { claims, ..References::default() }
    }

    #[test]
    fn a_claim_leads_to_a_path_or_says_why_not() {
        let references = claimed();
        let look = |name: &str, source: Value, field: &str, path: &str| {
            let mut volume = json!({"name": name});
            source.as_object().into_iter().flatten().for_each(|(field, value)| volume[field] = value.clone());
            let container = json!({"name": "c", (field): [{"name": name, (path): "/x"}]});
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
                "spec": {"containers": [container], "volumes": [volume]}}))
            .unwrap();
            let labels = Some([("host".to_owned(), "n1".to_owned())].into());
            let node = ObjectMeta { name: Some("n1".to_owned()), labels, ..ObjectMeta::default() };
            let kept = BTreeSet::new();
            let ground = Ground { node: Some(&node), ..bare(&references, &kept) };
            match volumes(&pod, ground).map(|mut all| all.remove(0).content) {
                Ok(Content::Persistent { path, check, group, options }) => {
                    format!("{} {check:?}{} {options}", path.display(), if group { " of group" } else { "" }).trim().to_owned()
                }
                Ok(Content::Made { name, volume, group, options }) => {
                    format!("{name} for {volume}{} {options}", if group { " of group" } else { "" }).trim().to_owned()
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => error.to_string(),
            }
        };
        let mounted = |claim: &str| look("v", json!({"persistentVolumeClaim": {"claimName": claim}}), "volumeMounts", "mountPath");
        let device = |claim: &str| look("v", json!({"persistentVolumeClaim": {"claimName": claim}}), "volumeDevices", "devicePath");
        let read =
            |claim: &str| look("v", json!({"persistentVolumeClaim": {"claimName": claim, "readOnly": true}}), "volumeMounts", "mountPath");
        let own = |name: &str| look(name, json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}), "volumeMounts", "mountPath");
        for (got, want) in [
            (mounted("local"), "/mnt/x Directory of group"),
            (mounted("made"), "pvc-1 for of-pvc-1 of group"),
            (mounted("forged"), "/etc Directory of group"),
            (read("local"), "/mnt/x Directory"),
            (read("made"), "pvc-1 for of-pvc-1"),
            (mounted("host"), "/srv DirectoryOrCreate"),
            (device("block"), "/dev/x BlockDevice"),
            (device("raw"), "/dev/x BlockDevice"),
            (mounted("quiet"), "/x Directory of group noexec,ro,nodev"),
            (
                mounted("optional"),
                "volume v: MountVolume.MountOptionSupport check failed for volume \"v\" : Mount options are not supported for this volume type",
            ),
            (
                mounted("odd"),
                "volume v: MountVolume.SetUp failed for volume \"v\" : mount option \"data=journal\" is none of a bind mount, which is all \
                 that is made here",
            ),
            (own("own"), "/mnt/x Directory of group"),
            (own("theirs"), "volume theirs: PVC ns/p-theirs was not created for pod ns/p (pod is not owner)"),
            (mounted("none"), "volume v: persistentvolumeclaim \"none\" not found"),
            (mounted("going"), "volume v: persistentvolumeclaim \"going\" is being deleted"),
            (mounted("unbound"), "volume v: persistentvolumeclaim \"unbound\" is not bound"),
            (mounted("lost"), "volume v: persistentvolume \"v\" not found"),
            (mounted("other"), "volume v: persistentvolume \"v\" is not bound to persistentvolumeclaim \"other\""),
            (mounted("block"), "volume v: volume v has volumeMode Block, but is specified in volumeMounts"),
            (device("local"), "volume v: volume v has volumeMode Filesystem, but is specified in volumeDevices"),
            (mounted("away"), "volume v: NodeAffinity check failed for volume \"v\": no matching NodeSelectorTerms"),
            (mounted("cloud"), "volume v: persistentvolume \"v\": this kind of volume is not supported"),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn what_is_missing_keeps_no_other_volume_back() {
        let volumes =
            json!([{"name": "a", "configMap": {"name": "no"}}, {"name": "b", "configMap": {"name": "conf"}}, {"name": "c", "nfs": {}}]);
        let pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": volumes}})).unwrap();
        let (references, kept) = (references(), BTreeSet::new());
        let (made, first) = possible(&pod, bare(&references, &kept));
        assert_eq!(made.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(matches!(first, Some(VolumeError::NoObject { volume, .. }) if volume == "a"));
    }

    #[test]
    fn sources_are_laid_over_each_other() {
        let told = json!({"downwardAPI": {"items": [{"path": "own/name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}});
        let alone = listing(one(told.clone()).unwrap());
        assert_eq!(alone, [("labels".into(), 5, 0o644), ("own/name".into(), 1, 0o400)]);
        let sources = json!([{"configMap": {"name": "conf"}}, told, {"secret": {"name": "cred", "items": [{"key": "key", "path": "a"}]}},
            {"secret": {"name": "no", "optional": true}}]);
        let all = one(json!({"projected": {"sources": sources, "defaultMode": 0o440}})).unwrap();
        assert!(matches!(all, Content::Files { memory: true, .. }));
        let listed = listing(all);
        let want = [("a", 6, 0o440), ("b", 1, 0o440), ("c", 2, 0o440), ("labels", 5, 0o440), ("own/name", 1, 0o400)];
        assert_eq!(listed, want.map(|(path, size, mode)| (path.to_owned(), size, mode)), "the later source has the file");
        let wrong = |source: Value| one(json!({"projected": {"sources": [source]}})).unwrap_err().to_string();
        assert_eq!(wrong(json!({"secret": {"name": "no"}})), "volume v: secret \"no\" not found");
        assert_eq!(wrong(json!({"serviceAccountToken": {"path": "t"}})), "volume v: token of serviceaccount \"default\" not found");
        assert_eq!(
            wrong(json!({"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}})),
            "volume v: this kind of volume is not supported"
        );
        let no_field = json!({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.x"}}]}});
        assert_eq!(wrong(no_field), "volume v: file x: unsupported fieldPath: spec.x");
    }

    #[test]
    fn paths_stay_in_the_volume() {
        for path in ["../x", "/x", "a/../../x", "..data", "", "a/.."] {
            let items = json!([{"key": "a", "path": path}]);
            let got = one(json!({"configMap": {"name": "conf", "items": items}}));
            assert!(matches!(got, Err(VolumeError::Path { .. })), "{path}: {got:?}");
        }
    }

    #[test]
    fn names_are_collected() {
        let spec: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "a", "configMap": {"name": "c1"}}, {"name": "b", "secret": {"secretName": "s1"}}, {"name": "c", "emptyDir": {}},
                {"name": "d", "projected": {"sources": [{"configMap": {"name": "c4"}}, {"secret": {"name": "s4"}}, {"serviceAccountToken": {"path": "t"}}]}}],
            "containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "s2"}}, {"configMapRef": {"name": "c2"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}}, {"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "c3", "key": "k"}}}]}]
        }))
        .unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let mut pod = Pod { spec: Some(spec.clone()), ..Pod::default() };
        (pod.metadata.name, pod.metadata.uid) = (Some("p".to_owned()), Some("u".to_owned()));
        let of_volumes = Names::of_volumes(&pod);
        assert_eq!((of_volumes.config_maps, of_volumes.secrets), (set(&["c1", "c4"]), set(&["s1", "s4"])));
        let token = of_volumes.tokens.first().unwrap();
        assert_eq!((token.account.as_str(), token.pod.as_str(), token.uid.as_str(), token.seconds), ("default", "p", "u", 3600));
        let names = Names { config_maps: set(&["c2", "c3"]), secrets: set(&["s2", "s3"]), ..Names::default() };
        assert_eq!(Names::of_environment(&spec.containers[0]), names);
        assert_eq!(Names::of_pulls(&spec).secrets, set(&["pull"]));
    }
}
