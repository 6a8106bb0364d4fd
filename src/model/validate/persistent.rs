//! Persistent volumes, claims on them, and their classes. PURE.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeNodeAffinity};
use k8s_openapi::api::storage::v1::StorageClass;

use super::{IMMUTABLE, SPEC, metadata, names, one_of, resources, volume};
use crate::model::local_volume::{self, HOME, PROVISIONED_BY, made_by};
use crate::model::quantity::Quantity;
use crate::model::rule::{Errors, Path};
use crate::model::volume::{BLOCK, FILESYSTEM, ONE_POD, PersistentVolume};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", ONE_POD];
const MODES: [&str; 2] = [BLOCK, FILESYSTEM];
const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const KNOWN_BY: &str = "by this its node knows the directory that goes with the volume: it stays as it is";
const CLAIM: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

pub(super) fn persistent_volume(it: &PersistentVolume, errors: &mut Errors) {
    let spec = &it.spec;
    access_modes(spec.access_modes.as_deref(), &SPEC, "", errors);
    let capacity = SPEC.child("capacity");
    let amounts = spec.capacity.iter().flatten().collect::<Vec<_>>();
    match amounts.as_slice() {
        [] => errors.required(&capacity, ""),
        [(name, amount)] if *name == "storage" => positive(amount, &capacity.key("storage"), errors),
        several => {
            let names: Vec<&String> = several.iter().map(|(name, _)| *name).collect();
            errors.unsupported(&capacity, &names, &["storage"]);
        }
    }
    one_of(
        spec.persistent_volume_reclaim_policy.as_deref(),
        &["Delete", "Recycle", "Retain"],
        &SPEC.child("persistentVolumeReclaimPolicy"),
        errors,
    );
    class_name(spec.storage_class_name.as_deref(), &SPEC, errors);
    one_of(spec.volume_mode.as_deref(), &MODES, &SPEC.child("volumeMode"), errors);
    if let Some(affinity) = &spec.node_affinity {
        node_affinity(affinity, errors);
    }
    sources(it, errors);
}

fn sources(it: &PersistentVolume, errors: &mut Errors) {
    let spec = &it.spec;
    let set = spec.others.len() + usize::from(spec.host_path.is_some()) + usize::from(spec.local.is_some());
    if set == 0 {
        errors.required(&SPEC, "must specify a volume type");
    }
    if let Some(source) = &spec.host_path {
        volume::host_path(source, &SPEC.child("hostPath"), errors);
    }
    let Some(source) = &spec.local else { return };
    let at = SPEC.child("local");
    if set > 1 {
        errors.forbidden(&at, ONE_SOURCE);
    }
    if source.path.is_empty() {
        errors.required(&at.child("path"), "");
    } else {
        volume::host_directory(&source.path, &at.child("path"), errors);
    }
    if spec.node_affinity.as_ref().is_none_or(|affinity| affinity.required.is_none()) {
        errors.required(&SPEC.child("nodeAffinity"), "Local volume requires node affinity");
    }
}

