//! `serviceaccounts/NAME/token`: a token for who asks.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::{Value, json};

use super::claims::{Claims, ISSUER, Named, Subject, unsigned};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::server::fault::Fault;
use crate::server::hooks::plan::{Names, Operation};
use crate::server::render::json_response;
use crate::server::request::Call;
use crate::server::{ServerState, body, hooks, read};
use crate::store::Snapshot;
use crate::tls::{Signer, TlsError};

/// Of a token that asks for nothing else, in seconds.
const DEFAULT_LIFE: i64 = 3600;
/// What is sent.
const TOKEN_REQUEST: Names = ["authentication.k8s.io", "v1", "TokenRequest"];
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// `POST …/serviceaccounts/NAME/token`
pub async fn issue(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let pki = state.pki.as_ref().ok_or_else(|| Fault::unavailable("this server has no key: it makes no tokens"))?;
    let account = read::find(state, call)?;
    let request = body::decode(&call.content_type, bytes)?.unwrap_or_else(|| json!({}));
    let request = hooks::plain(state, call, Operation::Create, TOKEN_REQUEST, request, Value::Null).await?;
    let wanted = spec(&request)?;
    let life = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFE);
    check_life(life)?;
    let snapshot = state.store.snapshot();
    let bound = wanted.bound_object_ref.as_ref().map(|bound| find(bound, &account, &snapshot)).transpose()?;
    if let Some(node) = call.identity.node_name() {
        may_have(node, &account, bound.as_ref(), &wanted)?;
    }
    let audiences = wanted.audiences.clone().filter(|audiences| !audiences.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
    let now = state.clock.now();
    let claims = claims(&account, bound.as_ref(), audiences, now, life, &snapshot);
    let token = signed(&claims, pki.signer()).map_err(|error| Fault::internal(error.to_string()))?;
    let seconds = |second: i64| Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default();
    let answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": account.key().name, "namespace": account.key().namespace, "creationTimestamp": seconds(claims.iat)},
        "spec": {"audiences": claims.aud, "expirationSeconds": life, "boundObjectRef": wanted.bound_object_ref},
        "status": {"token": token, "expirationTimestamp": seconds(claims.exp)},
    });
    Ok(json_response(StatusCode::CREATED, answer.to_string()))
}

/// The whole token.
pub(super) fn signed<T: Serialize>(claims: &T, signer: &Signer) -> Result<String, TlsError> {
    use base64::Engine as _;
    let signed = unsigned(claims, signer.id());
    let signature = signer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature)))
}

fn spec(request: &Value) -> Result<TokenRequestSpec, Fault> {
    let mut spec = request["spec"].clone();
    if spec.is_null() {
        spec = json!({});
    }
    if spec["audiences"].is_null() {
        spec["audiences"] = json!([]);
    }
    serde_json::from_value(spec).map_err(|error| Fault::bad_request(format!("TokenRequest: {error}")))
}

fn check_life(life: i64) -> Result<(), Fault> {
    let wrong = match life {
        ..SHORTEST => "may not specify a duration less than 10 minutes",
        SHORTEST..=LONGEST => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let field = "spec.expirationSeconds";
    let message = format!("TokenRequest.authentication.k8s.io \"\" is invalid: {field}: Invalid value: {life}: {wrong}");
    let causes = json!([{"reason": "FieldValueInvalid", "field": field, "message": format!("Invalid value: {life}: {wrong}")}]);
    Err(Fault {
        details: json!({"group": "authentication.k8s.io", "kind": "TokenRequest", "causes": causes}),
        ..Fault::new(422, "Invalid", message)
    })
}

/// What a token is to be bound to, if it is there and the account's to have.
fn find(bound: &BoundObjectReference, account: &Object, state: &Snapshot) -> Result<Object, Fault> {
    let (version, kind) = (bound.api_version.as_deref().unwrap_or("v1"), bound.kind.as_deref().unwrap_or_default());
    let (kind, namespace) = match (version, kind) {
        ("v1", "Pod") => (Kind::Pod, account.key().namespace.as_str()),
        ("v1", "Secret") => (Kind::Secret, account.key().namespace.as_str()),
        ("v1", "Node") => (Kind::Node, ""),
        _ => return Err(Fault::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}"))),
    };
    let name = bound.name.as_deref().unwrap_or_default();
    let found = state.get(&Key::new(kind, namespace, name)).ok_or_else(|| Fault::not_found(kind, name))?;
    if let Some(uid) = bound.uid.as_deref().filter(|uid| !uid.is_empty() && *uid != found.uid()) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Fault::conflict(kind, name, why));
    }
    let own = found.get::<Pod>().and_then(|pod| pod.spec.as_ref()).map(|spec| spec.service_account_name.as_deref().unwrap_or_default());
    if own.is_some_and(|own| own != account.key().name) {
        let why =
            format!("cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.", account.key().name);
        return Err(Fault::bad_request(why));
    }
    Ok(found.clone())
}

/// A node asks for its pods and for nobody else, by their UIDs, and for what their volumes hold: one audience at a time
/// (`plugin/pkg/admission/noderestriction`, `admitServiceAccount` and `validateNodeServiceAccountAudience`).
fn may_have(node: &str, account: &Object, bound: Option<&Object>, wanted: &TokenRequestSpec) -> Result<(), Fault> {
    let name = &account.key().name;
    let no = |why: String| Err(Fault::forbidden(format!("serviceaccounts {name:?} is forbidden: {why}")));
    let pod = bound.and_then(|bound| bound.get::<Pod>()).and_then(|pod| pod.spec.as_ref());
    let Some(pod) = pod.filter(|spec| spec.node_name.as_deref() == Some(node)) else {
        return no(format!("node {node:?} may only ask for tokens that are bound to a pod of its own"));
    };
    if wanted.bound_object_ref.as_ref().and_then(|bound| bound.uid.as_deref()).is_none_or(str::is_empty) {
        return no("node requested token with a pod binding without a uid".to_owned());
    }
    let audience = match wanted.audiences.as_deref().unwrap_or_default() {
        [] => "",
        [one] => one.as_str(),
        _ => return no("node may only request 0 or 1 audiences".to_owned()),
    };
    let projected = pod.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    let mut tokens = projected.flatten().filter_map(|source| source.service_account_token.as_ref());
    // The server's own audience is what a volume gets that names none.
    if tokens.any(|token| token.audience.as_deref().unwrap_or_default() == audience) {
        return Ok(());
    }
    no(format!("audience {audience:?} not found in pod spec volume"))
}

fn claims(account: &Object, bound: Option<&Object>, aud: Vec<String>, now: Timestamp, life: i64, state: &Snapshot) -> Claims {
    let key = account.key();
    let of_kind = |kind: Kind| bound.filter(|bound| bound.kind() == kind).map(Named::of);
    let host = bound.and_then(|bound| bound.get::<Pod>()?.spec.as_ref()?.node_name.clone());
    let host = host.and_then(|name| state.get(&Key::cluster(Kind::Node, name)).map(Named::of));
    let seconds = now.as_second();
    Claims {
        aud,
        exp: seconds.saturating_add(life),
        iat: seconds,
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        subject: Subject {
            namespace: key.namespace.clone(),
            node: of_kind(Kind::Node).or(host),
            pod: of_kind(Kind::Pod),
            secret: of_kind(Kind::Secret),
            serviceaccount: Named::of(account),
        },
        nbf: seconds,
        sub: format!("{}{}:{}", crate::server::identity::ACCOUNT_PREFIX, key.namespace, key.name),
    }
}
