//! Volumes and where containers mount them. PURE.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Volume, VolumeMount};

use super::{PULL_POLICIES, names, one_of, persistent, pod, projection, resources};
use crate::model::rule::{Errors, Path};

/// The volumes of a pod by name.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a Volume>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const NO_DOTS: &str = "must not contain '..'";
const RELATIVE: &str = "must be a relative path";

pub(super) fn volumes<'a>(volumes: &'a [Volume], path: &Path<'_>, errors: &mut Errors) -> Known<'a> {
    let mut known = Known::new();
    for (index, it) in volumes.iter().enumerate() {
        let at = path.index(index);
        if it.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.all(&at.child("name"), &it.name, names::dns_label(&it.name));
        }
        source(it, &at, errors);
        known.insert(&it.name, it);
    }
    for (index, name) in pod::repeated(volumes.iter().map(|it| it.name.as_str())) {
        errors.duplicate(&path.index(index).child("name"), name);
    }
    known
}

fn source(it: &Volume, path: &Path<'_>, errors: &mut Errors) {
    let served = [
        ("emptyDir", it.empty_dir.is_some()),
        ("hostPath", it.host_path.is_some()),
        ("configMap", it.config_map.is_some()),
        ("secret", it.secret.is_some()),
        ("downwardAPI", it.downward_api.is_some()),
        ("projected", it.projected.is_some()),
        ("image", it.image.is_some()),
        ("persistentVolumeClaim", it.persistent_volume_claim.is_some()),
        ("ephemeral", it.ephemeral.is_some()),
    ];
    let set: Vec<&str> = served.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let others = Volume {
        empty_dir: None,
        host_path: None,
        config_map: None,
        secret: None,
        downward_api: None,
        projected: None,
        image: None,
        persistent_volume_claim: None,
        ephemeral: None,
        name: String::new(),
        ..it.clone()
    };
    let has_other = others != Volume::default();
    // Other sources are refused by the table of fields; here only the count matters.
    for name in set.iter().skip(usize::from(!has_other)) {
        errors.forbidden(&path.child(name), "may not specify more than 1 volume type");
    }
    if set.is_empty() && !has_other {
        errors.required(path, "must specify a volume type");
    }
    if let Some(source) = &it.empty_dir {
        empty_dir(source, &path.child("emptyDir"), errors);
    }
    if let Some(source) = &it.host_path {
        host_path(source, &path.child("hostPath"), errors);
    }
    if let Some(source) = &it.config_map {
        let at = path.child("configMap");
        if source.name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        files(source.default_mode, source.items.as_deref(), &at, errors);
    }
    if let Some(source) = &it.secret {
        let at = path.child("secret");
        if source.secret_name.as_deref().is_none_or(str::is_empty) {
            errors.required(&at.child("secretName"), "");
        }
        files(source.default_mode, source.items.as_deref(), &at, errors);
    }
    if let Some(source) = &it.image {
        one_of(source.pull_policy.as_deref(), &PULL_POLICIES, &path.child("image.pullPolicy"), errors);
    }
    told(it, path, errors);
    claimed(it, path, errors);
}

fn claimed(it: &Volume, path: &Path<'_>, errors: &mut Errors) {
    if let Some(source) = &it.persistent_volume_claim
        && source.claim_name.is_empty()
    {
        errors.required(&path.child("persistentVolumeClaim.claimName"), "");
    }
    if let Some(source) = &it.ephemeral {
        let at = path.child("ephemeral.volumeClaimTemplate");
        match &source.volume_claim_template {
            Some(template) => persistent::claim_spec(&template.spec, &at.child("spec"), errors),
            None => errors.required(&at, ""),
        }
    }
}

fn told(it: &Volume, path: &Path<'_>, errors: &mut Errors) {
    if let Some(source) = &it.downward_api {
        let at = path.child("downwardAPI");
        mode(source.default_mode, &at.child("defaultMode"), errors);
        source.items.iter().flatten().for_each(|file| projection::downward_file(file, &at, errors));
    }
    if let Some(source) = &it.projected {
        projection::projected(source, &path.child("projected"), errors);
    }
}

fn empty_dir(source: &EmptyDirVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("sizeLimit");
    if let Some(limit) = &source.size_limit
        && let Some(quantity) = resources::quantity(limit, &at, errors)
        && quantity.is_negative()
    {
        errors.forbidden(&at, "SizeLimit field must be a valid resource quantity");
    }
}

pub(super) fn host_path(source: &HostPathVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("path");
    if source.path.is_empty() {
        errors.required(&at, "");
    } else {
        host_directory(&source.path, &at, errors);
    }
    let types = ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    one_of(source.type_.as_deref(), &types, &path.child("type"), errors);
}

/// A path of a node.
pub(super) fn host_directory(text: &str, path: &Path<'_>, errors: &mut Errors) {
    no_dots(text, path, errors);
    if !text.starts_with('/') {
        errors.invalid(path, text, "must be an absolute path");
    }
}

pub(super) fn files(default_mode: Option<i32>, items: Option<&[KeyToPath]>, path: &Path<'_>, errors: &mut Errors) {
    mode(default_mode, &path.child("defaultMode"), errors);
    let list = path.child("items");
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let at = list.index(index);
        if item.key.is_empty() {
            errors.required(&at.child("key"), "");
        }
        if item.path.is_empty() {
            errors.required(&at.child("path"), "");
        }
        relative(&item.path, &at.child("path"), errors);
        mode(item.mode, &at.child("mode"), errors);
    }
}

pub(super) fn mode(mode: Option<i32>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|it| !(0..=0o777).contains(it)) {
        errors.invalid(path, &mode, FILE_MODE);
    }
}

fn no_dots(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, NO_DOTS);
    }
}