fn node_affinity(affinity: &VolumeNodeAffinity, errors: &mut Errors) {
    let at = SPEC.child("nodeAffinity.required");
    let Some(required) = &affinity.required else {
        return errors.required(&at, "must specify required node constraints");
    };
    let list = at.child("nodeSelectorTerms");
    if required.node_selector_terms.is_empty() {
        errors.required(&list, "must have at least one node selector term");
    }
    for (index, term) in required.node_selector_terms.iter().enumerate() {
        let at = list.index(index);
        for (field, lines) in [("matchExpressions", &term.match_expressions), ("matchFields", &term.match_fields)] {
            let lines_at = at.child(field);
            for (index, line) in lines.iter().flatten().enumerate() {
                let at = lines_at.index(index);
                let count = line.values.as_ref().map_or(0, Vec::len);
                match line.operator.as_str() {
                    "In" | "NotIn" if count == 0 => {
                        errors.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
                    }
                    "Exists" | "DoesNotExist" if count > 0 => {
                        errors.forbidden(&at.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                    }
                    "Gt" | "Lt" if count != 1 => {
                        errors.required(&at.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
                    }
                    "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                    _ => errors.invalid(&at.child("operator"), &line.operator, "not a valid selector operator"),
                }
                match (field, line.key.as_str()) {
                    ("matchFields", "metadata.name") => {}
                    ("matchFields", _) => errors.invalid(&at.child("key"), &line.key, "not a valid field selector key"),
                    (_, key) => errors.all(&at.child("key"), key, names::qualified_name(key)),
                }
            }
        }
    }
}

fn access_modes(modes: Option<&[String]>, path: &Path<'_>, detail: &str, errors: &mut Errors) {
    let at = path.child("accessModes");
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        errors.required(&at, detail);
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.unsupported(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == ONE_POD) {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity, path: &Path<'_>, errors: &mut Errors) {
    if let Some(quantity) = resources::quantity(amount, path, errors)
        && (quantity.is_zero() || quantity.is_negative())
    {
        errors.invalid(path, &amount.0, "must be greater than zero");
    }
}

fn class_name(name: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        errors.all(&path.child("storageClassName"), name, names::dns_subdomain(name));
    }
}

pub(super) fn claim(it: &PersistentVolumeClaim, errors: &mut Errors) {
    match &it.spec {
        Some(spec) => claim_spec(spec, &SPEC, errors),
        None => errors.required(&SPEC, ""),
    }
}

/// What a claim asks for, or a template of one.
pub(super) fn claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, errors: &mut Errors) {
    access_modes(spec.access_modes.as_deref(), path, "at least 1 access mode is required", errors);
    if let Some(selector) = &spec.selector {
        metadata::selector(selector, &path.child("selector"), errors);
    }
    let at = path.child("resources");
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let storage = requests.and_then(|requests| requests.get("storage"));
    match storage {
        None => errors.required(&at.child("requests").key("storage"), ""),
        Some(amount) => positive(amount, &at.child("requests").key("storage"), errors),
    }
    class_name(spec.storage_class_name.as_deref(), path, errors);
    one_of(spec.volume_mode.as_deref(), &MODES, &path.child("volumeMode"), errors);
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        errors.all(&path.child("volumeName"), name, names::dns_subdomain(name));
    }
}

pub(super) fn class(it: &StorageClass, errors: &mut Errors) {
    let at = Path::root("provisioner");
    if it.provisioner.is_empty() {
        errors.required(&at, "");
    } else {
        let name = it.provisioner.to_lowercase();
        errors.all(&at, &it.provisioner, names::qualified_name(&name));
    }
    one_of(it.reclaim_policy.as_deref(), &["Delete", "Retain"], &Path::root("reclaimPolicy"), errors);
    one_of(it.volume_binding_mode.as_deref(), &["Immediate", "WaitForFirstConsumer"], &Path::root("volumeBindingMode"), errors);
}

pub(super) fn volume_update(new: &PersistentVolume, old: &PersistentVolume, errors: &mut Errors) {
    same_home(new, old, errors);
    let (new, old) = (&new.spec, &old.spec);
    if (&new.host_path, &new.local, &new.others) != (&old.host_path, &old.local, &old.others) {
        errors.forbidden(&SPEC.child("persistentvolumesource"), "spec.persistentvolumesource is immutable after creation");
    }
    if new.volume_mode != old.volume_mode {
        errors.invalid(&SPEC.child("volumeMode"), &new.volume_mode, IMMUTABLE);
    }
    if old.node_affinity.is_some() && new.node_affinity != old.node_affinity {
        errors.invalid(&SPEC.child("nodeAffinity"), &new.node_affinity, IMMUTABLE);
    }
}

