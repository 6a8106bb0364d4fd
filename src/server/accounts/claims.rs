//! What a token says, and whether that still holds. PURE.
//!
//! A JSON Web Token (RFC 7519) with Kubernetes' own claims: `kubernetes.io` names the account and what it is bound to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

/// Who issues, and for whom where nobody else is named: the name of the API in its cluster.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token outlives the end of its pod, in seconds: it may have last words.
const LAST_WORDS: i64 = 60;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    /// Seconds since 1970, as all times here.
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub subject: Subject,
    pub nbf: i64,
    pub sub: String,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
    pub serviceaccount: Named,
}

/// One object, and no later one of its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

impl Named {
    pub fn of(object: &Object) -> Self {
        Self { name: object.key().name.clone(), uid: object.uid().to_owned() }
    }

    fn find<'a>(&self, kind: Kind, namespace: &str, state: &'a Snapshot) -> Option<&'a Object> {
        state.get(&Key::new(kind, namespace, self.name.clone())).filter(|object| object.uid() == self.uid)
    }
}

/// The two parts of a token that are signed.
pub fn unsigned<T: Serialize>(claims: &T, key: &str) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", part(json!({"alg": "ES256", "kid": key}).to_string()), part(json!(claims).to_string()))
}

/// What is signed, what it says as JSON, and the signature; `None`: no token of ours.
pub fn parse<'a>(token: &'a str, key: &str) -> Option<(&'a str, Vec<u8>, Vec<u8>)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: serde_json::Value = serde_json::from_slice(&decode(header)?).ok()?;
    if header["alg"] != "ES256" || header["kid"] != key {
        return None;
    }
    Some((signed, decode(claims)?, decode(signature)?))
}

/// Who this stands for, if it holds now for one of these audiences.
pub fn identity(claims: &Claims, audiences: &[&str], state: &Snapshot, now: Timestamp) -> Option<Identity> {
    let seconds = now.as_second();
    let timely = claims.nbf <= seconds && seconds < claims.exp;
    if claims.iss != ISSUER || !timely || !claims.aud.iter().any(|it| audiences.contains(&it.as_str())) {
        return None;
    }
    let subject = &claims.subject;
    let namespace = subject.namespace.as_str();
    let account = subject.serviceaccount.find(Kind::ServiceAccount, namespace, state).filter(|account| stands(account, seconds))?;
    let mut identity = Identity::account(namespace, &subject.serviceaccount.name);
    if claims.sub != identity.user {
        return None;
    }
    identity.uid = Some(account.uid().to_owned());
    let mut say = |name: &str, value: &str| {
        identity.extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
    };
    say("credential-id", &format!("JTI={}", claims.jti));
    if let Some(secret) = &subject.secret {
        secret.find(Kind::Secret, namespace, state).filter(|secret| stands(secret, seconds))?;
    }
    if let Some(pod) = &subject.pod {
        pod.find(Kind::Pod, namespace, state).filter(|pod| stands(pod, seconds))?;
        say("pod-name", &pod.name);
        say("pod-uid", &pod.uid);
    }
    if let Some(node) = &subject.node {
        if subject.pod.is_none() {
            node.find(Kind::Node, "", state)?;
        }
        say("node-name", &node.name);
        say("node-uid", &node.uid);
    }
    Some(identity)
}

/// Whether an object is there, or its deletion is not long past its time.
fn stands(object: &Object, seconds: i64) -> bool {
    object.meta().deletion_timestamp.as_ref().is_none_or(|time| seconds < time.0.as_second() + LAST_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Snapshot {
        let mut state = Snapshot::default();
        let account = json!({"metadata": {"name": "bot", "namespace": "web", "uid": "a"}});
        let pod = json!({"metadata": {"name": "p", "namespace": "web", "uid": "b"}, "spec": {"containers": []}});
        state.insert(Object::from_value(Kind::ServiceAccount, account).unwrap());
        state.insert(Object::from_value(Kind::Pod, pod).unwrap());
        state
    }

    fn claims() -> Claims {
        let named = |name: &str, uid: &str| Named { name: name.to_owned(), uid: uid.to_owned() };
        let subject = Subject {
            namespace: "web".to_owned(),
            node: None,
            pod: Some(named("p", "b")),
            secret: None,
            serviceaccount: named("bot", "a"),
        };
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: 200,
            iat: 100,
            iss: ISSUER.to_owned(),
            jti: "id".to_owned(),
            subject,
            nbf: 100,
            sub: "system:serviceaccount:web:bot".to_owned(),
        }
    }

    #[test]
    fn a_token_is_good_while_all_it_names_is_there() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let good = identity(&claims(), &[ISSUER], &state(), at(150)).unwrap();
        assert_eq!(good.groups, ["system:serviceaccounts", "system:serviceaccounts:web"]);
        assert_eq!(good.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert!(identity(&claims(), &[ISSUER], &state(), at(99)).is_none(), "not yet");
        assert!(identity(&claims(), &[ISSUER], &state(), at(200)).is_none(), "not any more");
        assert!(identity(&claims(), &["vault"], &state(), at(150)).is_none(), "for somebody else");
        type Change = fn(&mut Claims);
        let changes: [(&str, Change); 5] = [
            ("another issuer", |claims| claims.iss = "https://elsewhere".to_owned()),
            ("another subject", |claims| claims.sub = "system:serviceaccount:web:root".to_owned()),
            ("an account made anew", |claims| claims.subject.serviceaccount.uid = "old".to_owned()),
            ("a pod made anew", |claims| claims.subject.pod.as_mut().unwrap().uid = "old".to_owned()),
            ("a pod of another namespace", |claims| claims.subject.namespace = "other".to_owned()),
        ];
        for (what, change) in changes {
            let mut changed = claims();
            change(&mut changed);
            assert!(identity(&changed, &[ISSUER], &state(), at(150)).is_none(), "{what}");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let signed = unsigned(&claims(), "key");
        let whole = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([1, 2]));
        let (found, said, signature) = parse(&whole, "key").unwrap();
        assert_eq!((found, signature), (signed.as_str(), vec![1, 2]));
        assert_eq!(serde_json::from_slice::<Claims>(&said).unwrap(), claims());
        assert!(parse(&whole, "other").is_none());
        for text in ["", ".", "..", "a.b.c", signed.as_str(), &whole.replace('.', " ")] {
            assert!(parse(text, "key").is_none(), "{text}");
        }
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"key"}"#);
        let (_, rest) = whole.split_once('.').unwrap();
        assert!(parse(&format!("{none}.{rest}"), "key").is_none());
    }
}
