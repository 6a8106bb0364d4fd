//! What drivers of volumes and kubelets say of each other: CSIDriver, CSINode (`pkg/apis/storage/validation`). PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{CSIDriverSpec, CSINodeDriver, CSINodeSpec, TokenRequest};

use super::{IMMUTABLE, SPEC, names, not_negative, one_of};
use crate::model::rule::{Errors, Path};

/// The longest that a driver may call a node.
const NODE_ID_LIMIT: usize = 256;
/// Of the names of drivers (`ValidateCSIDriverName`).
const NAME_LIMIT: usize = 63;

pub(super) fn driver(spec: &CSIDriverSpec, errors: &mut Errors) {
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    one_of(spec.fs_group_policy.as_deref(), &policies, &SPEC.child("fsGroupPolicy"), errors);
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        one_of(Some(mode), &["Ephemeral", "Persistent"], &SPEC.child("volumeLifecycleModes"), errors);
    }
    if let Some(seconds @ ..10) = spec.node_allocatable_update_period_seconds {
        let at = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&at, &seconds, "must be greater than or equal to 10 seconds");
    }
    tokens(spec.token_requests.as_deref().unwrap_or_default(), errors);
}

fn tokens(requests: &[TokenRequest], errors: &mut Errors) {
    let (path, mut audiences) = (SPEC.child("tokenRequests"), BTreeSet::new());
    for (index, request) in requests.iter().enumerate() {
        let at = path.index(index);
        if !audiences.insert(&request.audience) {
            errors.duplicate(&at.child("audience"), &request.audience);
            continue;
        }
        let wrong = match request.expiration_seconds {
            Some(..600) => "may not specify a duration less than 10 minutes",
            Some(seconds) if seconds > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.invalid(&at.child("expirationSeconds"), &request.expiration_seconds, wrong);
    }
}

pub(super) fn driver_update(new: &CSIDriverSpec, old: &CSIDriverSpec, errors: &mut Errors) {
    if new.attach_required != old.attach_required {
        // Kubernetes' own spelling of the field.
        errors.invalid(&SPEC.child("attachedRequired"), &new.attach_required, IMMUTABLE);
    }
    if new.volume_lifecycle_modes != old.volume_lifecycle_modes {
        errors.invalid(&SPEC.child("volumeLifecycleModes"), &new.volume_lifecycle_modes, IMMUTABLE);
    }
}

pub(super) fn node(spec: &CSINodeSpec, errors: &mut Errors) {
    let (path, mut seen) = (SPEC.child("drivers"), BTreeSet::new());
    for (index, driver) in spec.drivers.iter().enumerate() {
        let at = path.index(index);
        on_node(driver, &at, errors);
        if !seen.insert(&driver.name) {
            errors.duplicate(&at.child("name"), &driver.name);
        }
    }
}

fn on_node(driver: &CSINodeDriver, at: &Path<'_>, errors: &mut Errors) {
    let name = at.child("name");
    if driver.name.is_empty() {
        errors.required(&name, "");
    } else if driver.name.len() > NAME_LIMIT {
        errors.too_long(&name, NAME_LIMIT);
    } else {
        errors.all(&name, &driver.name, names::dns_subdomain(&driver.name.to_lowercase()));
    }
    let id = at.child("nodeID");
    if driver.node_id.is_empty() {
        errors.required(&id, "");
    } else if driver.node_id.len() > NODE_ID_LIMIT {
        errors.invalid(&id, &driver.node_id, &format!("must be {NODE_ID_LIMIT} characters or less"));
    }
    let count = driver.allocatable.as_ref().and_then(|it| it.count);
    not_negative(count, &at.child("allocatable").child("count"), errors);
    let mut keys = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        if key.is_empty() {
            errors.required(at, "");
        }
        if !keys.insert(key) {
            errors.duplicate(at, key);
        }
        errors.all(at, key, names::qualified_name(key));
    }
}