/// A volume that was made here is known to its node, which removes what it holds, by a label and an annotation: without one
/// of them the directory would stay when the volume goes.
fn same_home(new: &PersistentVolume, old: &PersistentVolume, errors: &mut Errors) {
    if local_volume::home(old).is_none() {
        return;
    }
    let metadata = Path::root("metadata");
    if made_by(new) != made_by(old) {
        errors.forbidden(&metadata.child("annotations").key(PROVISIONED_BY), KNOWN_BY);
    }
    let home = |it: &PersistentVolume| it.metadata.labels.as_ref().and_then(|labels| labels.get(HOME).cloned());
    if home(new) != home(old) {
        errors.forbidden(&metadata.child("labels").key(HOME), KNOWN_BY);
    }
}

/// What it asks for stays; a volume and a class are given to it once. That one which is bound cannot grow is no rule of its
/// fields: `admit` says it.
pub(super) fn claim_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    let is_bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let size = |spec: &PersistentVolumeClaimSpec| Some(Quantity::of(spec.resources.as_ref()?.requests.as_ref()?.get("storage")?));
    let (wanted, has) = (size(new), size(old));
    let mut munged = new.clone();
    if old.volume_name.as_deref().is_none_or(str::is_empty) {
        munged.volume_name.clone_from(&old.volume_name);
    }
    if old.storage_class_name.is_none() {
        munged.storage_class_name = None;
    }
    if is_bound || wanted == has {
        let before = old.resources.as_ref().and_then(|it| it.requests.as_ref()?.get("storage"));
        let after = munged.resources.as_mut().and_then(|it| it.requests.as_mut()?.get_mut("storage"));
        after.zip(before).into_iter().for_each(|(after, before)| after.clone_from(before));
    }
    if munged != *old {
        errors.forbidden(&SPEC, CLAIM);
    } else if wanted < has {
        errors.forbidden(&SPEC.child("resources.requests.storage"), "field can not be less than status.capacity");
    }
}