/// A path that leads down.
pub(super) fn descending(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, RELATIVE);
    }
    no_dots(text, path, errors);
}

/// A path that stays below where it starts.
pub(super) fn relative(text: &str, path: &Path<'_>, errors: &mut Errors) {
    descending(text, path, errors);
    if text.starts_with("..") && text.split('/').next() != Some("..") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

pub(super) fn mounts(container: &Container, volumes: &Known<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, it) in container.volume_mounts.iter().flatten().enumerate() {
        let at = path.index(index);
        if it.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if !volumes.contains_key(it.name.as_str()) {
            errors.not_found(&at.child("name"), &it.name);
        }
        if it.mount_path.is_empty() {
            errors.required(&at.child("mountPath"), "");
        } else if !seen.insert(it.mount_path.as_str()) {
            errors.invalid(&at.child("mountPath"), &it.mount_path, "must be unique");
        }
        mount(it, container, &at, errors);
    }
}

/// Volumes that a container has as devices.
pub(super) fn devices(container: &Container, volumes: &Known<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mounts = || container.volume_mounts.iter().flatten();
    let mut seen = BTreeSet::new();
    for (index, it) in container.volume_devices.iter().flatten().enumerate() {
        let at = path.index(index);
        let name = at.child("name");
        let is_persistent = |volume: &&&Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        match volumes.get(it.name.as_str()) {
            _ if it.name.is_empty() => errors.required(&name, ""),
            None => errors.not_found(&name, &it.name),
            Some(volume) if !is_persistent(&volume) => {
                errors.invalid(&name, &it.name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) if mounts().any(|mount| mount.name == it.name) => {
                errors.invalid(&name, &it.name, "must not already exist in volumeMounts");
            }
            Some(_) => {}
        }
        let place = at.child("devicePath");
        if it.device_path.is_empty() {
            errors.required(&place, "");
        } else if !seen.insert(it.device_path.as_str()) {
            errors.invalid(&place, &it.device_path, "must be unique");
        } else if mounts().any(|mount| mount.mount_path == it.device_path) {
            errors.invalid(&place, &it.device_path, "must not already exist as a path in volumeMounts");
        } else if it.device_path.split('/').any(|part| part == "..") {
            errors.invalid(&place, &it.device_path, "can not contain backsteps ('..')");
        }
    }
}

fn mount(it: &VolumeMount, container: &Container, path: &Path<'_>, errors: &mut Errors) {
    let sub_path = it.sub_path.as_deref().unwrap_or_default();
    let expression = it.sub_path_expr.as_deref().unwrap_or_default();
    descending(sub_path, &path.child("subPath"), errors);
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.invalid(&path.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending(expression, &path.child("subPathExpr"), errors);
    }
    let at = path.child("mountPropagation");
    let propagation = it.mount_propagation.as_deref();
    one_of(propagation, &["Bidirectional", "HostToContainer", "None"], &at, errors);
    let privileged = container.security_context.as_ref().is_some_and(|it| it.privileged == Some(true));
    if propagation == Some("Bidirectional") && !privileged {
        errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
    }
    let at = path.child("recursiveReadOnly");
    one_of(it.recursive_read_only.as_deref(), &["Disabled", "Enabled", "IfPossible"], &at, errors);
    if matches!(it.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")) && it.read_only != Some(true) {
        errors.forbidden(&at, "may only be specified when readOnly is true");
    }
    let propagates = propagation.is_some_and(|it| !it.is_empty() && it != "None");
    if matches!(it.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")) && propagates {
        errors.forbidden(&at, "may only be specified when mountPropagation is None or not specified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        for (text, wrong) in [("a/b", 0), ("/a", 1), ("../a", 1), ("a/../b", 1), ("..a", 1), ("a..b", 0), ("/../a", 2)] {
            let mut errors = Errors::default();
            relative(text, &Path::root("x"), &mut errors);
            assert_eq!(errors.into_vec().len(), wrong, "{text}");
        }
    }

    #[test]
    fn devices_are_of_persistent_volumes() {
        let volumes: Vec<Volume> = serde_json::from_value(serde_json::json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "b", "emptyDir": {}}]))
        .unwrap();
        for (name, path, mounts, why) in [
            ("a", "/dev/a", &[][..], None),
            ("a", "", &[][..], Some("x[0].devicePath: Required value")),
            ("a", "/dev/../a", &[][..], Some("x[0].devicePath: Invalid value: \"/dev/../a\": can not contain backsteps ('..')")),
            ("b", "/dev/a", &[][..], Some("x[0].name: Invalid value: \"b\": can only use volume source type of PersistentVolumeClaim or")),
            ("c", "/dev/a", &[][..], Some("x[0].name: Not found: \"c\"")),
            ("a", "/dev/a", &[("a", "/m")][..], Some("x[0].name: Invalid value: \"a\": must not already exist in volumeMounts")),
            ("a", "/m", &[("b", "/m")][..], Some("x[0].devicePath: Invalid value: \"/m\": must not already exist as a path")),
        ] {
            let mounts: Vec<_> = mounts.iter().map(|(name, path)| serde_json::json!({"name": name, "mountPath": path})).collect();
            let devices = serde_json::json!([{"name": name, "devicePath": path}]);
            let container =
                serde_json::from_value(serde_json::json!({"name": "c", "volumeMounts": mounts, "volumeDevices": devices})).unwrap();
            let mut errors = Errors::default();
            let known = super::volumes(&volumes, &Path::root("v"), &mut errors);
            super::devices(&container, &known, &Path::root("x"), &mut errors);
            let told: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
            assert!(
                told.len() == usize::from(why.is_some()) && told.iter().all(|it| it.starts_with(why.unwrap())),
                "{name} {path}: {told:?}"
            );
        }
    }
}
