//! Devices by their names among their vendors' (CDI), and what a container gets with them. PURE.
//!
//! Format: Container Device Interface specification (cncf-tags/container-device-interface, SPEC.md), 0.3 to 1.x.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cri::types::{ContainerConfig, Device, Mount};
use crate::model::manifest;

/// Annotations of a container that name devices begin so: an older way to ask for them.
const ANNOTATION: &str = "cdi.k8s.io/";
/// So many devices one container asks for, at most.
const LIMIT: usize = 1000;
/// What a mount may say beyond what it is of, and what it may say of how it is made known elsewhere.
const FLAGS: [&str; 7] = ["nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime"];
const PROPAGATION: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// Why a container does not get its devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdiError {
    #[error("{0:?} names no CDI device: it has the form vendor.com/class=name")]
    Name(String),
    #[error("the container asks for more than {LIMIT} CDI devices")]
    TooMany,
    /// containerd's words, which people look for.
    #[error("unresolvable CDI devices {}{}", .names.join(", "), reasons(.broken))]
    Unresolvable { names: Vec<String>, broken: Vec<String> },
    #[error("CDI device {name} is in {} and in {}", .files.0.display(), .files.1.display())]
    Conflict { name: String, files: (PathBuf, PathBuf) },
    #[error("CDI device {device}: {cause}")]
    Edit { device: String, cause: String },
}

fn reasons(broken: &[String]) -> String {
    if broken.is_empty() { String::new() } else { format!(" (not read: {})", broken.join("; ")) }
}

/// A file in which a vendor describes devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    devices: Vec<Described>,
    /// For each container with one of the devices.
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    net_devices: Vec<serde_json::Value>,
    hooks: Vec<Hook>,
    mounts: Vec<Bound>,
    intel_rdt: Option<serde_json::Value>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

/// A device node. Its mode and owner are the host's, whatever is said of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Node {
    pub path: PathBuf,
    /// Empty: the same.
    pub host_path: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub permissions: String,
    #[serde(rename = "fileMode")]
    _file_mode: Option<u32>,
    #[serde(rename = "uid")]
    _uid: Option<u32>,
    #[serde(rename = "gid")]
    _gid: Option<u32>,
}

impl Node {
    /// Where it is on the host.
    pub fn on_host(&self) -> &Path {
        if self.host_path.as_os_str().is_empty() { &self.path } else { &self.host_path }
    }
}

/// A program that another OCI runtime runs at a point of a container's life (runtime-spec, config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Hook {
    pub hook_name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Bound {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// What a container gets with its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Injection {
    env: Vec<(String, String)>,
    /// With the device each comes from.
    pub nodes: Vec<(String, Node)>,
    mounts: Vec<Mount>,
    groups: Vec<u32>,
    pub hooks: Vec<(String, Hook)>,
}

/// The devices that a container asks for, each once, by its configuration and by its annotations.
pub fn wanted(config: &ContainerConfig) -> Result<Vec<String>, CdiError> {
    let annotated = config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    let listed = annotated.flat_map(|(_, names)| names.split(',')).map(|name| name.trim().to_owned());
    let mut all: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for name in config.cdi_devices.iter().cloned().chain(listed) {
        if name_of(&name).is_none() {
            return Err(CdiError::Name(name));
        }
        if known.insert(name.clone()) {
            all.push(name);
        }
    }
    if all.len() > LIMIT { Err(CdiError::TooMany) } else { Ok(all) }
}

/// The kind and the name of `vendor.com/class=name`.
fn name_of(text: &str) -> Option<(&str, &str)> {
    let (kind, name) = text.split_once('=')?;
    let at_the_ends =
        |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    let made_of = |text: &str, more: &str| text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    (is_kind(kind) && at_the_ends(name) && made_of(name, "_-.:")).then_some((kind, name))
}

