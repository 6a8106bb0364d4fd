//! Bootstrap tokens: what a node has before it has a certificate. `ID.SECRET`, kept as a Secret `bootstrap-token-ID` of
//! `kube-system` in Kubernetes' own form, so that kubeadm's and our tools make the same. PURE.

use k8s_openapi::api::core::v1::Secret;

use crate::model::{Key, Kind, SYSTEM_NAMESPACE, Timestamp};
use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Who this token stands for now.
pub fn identity(token: &str, state: &Snapshot, now: Timestamp) -> Option<Identity> {
    let (id, secret) = token.split_once('.')?;
    let plain =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !plain(id, 6) || !plain(secret, 16) {
        return None;
    }
    let stored = state.get(&Key::new(Kind::Secret, SYSTEM_NAMESPACE, format!("bootstrap-token-{id}")))?;
    let kept: &Secret = stored.get()?;
    let field = |name: &str| kept.data.as_ref().and_then(|data| data.get(name)).and_then(|text| std::str::from_utf8(&text.0).ok());
    let is_token = kept.type_.as_deref() == Some(TYPE);
    let lives = field("expiration").is_none_or(|text| text.parse::<Timestamp>().is_ok_and(|end| now < end));
    let meant = field("usage-bootstrap-authentication") == Some("true");
    let same = field("token-id") == Some(id) && field("token-secret").is_some_and(|it| is_same(it, secret));
    if !is_token || stored.is_deleting() || !lives || !meant || !same {
        return None;
    }
    let mut identity = Identity::new(format!("system:bootstrap:{id}"), &[GROUP]);
    let more = field("auth-extra-groups").unwrap_or_default().split(',').map(str::trim);
    identity.groups.extend(more.filter(|group| group.starts_with("system:bootstrappers:")).map(str::to_owned));
    Some(identity)
}

/// Compares in a time that says nothing about where they differ.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Object;

    #[test]
    fn a_bootstrap_token_is_good_as_its_secret_says() {
        let at = Timestamp::from_second(1_000).unwrap();
        let ask = |change: Value, token: &str| {
            let mut secret =
                json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": SYSTEM_NAMESPACE}, "type": TYPE, "data": {}});
            let data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "expiration": "1970-01-01T01:00:00Z", "auth-extra-groups": "system:bootstrappers:mine,system:masters"});
            json_patch::merge(&mut secret, &change);
            for (name, value) in data.as_object().unwrap() {
                let text = change["plain"][name].as_str().unwrap_or(value.as_str().unwrap());
                use base64::Engine as _;
                secret["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
            }
            let mut state = Snapshot::default();
            state.insert(Object::from_value(Kind::Secret, secret).unwrap());
            identity(token, &state, at)
        };
        let good = "abcdef.0123456789abcdef";
        let who = ask(json!({}), good).unwrap();
        assert_eq!(
            (who.user.as_str(), who.groups),
            ("system:bootstrap:abcdef", vec![GROUP.to_owned(), "system:bootstrappers:mine".to_owned()])
        );
        for (change, token) in [
            (json!({}), "abcdef.0123456789abcdeg"),
            (json!({}), "abcdeg.0123456789abcdef"),
            (json!({}), "abcdef"),
            (json!({"type": "Opaque"}), good),
            (json!({"plain": {"expiration": "1970-01-01T00:00:01Z"}}), good),
            (json!({"plain": {"usage-bootstrap-authentication": "false"}}), good),
            (json!({"plain": {"token-id": "other0"}}), good),
        ] {
            assert!(ask(change.clone(), token).is_none(), "{change} {token}");
        }
    }
}