/// A driver that stays says the same of its node but for how many volumes there is room for.
pub(super) fn node_update(new: &CSINodeSpec, old: &CSINodeSpec, errors: &mut Errors) {
    let lasting = |it: &CSINodeDriver| CSINodeDriver { allocatable: None, ..it.clone() };
    for before in &old.drivers {
        for after in new.drivers.iter().filter(|after| after.name == before.name) {
            if lasting(after) != lasting(before) {
                errors.invalid(&SPEC.child("drivers"), after, IMMUTABLE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::validate::{validate, validate_update};
    use crate::model::{Kind, Object, Typed, defaults};

    fn typed(kind: Kind, spec: Value) -> Typed {
        let mut typed = Object::from_value(kind, json!({"metadata": {"name": "n1"}, "spec": spec})).unwrap().typed().clone();
        defaults::apply(&mut typed);
        typed
    }

    fn said(errors: Vec<crate::model::FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn drivers_are_as_kubernetes_has_them() {
        let plain = typed(Kind::CSIDriver, json!({}));
        let spec = Object::from_typed(plain.clone()).value()["spec"].clone();
        let wanted = json!({"attachRequired": true, "fsGroupPolicy": "ReadWriteOnceWithFSType", "podInfoOnMount": false,
            "requiresRepublish": false, "seLinuxMount": false, "storageCapacity": false, "volumeLifecycleModes": ["Persistent"]});
        assert_eq!((spec, validate(&plain)), (wanted, vec![]));
        for (field, value, expected) in [
            ("fsGroupPolicy", json!("All"), "spec.fsGroupPolicy: Unsupported value"),
            ("volumeLifecycleModes", json!(["Never"]), "spec.volumeLifecycleModes: Unsupported value"),
            ("nodeAllocatableUpdatePeriodSeconds", json!(9), "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value"),
            ("tokenRequests", json!([{"audience": "a"}, {"audience": "a"}]), "spec.tokenRequests[1].audience: Duplicate value"),
            ("tokenRequests", json!([{"audience": "a", "expirationSeconds": 599}]), "spec.tokenRequests[0].expirationSeconds: Invalid"),
        ] {
            let got = said(validate(&typed(Kind::CSIDriver, json!({field: value}))));
            assert!(got.len() == 1 && got[0].starts_with(expected), "{field}: {got:?}");
        }
        for (field, value, expected) in [
            ("attachRequired", json!(false), Some("spec.attachedRequired: Invalid value")),
            ("volumeLifecycleModes", json!(["Ephemeral"]), Some("spec.volumeLifecycleModes: Invalid value")),
            ("podInfoOnMount", json!(true), None),
            ("fsGroupPolicy", json!("File"), None),
        ] {
            let got = said(validate_update(&typed(Kind::CSIDriver, json!({field: value})), &plain));
            let fits = got.iter().all(|it| it.starts_with(expected.unwrap_or("-")));
            assert!(got.len() == usize::from(expected.is_some()) && fits, "{field}: {got:?}");
        }
    }

    #[test]
    fn what_a_node_has_of_drivers_is_as_kubernetes_has_it() {
        let plain = json!({"name": "a.example.org", "nodeID": "n", "topologyKeys": ["a/b"], "allocatable": {"count": 3}});
        let with = |field: &str, value: Value| {
            let mut driver = plain.clone();
            driver[field] = value;
            driver
        };
        let node = |drivers: Value| typed(Kind::CSINode, json!({"drivers": drivers}));
        assert_eq!(validate(&node(json!([plain]))), []);
        assert_eq!(validate(&node(json!([]))), []);
        for (drivers, expected) in [
            (json!([with("name", json!("a_b"))]), "spec.drivers[0].name: Invalid value"),
            (json!([with("name", json!(""))]), "spec.drivers[0].name: Required value"),
            (json!([with("nodeID", json!(""))]), "spec.drivers[0].nodeID: Required value"),
            (json!([with("nodeID", json!("n".repeat(257)))]), "spec.drivers[0].nodeID: Invalid value"),
            (json!([with("allocatable", json!({"count": -1}))]), "spec.drivers[0].allocatable.count: Invalid value"),
            (json!([with("topologyKeys", json!(["a", "a"]))]), "spec.drivers[0]: Duplicate value"),
            (json!([plain, plain]), "spec.drivers[1].name: Duplicate value"),
        ] {
            let got = said(validate(&node(drivers.clone())));
            assert!(got.len() == 1 && got[0].starts_with(expected), "{drivers}: {got:?}");
        }
        let old = node(json!([plain]));
        for (drivers, changes) in [
            (json!([with("allocatable", json!({"count": 4}))]), 0),
            (json!([plain, with("name", json!("b.example.org"))]), 0),
            (json!([]), 0),
            (json!([with("nodeID", json!("other"))]), 1),
            (json!([with("topologyKeys", json!([]))]), 1),
        ] {
            let got = said(validate_update(&node(drivers.clone()), &old));
            assert!(got.len() == changes && got.iter().all(|it| it.starts_with("spec.drivers: Invalid value")), "{drivers}: {got:?}");
        }
    }
}
