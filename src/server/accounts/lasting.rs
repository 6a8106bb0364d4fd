//! Tokens without an end: who one stands for, and which Secret lacks one. PURE.
//!
//! Kubernetes' own from before tokens had an end (`pkg/serviceaccount/legacy.go`): the claims name the account and the
//! Secret, and the token is good while that Secret holds it and the account is the same one.

use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};

use crate::control::token_secret::plan::{self, TOKEN};
use crate::model::{ACCOUNT_UID, Kind, Object};
use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

const ISSUER: &str = "kubernetes/serviceaccount";
/// A label by which Kubernetes takes the token of a Secret back without deleting it.
const TAKEN_BACK: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lasting {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

/// What the token of a Secret is to say, where it has none and knows its account.
pub fn lacking(object: &Object, state: &Snapshot) -> Option<Lasting> {
    let secret = object.get::<Secret>().filter(|_| plan::is_token(object) && !object.is_deleting())?;
    if secret.immutable == Some(true) || !kept(secret).is_empty() {
        return None;
    }
    let account = plan::account(object, state).filter(|account| object.annotation(ACCOUNT_UID) == Some(account.uid()))?;
    let key = object.key();
    Some(Lasting {
        iss: ISSUER.to_owned(),
        namespace: key.namespace.clone(),
        secret: key.name.clone(),
        account: account.key().name.clone(),
        uid: account.uid().to_owned(),
        sub: Identity::account(&key.namespace, &account.key().name).user,
    })
}

/// Who a token, whose signature is right, stands for now.
pub fn identity(token: &str, said: &Lasting, state: &Snapshot) -> Option<Identity> {
    let namespace = said.namespace.as_str();
    let stands = |object: &&Object| !object.is_deleting();
    let account = state.find(Kind::ServiceAccount, namespace, &said.account).filter(stands)?;
    let object = state.find(Kind::Secret, namespace, &said.secret).filter(stands)?;
    let taken_back = object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(TAKEN_BACK));
    let holds = plan::is_token(object) && kept(object.get()?) == token.as_bytes();
    let mut identity = Identity::account(namespace, &said.account);
    if said.iss != ISSUER || said.sub != identity.user || said.uid != account.uid() || taken_back || !holds {
        return None;
    }
    identity.uid = Some(said.uid.clone());
    Some(identity)
}

fn kept(secret: &Secret) -> &[u8] {
    secret.data.as_ref().and_then(|data| data.get(TOKEN)).map(|token| token.0.as_slice()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{ACCOUNT_NAME, ACCOUNT_TOKEN};

    fn secret(change: &Value) -> Object {
        let mut value = json!({"metadata": {"name": "t", "namespace": "web", "annotations": {ACCOUNT_NAME: "bot", ACCOUNT_UID: "a"}},
            "type": ACCOUNT_TOKEN});
        json_patch::merge(&mut value, change);
        Object::from_value(Kind::Secret, value).unwrap()
    }

    fn state(account: &Value, secret: Object) -> Snapshot {
        let mut state = Snapshot::default();
        let mut value = json!({"metadata": {"name": "bot", "namespace": "web", "uid": "a"}});
        json_patch::merge(&mut value, account);
        state.insert(Object::from_value(Kind::ServiceAccount, value).unwrap());
        state.insert(secret);
        state
    }

    fn said() -> Lasting {
        let bare = secret(&json!({}));
        lacking(&bare, &state(&json!({}), bare.clone())).unwrap()
    }

    #[test]
    fn a_token_is_for_a_secret_that_has_none() {
        assert_eq!(said().sub, "system:serviceaccount:web:bot");
        for change in [
            json!({"data": {"token": "dG9rZW4="}}),
            json!({"immutable": true}),
            json!({"type": "Opaque"}),
            json!({"metadata": {"annotations": {ACCOUNT_UID: null}}}),
            json!({"metadata": {"annotations": {ACCOUNT_UID: "old"}}}),
            json!({"metadata": {"annotations": {ACCOUNT_NAME: "nobody"}}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ] {
            let secret = secret(&change);
            assert_eq!(lacking(&secret, &state(&json!({}), secret.clone())), None, "{change}");
        }
    }

    #[test]
    fn a_token_is_good_while_its_secret_holds_it_and_its_account_is_the_same() {
        let holds = json!({"data": {"token": "dG9rZW4="}});
        let ask = |account: Value, change: Value, said: &Lasting| {
            let mut whole = holds.clone();
            json_patch::merge(&mut whole, &change);
            identity("token", said, &state(&account, secret(&whole)))
        };
        let good = ask(json!({}), json!({}), &said()).unwrap();
        assert_eq!((good.user.as_str(), good.uid.as_deref()), ("system:serviceaccount:web:bot", Some("a")));
        assert_eq!(good.groups, ["system:serviceaccounts", "system:serviceaccounts:web"]);
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        for (account, change) in [
            (json!({"metadata": {"uid": "b"}}), json!({})),
            (json!({"metadata": {"name": "other"}}), json!({})),
            (going.clone(), json!({})),
            (json!({}), going),
            (json!({}), json!({"data": {"token": "b3RoZXI="}})),
            (json!({}), json!({"metadata": {"name": "u"}})),
            (json!({}), json!({"type": "Opaque"})),
            (json!({}), json!({"metadata": {"labels": {TAKEN_BACK: "2026-01-01"}}})),
        ] {
            assert_eq!(ask(account.clone(), change.clone(), &said()), None, "{account} {change}");
        }
        for changed in [
            Lasting { iss: "elsewhere".to_owned(), ..said() },
            Lasting { sub: "system:serviceaccount:web:root".to_owned(), ..said() },
            Lasting { namespace: "other".to_owned(), ..said() },
        ] {
            assert_eq!(ask(json!({}), json!({}), &changed), None, "{changed:?}");
        }
    }
}