fn is_kind(kind: &str) -> bool {
    let part = |text: &str| {
        let letters = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
        letters && text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    kind.split_once('/').is_some_and(|(vendor, class)| part(vendor) && part(class))
}

/// Reads a file; what is not known in it makes it none.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Document, String> {
    let documents = manifest::parse(file, bytes).map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())?;
    let [document] = documents.as_slice() else { return Err(format!("{file}: not one document")) };
    let document: Document = serde_json::from_value(document.value.clone()).map_err(|cause| format!("{file}: {cause}"))?;
    let mut version = document.cdi_version.split('.').map(str::parse::<u32>);
    if !matches!((version.next(), version.next()), (Some(Ok(0)), Some(Ok(3..))) | (Some(Ok(1)), Some(Ok(_)))) {
        return Err(format!("{file}: CDI version {:?} is not known", document.cdi_version));
    }
    if !is_kind(&document.kind) {
        return Err(format!("{file}: {:?} is no kind of device", document.kind));
    }
    Ok(document)
}

/// What the devices bring along. `found`: a directory's files each, the directories that count for more first; `broken`:
/// why others are not read.
pub fn resolve(wanted: &[String], found: &[Vec<(PathBuf, Document)>], broken: &[String]) -> Result<Injection, CdiError> {
    let mut all = Injection::default();
    let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
    for full in wanted {
        let Some((kind, name)) = name_of(full) else { return Err(CdiError::Name(full.clone())) };
        let in_directory = |files: &Vec<(PathBuf, Document)>| -> Vec<_> {
            let of_kind = files.iter().filter(|(_, document)| document.kind == kind).cloned();
            of_kind
                .filter_map(|(file, document)| Some((document.devices.iter().find(|one| one.name == name)?.clone(), file, document)))
                .collect()
        };
        let Some(hits) = found.iter().map(in_directory).find(|hits| !hits.is_empty()) else {
            missing.push(full.clone());
            continue;
        };
        if let [(_, one, _), (_, other, _), ..] = hits.as_slice() {
            return Err(CdiError::Conflict { name: full.clone(), files: (one.clone(), other.clone()) });
        }
        for (device, file, document) in hits {
            if seen.insert(file) {
                all.add(full, document.container_edits)?;
            }
            all.add(full, device.container_edits)?;
        }
    }
    if missing.is_empty() { Ok(all) } else { Err(CdiError::Unresolvable { names: missing, broken: broken.to_vec() }) }
}

impl Injection {
    fn add(&mut self, device: &str, edits: Edits) -> Result<(), CdiError> {
        let refuse = |cause: String| Err(CdiError::Edit { device: device.to_owned(), cause });
        if !edits.net_devices.is_empty() || edits.intel_rdt.is_some() {
            let what = if edits.intel_rdt.is_some() { "intelRdt" } else { "netDevices" };
            return refuse(format!("{what} is not supported"));
        }
        for pair in edits.env {
            match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => self.env.push((name.to_owned(), value.to_owned())),
                _ => return refuse(format!("{pair:?} is no environment variable")),
            }
        }
        for node in edits.device_nodes {
            if !node.permissions.chars().all(|letter| "rwm".contains(letter)) {
                return refuse(format!("permissions {:?} of {} are not some of r, w and m", node.permissions, node.path.display()));
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u") {
                return refuse(format!("{} is of type {:?}, and not a device", node.path.display(), node.kind));
            }
            self.nodes.push((device.to_owned(), node));
        }
        for bound in edits.mounts {
            self.mounts.push(bound.mount().map_err(|cause| CdiError::Edit { device: device.to_owned(), cause })?);
        }
        self.groups.extend(edits.additional_gids.into_iter().filter(|gid| *gid != 0));
        self.hooks.extend(edits.hooks.into_iter().map(|hook| (device.to_owned(), hook)));
        Ok(())
    }

    /// Puts it into a container's configuration, but for the hooks. A mount's ids are never mapped: it is the host's and the
    /// vendor's, of whom the root of a pod's own users is none.
    pub fn apply(&self, config: &mut ContainerConfig) {
        config.envs.extend(self.env.iter().cloned());
        for (_, node) in &self.nodes {
            config.devices.retain(|known| known.container_path != node.path);
            let permissions = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
            let (host_path, container_path) = (node.on_host().to_owned(), node.path.clone());
            config.devices.push(Device { host_path, container_path, permissions: permissions.to_owned() });
        }
        for mount in &self.mounts {
            config.mounts.retain(|known| known.container_path != mount.container_path);
            config.mounts.push(mount.clone());
        }
        config.security.supplemental_groups.extend(&self.groups);
    }
}