pub(super) fn class_update(new: &StorageClass, old: &StorageClass, errors: &mut Errors) {
    for (field, changed) in [
        ("parameters", new.parameters != old.parameters),
        ("provisioner", new.provisioner != old.provisioner),
        ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
    ] {
        if changed {
            errors.forbidden(&Path::root(field), &format!("updates to {field} are forbidden."));
        }
    }
    if new.volume_binding_mode != old.volume_binding_mode {
        errors.invalid(&Path::root("volumeBindingMode"), &new.volume_binding_mode, IMMUTABLE);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::validate::{validate, validate_update};
    use crate::model::{Kind, Object, Typed, defaults, fields};

    fn typed(kind: Kind, value: &Value) -> Typed {
        let mut typed = Object::from_value(kind, value.clone()).unwrap().typed().clone();
        defaults::apply(&mut typed);
        typed
    }

    fn local() -> Value {
        let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]);
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "local": {"path": "/mnt/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}})
    }

    fn claim() -> Value {
        json!({"metadata": {"name": "c", "namespace": "web"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
    }

    fn class() -> Value {
        json!({"metadata": {"name": "s"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"})
    }

    /// The value with another at a place; null takes it away.
    fn with(value: &Value, pointer: &str, other: &Value) -> Value {
        let mut value = value.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let map = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if other.is_null() {
            map.remove(name);
        } else {
            map.insert(name.to_owned(), other.clone());
        }
        value
    }

    #[test]
    fn what_is_wrong_is_told() {
        let (pv, pvc, sc) = (Kind::PersistentVolume, Kind::PersistentVolumeClaim, Kind::StorageClass);
        let terms = "/spec/nodeAffinity/required/nodeSelectorTerms";
        let line = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}]);
        for (kind, pointer, value, expected) in [
            (pv, "/spec/capacity", json!(null), "spec.capacity: Required value"),
            (pv, "/spec/capacity", json!({"storage": "0"}), "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"),
            (pv, "/spec/capacity", json!({"cpu": "1"}), "spec.capacity: Unsupported value: [\"cpu\"]: supported values: \"storage\""),
            (pv, "/spec/accessModes", json!([]), "spec.accessModes: Required value"),
            (pv, "/spec/accessModes", json!(["x"]), "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\""),
            (
                pv,
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteOnce"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            (pv, "/spec/volumeMode", json!("Tape"), "spec.volumeMode: Unsupported value: \"Tape\""),
            (pv, "/spec/local", json!(null), "spec: Required value: must specify a volume type"),
            (pv, "/spec/local", json!({"path": "a/b"}), "spec.local.path: Invalid value: \"a/b\": must be an absolute path"),
            (pv, "/spec/local", json!({"path": "/a/../b"}), "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"),
            (pv, "/spec/hostPath", json!({"path": "/srv"}), "spec.local: Forbidden: may not specify more than 1 volume type"),
            (pv, "/spec/nodeAffinity", json!(null), "spec.nodeAffinity: Required value: Local volume requires node affinity"),
            (pv, terms, json!([]), "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one"),
            (
                pv,
                terms,
                line("In", json!([])),
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values: Required value",
            ),
            (
                pv,
                terms,
                line("Near", json!([])),
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value",
            ),
            (pvc, "/spec", json!(null), "spec: Required value"),
            (pvc, "/spec/accessModes", json!([]), "spec.accessModes: Required value: at least 1 access mode is required"),
            (pvc, "/spec/resources", json!({}), "spec.resources.requests[storage]: Required value"),
            (pvc, "/spec/storageClassName", json!("A b"), "spec.storageClassName: Invalid value: \"A b\""),
            (sc, "/provisioner", json!(""), "provisioner: Required value"),
            (sc, "/volumeBindingMode", json!("Never"), "volumeBindingMode: Unsupported value: \"Never\""),
        ] {
            let plain = if kind == pv {
                local()
            } else if kind == pvc {
                claim()
            } else {
                class()
            };
            assert_eq!(validate(&typed(kind, &plain)), []);
            let got: Vec<String> = validate(&typed(kind, &with(&plain, pointer, &value))).iter().map(ToString::to_string).collect();
            assert!(got.len() == 1 && got[0].starts_with(expected), "{pointer}: {got:?}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let pv = Kind::PersistentVolume;
        let csi = json!({"driver": "d", "volumeHandle": "h"});
        for (kind, pointer, value, expected) in [
            (pv, "/spec/csi", csi, "spec.csi: Forbidden: a persistent volume is a `local` path of a node or a `hostPath`: mount"),
            (pv, "/spec/persistentVolumeReclaimPolicy", json!("Recycle"), "spec.persistentVolumeReclaimPolicy: Forbidden: a volume"),
            (
                Kind::PersistentVolumeClaim,
                "/spec/dataSource",
                json!({"kind": "PersistentVolumeClaim", "name": "x"}),
                "spec.dataSource: Forbidden: no volume is made of another's content",
            ),
        ] {
            let plain = if kind == pv { local() } else { claim() };
            let value = Object::from_typed(typed(kind, &with(&plain, pointer, &value))).value();
            let got: Vec<String> = fields::refusals(kind, &value).iter().map(ToString::to_string).collect();
            assert!(got.len() == 1 && got[0].starts_with(expected), "{pointer}: {got:?}");
        }
        assert_eq!(fields::refusals(pv, &Object::from_typed(typed(pv, &local())).value()), []);
    }

    #[test]
    fn what_is_made_stays() {
        let (pv, pvc, sc) = (Kind::PersistentVolume, Kind::PersistentVolumeClaim, Kind::StorageClass);
        let sized = |size: &str| json!({"requests": {"storage": size}});
        for (kind, pointer, value, expected) in [
            (pv, "/spec/local", json!({"path": "/other"}), Some("spec.persistentvolumesource: Forbidden")),
            (pv, "/spec/volumeMode", json!("Block"), Some("spec.volumeMode: Invalid value")),
            (pv, "/spec/nodeAffinity", json!(null), Some("spec.nodeAffinity: Invalid value")),
            (pv, "/spec/claimRef", json!({"name": "a"}), None),
            (pvc, "/spec/volumeName", json!("v"), None),
            (pvc, "/spec/storageClassName", json!("s"), None),
            (pvc, "/spec/resources", sized("1024Mi"), None),
            (pvc, "/spec/resources", sized("2Gi"), Some("spec: Forbidden: spec is immutable after creation except")),
            (pvc, "/spec/resources", sized("1Mi"), Some("spec: Forbidden: spec is immutable after creation except")),
            (pvc, "/spec/accessModes", json!(["ReadWriteMany"]), Some("spec: Forbidden: spec is immutable after creation except")),
            (sc, "/provisioner", json!("a/b"), Some("provisioner: Forbidden: updates to provisioner are forbidden.")),
            (sc, "/volumeBindingMode", json!("Immediate"), Some("volumeBindingMode: Invalid value")),
        ] {
            let plain = if kind == pv {
                local()
            } else if kind == pvc {
                claim()
            } else {
                class()
            };
            let (new, old) = (typed(kind, &with(&plain, pointer, &value)), typed(kind, &plain));
            let got: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
            assert!(
                got.len() == usize::from(expected.is_some()) && got.iter().all(|it| it.starts_with(expected.unwrap())),
                "{pointer}: {got:?}"
            );
        }
        // Where its directory is, and whose, a volume that was made here says for good.
        let known = |labels: Value, annotations: Value| {
            let it = with(&local(), "/metadata/labels", &labels);
            typed(pv, &with(&it, "/metadata/annotations", &annotations))
        };
        let home = || json!({"podbay.dev/node": "n1", "a": "b"});
        let (here, elsewhere) = (json!({"pv.kubernetes.io/provisioned-by": "podbay.dev/local-path"}), json!({"podbay.dev/node": "n2"}));
        let other = json!({"pv.kubernetes.io/provisioned-by": "example.com/x"});
        let (label, annotation) = ("metadata.labels[podbay.dev/node]", "metadata.annotations[pv.kubernetes.io/provisioned-by]");
        for (old, new, expected) in [
            (known(home(), here.clone()), known(json!({"podbay.dev/node": "n1"}), here.clone()), &[][..]),
            (known(home(), here.clone()), known(elsewhere.clone(), here.clone()), &[label]),
            (known(home(), here.clone()), known(json!(null), here.clone()), &[label]),
            (known(home(), here.clone()), known(home(), other.clone()), &[annotation]),
            (known(home(), here.clone()), known(json!(null), json!(null)), &[annotation, label]),
            // What others made, or people, is theirs to say.
            (known(home(), other.clone()), known(elsewhere.clone(), json!(null)), &[]),
            (known(home(), json!(null)), known(elsewhere, here.clone()), &[]),
            (known(json!(null), here), known(home(), other), &[]),
        ] {
            let got: Vec<String> =
                validate_update(&new, &old).iter().map(|error| error.to_string().replace(": Forbidden: by this", "|")).collect();
            let got: Vec<&str> = got.iter().map(|it| it.split('|').next().unwrap()).collect();
            assert_eq!(got, expected, "{new:?}");
        }
        // Bound, its size is another matter.
        let bound = with(&claim(), "/status", &json!({"phase": "Bound", "capacity": {"storage": "1Gi"}}));
        for (size, expected) in [
            ("1024Mi", None),
            ("2Gi", None),
            ("1Mi", Some("spec.resources.requests.storage: Forbidden: field can not be less than status.capacity")),
        ] {
            let new = typed(pvc, &with(&bound, "/spec/resources", &sized(size)));
            let got: Vec<String> = validate_update(&new, &typed(pvc, &bound)).iter().map(ToString::to_string).collect();
            assert!(
                got.len() == usize::from(expected.is_some()) && got.iter().all(|it| it.starts_with(expected.unwrap())),
                "{size}: {got:?}"
            );
        }
        // What was given stays.
        let given = with(&claim(), "/spec/volumeName", &json!("v"));
        assert_eq!(validate_update(&typed(pvc, &claim()), &typed(pvc, &given)).len(), 1);
    }
}
