//! What a Secret for a token lacks, and whether it has an account at all. PURE.
//!
//! The rules are those of Kubernetes' tokens controller (`pkg/controller/serviceaccount`): a Secret whose account is not
//! there, or is another one than its uid says, goes; `ca.crt` follows the cluster's; `namespace` is filled in once.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::model::{ACCOUNT_NAME, ACCOUNT_TOKEN, ACCOUNT_UID, Key, Kind, Object, ROOT_CA, SYSTEM_NAMESPACE};
use crate::plan::{Op, Plan};
use crate::store::snapshot::Snapshot;

const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
/// The key of the token in a Secret's data.
pub const TOKEN: &str = "token";
/// What the cluster puts into the data of such a Secret, whatever a manifest says: an exported one has another cluster's.
pub const FILLED_IN: [&str; 3] = [CA, NAMESPACE, TOKEN];

/// Whether this is a Secret for a token.
pub fn is_token(object: &Object) -> bool {
    object.get::<Secret>().is_some_and(|secret| secret.type_.as_deref() == Some(ACCOUNT_TOKEN))
}

/// The account that a Secret for a token is of, where it is there.
pub fn account<'a>(secret: &Object, state: &'a Snapshot) -> Option<&'a Object> {
    let account = state.find(Kind::ServiceAccount, &secret.key().namespace, secret.annotation(ACCOUNT_NAME)?)?;
    let uid = secret.annotation(ACCOUNT_UID).unwrap_or_default();
    (uid.is_empty() || uid == account.uid()).then_some(account)
}

/// The Secrets for tokens that name this account.
pub fn named_by<'a>(state: &'a Snapshot, account: &'a Key) -> impl Iterator<Item = &'a Object> {
    let names = |secret: &&Object| is_token(secret) && secret.annotation(ACCOUNT_NAME) == Some(account.name.as_str());
    state.list_in(Kind::Secret, &account.namespace).filter(names)
}

pub fn plan(secret: &Object, state: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let Some(it) = secret.get::<Secret>().filter(|_| is_token(secret) && !secret.is_deleting()) else { return plan };
    let Some(account) = account(secret, state) else {
        plan.ops.push(Op::Delete { before: secret.clone(), grace_seconds: None });
        return plan;
    };
    let mut after = it.clone();
    after.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), account.uid().to_owned());
    // What may not change keeps what it has.
    if it.immutable != Some(true) {
        let data = after.data.get_or_insert_default();
        let authority =
            state.find(Kind::ConfigMap, SYSTEM_NAMESPACE, ROOT_CA).and_then(|map| map.get::<ConfigMap>()?.data.as_ref()?.get(CA));
        if let Some(authority) = authority {
            data.insert(CA.to_owned(), ByteString(authority.clone().into_bytes()));
        }
        let namespace = data.entry(NAMESPACE.to_owned()).or_insert_with(|| ByteString(Vec::new()));
        if namespace.0.is_empty() {
            namespace.0 = secret.key().namespace.clone().into_bytes();
        }
    }
    if after != *it {
        plan.ops.push(Op::Update { before: secret.clone(), after: Object::new(after) });
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::token_secret::TokenSecrets;
    use crate::plan::Controller as _;

    fn secret(change: Value) -> Object {
        let mut value = json!({"metadata": {"name": "t", "namespace": "web", "annotations": {ACCOUNT_NAME: "bot"}}, "type": ACCOUNT_TOKEN});
        json_patch::merge(&mut value, &change);
        Object::from_value(Kind::Secret, value).unwrap()
    }

    fn state(secret: &Object) -> Snapshot {
        let mut state = Snapshot::default();
        let account = json!({"metadata": {"name": "bot", "namespace": "web", "uid": "a"}});
        let map = json!({"metadata": {"name": ROOT_CA, "namespace": SYSTEM_NAMESPACE}, "data": {CA: "pem"}});
        state.insert(Object::from_value(Kind::ServiceAccount, account).unwrap());
        state.insert(Object::from_value(Kind::ConfigMap, map).unwrap());
        state.insert(secret.clone());
        state
    }

    /// Its data in words, and the uid it names.
    fn said(object: &Object) -> String {
        let data = object.get::<Secret>().unwrap().data.clone().unwrap_or_default();
        let data: Vec<String> = data.iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value.0))).collect();
        format!("{} {}", data.join(" "), object.annotation(ACCOUNT_UID).unwrap_or("-"))
    }

    #[test]
    fn a_secret_gets_what_it_lacks() {
        for (change, expected) in [
            (json!({}), "ca.crt=pem namespace=web a"),
            (json!({"data": {"ca.crt": "b2xk", "namespace": "b2xk", "token": "b2xk"}}), "ca.crt=pem namespace=old token=old a"),
            (json!({"immutable": true, "data": {"ca.crt": "b2xk"}}), "ca.crt=old a"),
        ] {
            let before = secret(change);
            let first = plan(&before, &state(&before));
            let [Op::Update { after, .. }] = first.ops.as_slice() else { panic!("{first:?}") };
            assert_eq!(said(after), expected);
            assert!(plan(after, &state(after)).is_empty(), "once is enough");
        }
        assert!(plan(&secret(json!({"type": "Opaque"})), &state(&secret(json!({})))).is_empty(), "another Secret is nobody's business");
    }

    #[test]
    fn a_secret_without_its_account_goes() {
        for (annotations, goes) in [
            (json!({ACCOUNT_UID: "a"}), false),
            (json!({ACCOUNT_UID: "old"}), true),
            (json!({ACCOUNT_NAME: "nobody"}), true),
            (json!({ACCOUNT_NAME: null}), true),
        ] {
            let secret = secret(json!({"metadata": {"annotations": annotations}}));
            let plan = plan(&secret, &state(&secret));
            assert_eq!(matches!(plan.ops.as_slice(), [Op::Delete { .. }]), goes, "{annotations}: {plan:?}");
        }
    }

    #[test]
    fn it_is_looked_at_when_what_it_rests_on_changes() {
        let secret = secret(json!({}));
        let state = state(&secret);
        let looks = |object: &Object| !TokenSecrets.keys(&state, object).is_empty();
        assert!(state.iter().all(looks));
        let other = json!({"metadata": {"name": "bots", "namespace": "web"}});
        assert!(!looks(&Object::from_value(Kind::ServiceAccount, other).unwrap()));
    }
}
