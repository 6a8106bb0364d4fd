//! Registry credentials from imagePullSecrets. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Secret};

use crate::cri::RegistryAuth;
use crate::cri::keyring::{Keyring, repository_of};

/// What a pod's pull secrets have for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// To be tried in this order.
    pub candidates: Vec<RegistryAuth>,
    /// Which of the secrets are of no use, and why; for people.
    pub problems: Vec<String>,
}

/// Reads the pod's pull secrets, in its order.
pub fn find(image: &str, spec: &PodSpec, secrets: &BTreeMap<String, Secret>) -> Found {
    let mut keyring = Keyring::default();
    let mut problems = Vec::new();
    for name in spec.image_pull_secrets.iter().flatten().map(|secret| &secret.name) {
        let problem = match secrets.get(name) {
            None => Some("it does not exist".to_owned()),
            Some(secret) => add(&mut keyring, secret).err(),
        };
        problems.extend(problem.map(|cause| format!("secret \"{name}\": {cause}")));
    }
    let mut candidates: Vec<RegistryAuth> = Vec::new();
    for found in keyring.find(&repository_of(image)) {
        if !candidates.contains(&found) {
            candidates.push(found);
        }
    }
    Found { candidates, problems }
}

/// The two types that the kubelet reads, each with its key.
fn add(keyring: &mut Keyring, secret: &Secret) -> Result<(), String> {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    let key = match type_ {
        "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
        "kubernetes.io/dockercfg" => ".dockercfg",
        other => return Err(format!("its type is {other}, not kubernetes.io/dockerconfigjson")),
    };
    let json = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| format!("it has no key {key}"))?;
    let added = if key == ".dockercfg" { keyring.add_legacy(&json.0) } else { keyring.add_config(&json.0) };
    added.map_err(|cause| cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NEW: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
    const OLD: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");

    fn secret((type_, key): (&str, &str), text: &str) -> Secret {
        let data = [(key.to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()))].into();
        Secret { type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
    }

    fn entry(user: &str) -> Value {
        json!({"registry.test": {"username": user, "password": "p"}})
    }

    fn found(names: &[&str], secrets: Vec<(&str, Secret)>) -> Found {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let spec = serde_json::from_value(json!({"containers": [], "imagePullSecrets": names})).unwrap();
        find("registry.test/app:1", &spec, &secrets.into_iter().map(|(name, secret)| (name.to_owned(), secret)).collect())
    }

    #[test]
    fn both_types_are_read_in_the_pods_order() {
        let new = secret(NEW, &json!({"auths": entry("new")}).to_string());
        let old = secret(OLD, &entry("old").to_string());
        let found = found(&["z", "a", "z"], vec![("a", new), ("z", old)]);
        let users: Vec<&str> = found.candidates.iter().map(|auth| auth.username.as_str()).collect();
        assert_eq!((users, found.problems.len()), (vec!["old", "new"], 0));
    }

    #[test]
    fn a_secret_of_no_use_is_named_with_its_reason() {
        let good = secret(NEW, &json!({"auths": entry("good")}).to_string());
        let secrets = vec![
            ("good", good),
            ("opaque", secret(("Opaque", ".dockerconfigjson"), "{}")),
            ("keyless", secret((NEW.0, "config.json"), "{}")),
            ("broken", secret(NEW, "{")),
        ];
        let found = found(&["gone", "opaque", "keyless", "broken", "good"], secrets);
        assert_eq!(found.candidates.len(), 1);
        assert_eq!(
            found.problems,
            [
                "secret \"gone\": it does not exist",
                "secret \"opaque\": its type is Opaque, not kubernetes.io/dockerconfigjson",
                "secret \"keyless\": it has no key .dockerconfigjson",
                "secret \"broken\": it is not a docker config.json: line 1, column 1",
            ]
        );
    }
}