impl Bound {
    fn mount(self) -> Result<Mount, String> {
        let place = self.container_path.display();
        let bind = ["bind", "rbind"];
        if !matches!(self.kind.as_str(), "" | "none" | "bind") {
            return Err(format!("mount {place} is of type {:?}, and no bind mount", self.kind));
        }
        let mut mount = Mount { host_path: self.host_path.clone(), container_path: self.container_path.clone(), ..Mount::default() };
        for option in self.options.iter().map(String::as_str).filter(|option| !bind.contains(option)) {
            match option {
                "ro" => mount.readonly = true,
                "rro" => (mount.readonly, mount.recursive_readonly) = (true, true),
                "rw" => mount.readonly = false,
                other if FLAGS.contains(&other) => mount.flags.push(other.to_owned()),
                other if PROPAGATION.contains(&other) => {
                    let name = other.trim_start_matches('r');
                    mount.propagation = if name == "private" { String::new() } else { format!("r{name}") };
                }
                other => return Err(format!("option {other:?} of mount {place} is not known")),
            }
        }
        Ok(mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.example/card"
containerEdits:
  env: ["DRIVER=1"]
  mounts:
    - {hostPath: /usr/lib/driver, containerPath: /usr/lib/driver, options: [ro, nosuid, nodev, rbind, rprivate]}
devices:
  - name: "0"
    containerEdits:
      env: ["CARD=0"]
      deviceNodes: [{path: /dev/card0, hostPath: /dev/zero, permissions: rw}]
      additionalGids: [0, 44]
  - name: all
    containerEdits:
      env: ["CARD=all"]
      deviceNodes: [{path: /dev/card0}, {path: /dev/card1, type: c, major: 1, minor: 3}]
      hooks: [{hookName: createContainer, path: /bin/hook, args: [hook, x], timeout: 3}]
"#;

    fn document(text: &str) -> Document {
        parse("card.yaml", text.as_bytes()).unwrap()
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_container_gets_what_its_devices_bring_along() {
        let found = [vec![("a.yaml".into(), document(CARD))]];
        let all = resolve(&names(&["vendor.example/card=0", "vendor.example/card=all"]), &found, &[]).unwrap();
        let mount = |host: &str, at: &str| Mount { host_path: host.into(), container_path: at.into(), ..Mount::default() };
        let given = |host: &str, at: &str, may: &str| Device { host_path: host.into(), container_path: at.into(), permissions: may.into() };
        let mut config = ContainerConfig {
            envs: vec![("A".into(), "1".into())],
            mounts: vec![mount("/x", "/usr/lib/driver"), mount("/y", "/y")],
            devices: vec![given("/dev/null", "/dev/card1", "r")],
            ..ContainerConfig::default()
        };
        all.apply(&mut config);
        let pairs: Vec<String> = config.envs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["A=1", "DRIVER=1", "CARD=0", "CARD=all"], "what is all devices' once");
        let driver = mount("/usr/lib/driver", "/usr/lib/driver");
        let driver = Mount { readonly: true, flags: names(&["nosuid", "nodev"]), ..driver };
        assert_eq!(config.mounts, [mount("/y", "/y"), driver]);
        assert_eq!(config.devices, [given("/dev/card0", "/dev/card0", "rwm"), given("/dev/card1", "/dev/card1", "rwm")]);
        assert_eq!(config.security.supplemental_groups, [44]);
        let hook = Hook {
            hook_name: "createContainer".into(),
            path: "/bin/hook".into(),
            args: names(&["hook", "x"]),
            timeout: Some(3),
            ..Hook::default()
        };
        assert_eq!(all.hooks, [("vendor.example/card=all".to_owned(), hook)]);
    }

    #[test]
    fn a_directory_that_counts_for_more_hides_others_and_two_files_of_one_do_not_agree() {
        let other = CARD.replace("CARD=0", "CARD=other");
        let one = || vec![("a.yaml".into(), document(CARD))];
        let wanted = names(&["vendor.example/card=0"]);
        let all = resolve(&wanted, &[vec![("b.json".into(), document(&other))], one()], &[]).unwrap();
        assert!(all.env.contains(&("CARD".to_owned(), "other".to_owned())));
        let both = [[one(), vec![("b.json".into(), document(&other))]].concat()];
        let files = ("a.yaml".into(), "b.json".into());
        assert_eq!(resolve(&wanted, &both, &[]).unwrap_err(), CdiError::Conflict { name: wanted[0].clone(), files });
    }

    #[test]
    fn what_nobody_describes_is_named() {
        let found = [vec![("a.yaml".into(), document(CARD))]];
        let wanted = names(&["vendor.example/card=0", "vendor.example/card=9", "nobody.example/card=0"]);
        let text = resolve(&wanted, &found, &names(&["b.json: torn"])).unwrap_err().to_string();
        assert_eq!(text, "unresolvable CDI devices vendor.example/card=9, nobody.example/card=0 (not read: b.json: torn)");
    }

    #[test]
    fn devices_are_asked_for_in_two_ways_and_by_whole_names() {
        let annotations = [("cdi.k8s.io/plugin", "a.b/c=1, a.b/c=2"), ("other", "a.b/c=3")];
        let mut config = ContainerConfig {
            cdi_devices: names(&["a.b/c=2"]),
            annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..ContainerConfig::default()
        };
        assert_eq!(wanted(&config).unwrap(), ["a.b/c=2", "a.b/c=1"]);
        for wrong in ["", "a", "a=b", "a/b", "a/b=", "/b=c", "a/=c", "a/b=-c", "a/b=c/d", "a/b/c=d", "a/b=c=d", "../b=c"] {
            config.cdi_devices = names(&[wrong]);
            assert_eq!(wanted(&config), Err(CdiError::Name(wrong.to_owned())));
        }
        config.cdi_devices = (0..=LIMIT).map(|number| format!("a.b/c={number}")).collect();
        assert_eq!(wanted(&config), Err(CdiError::TooMany));
    }

    #[test]
    fn files_and_edits_that_are_not_understood_are_refused() {
        for (from, to, word) in [
            ("0.6.0", "0.2.0", "0.2.0"),
            ("0.6.0", "2.0.0", "2.0.0"),
            ("vendor.example/card", "card", "no kind"),
            ("env: [\"DRIVER=1\"]", "envs: []", "envs"),
            ("devices:", "things:", "things"),
            ("kind:", "- kind:", "card.yaml"),
        ] {
            let refused = parse("card.yaml", CARD.replacen(from, to, 1).as_bytes());
            assert!(refused.as_ref().is_err_and(|text| text.contains(word)), "{to}: {refused:?}");
        }
        for (from, to, word) in [
            ("CARD=0", "=0", "environment"),
            ("permissions: rw", "permissions: none", "permissions"),
            ("permissions: rw", "type: p", "not a device"),
            ("rprivate", "loud", "loud"),
            ("options: [", "type: tmpfs, options: [", "tmpfs"),
            ("additionalGids: [0, 44]", "netDevices: [{hostInterfaceName: eth1, name: eth1}]", "netDevices"),
            ("additionalGids: [0, 44]", "intelRdt: {closID: a}", "intelRdt"),
        ] {
            let found = [vec![("a.yaml".into(), document(&CARD.replacen(from, to, 1)))]];
            let refused = resolve(&names(&["vendor.example/card=0"]), &found, &[]);
            assert!(refused.as_ref().is_err_and(|error| error.to_string().contains(word)), "{to}: {refused:?}");
        }
    }
}
