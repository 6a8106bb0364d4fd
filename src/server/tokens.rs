//! Join tokens: `ID.SECRET.FINGERPRINT`. The store keeps the secret's hash only.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::bootstrap::SYSTEM;
use super::fault::Fault;
use super::render::json_response;
use super::{ServerState, body};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::store::{Precondition, Snapshot, Transaction, Write};

/// Of a token that says nothing else.
const DEFAULT_LIFE: i64 = 3600;
const PREFIX: &str = "podbay-token-";
const TYPE: &str = "podbay.dev/join-token";

/// A Secret's text field.
pub(super) fn field<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    let secret: &Secret = object.get()?;
    std::str::from_utf8(&secret.data.as_ref()?.get(name)?.0).ok()
}

/// A Secret of ours in `kube-system`.
pub(super) fn secret(name: &str, kind: &str, fields: &[(&str, String)]) -> Object {
    let data = fields.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.clone().into_bytes())));
    Object::new(Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), namespace: Some(SYSTEM.to_owned()), ..ObjectMeta::default() },
        type_: Some(kind.to_owned()),
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    })
}

fn key(id: &str) -> Key {
    Key::new(Kind::Secret, SYSTEM, format!("{PREFIX}{id}"))
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

fn tokens(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Object)> {
    let secrets = snapshot.list_in(Kind::Secret, SYSTEM);
    let ours = secrets.filter(|object| object.get::<Secret>().is_some_and(|secret| secret.type_.as_deref() == Some(TYPE)));
    ours.filter_map(|object| object.key().name.strip_prefix(PREFIX).map(|id| (id, object)))
}

fn expiry(object: &Object) -> Option<Timestamp> {
    field(object, "expires")?.parse().ok()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TokenRequest {
    ttl_seconds: Option<i64>,
}

/// `POST /podbay/v1/tokens`: answers the whole token, this once.
pub async fn create(State(state): State<Arc<ServerState>>, request: Request<Body>) -> Response {
    created(&state, request.into_body()).await.unwrap_or_else(Fault::into_response)
}

async fn created(state: &ServerState, body: Body) -> Result<Response, Fault> {
    let bytes = body::read(body, body::OBJECT_LIMIT).await?;
    let wanted: TokenRequest = if bytes.is_empty() {
        TokenRequest::default()
    } else {
        serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the token request: {error}")))?
    };
    let life = wanted.ttl_seconds.unwrap_or(DEFAULT_LIFE);
    if !(1..=10 * 365 * 24 * 3600).contains(&life) {
        return Err(Fault::bad_request(format!("ttlSeconds: {life} is not between 1 second and 10 years")));
    }
    let token = issue(state, life).await?;
    Ok(json_response(StatusCode::CREATED, token.to_string()))
}

/// Makes a token that lives for `life` seconds; expired ones go at the same time.
///
/// # Errors
/// A server without a CA, or a store that takes no writes.
pub async fn issue(state: &ServerState, life: i64) -> Result<Value, Fault> {
    let pki = state.pki.as_ref().ok_or_else(|| Fault::unavailable("this server has no CA: nobody can join"))?;
    let now = state.clock.now();
    let expires = Timestamp::from_second(now.as_second().saturating_add(life)).map_err(|error| Fault::bad_request(error.to_string()))?;
    let id = hex::encode(rand::random::<[u8; 4]>());
    let secret_text = hex::encode(rand::random::<[u8; 16]>());
    let object = secret(&format!("{PREFIX}{id}"), TYPE, &[("hash", hash(&secret_text)), ("expires", expires.to_string())]);
    let mut transaction = Transaction::new("podbay").with(Write::Create(object));
    let snapshot = state.store.snapshot();
    for (_, old) in tokens(&snapshot).filter(|(_, old)| expiry(old).is_none_or(|expiry| expiry < now)) {
        transaction.writes.push(delete(old.key().clone()));
    }
    state.store.commit(transaction).await?;
    let token = format!("{id}.{secret_text}.{}", pki.authority().fingerprint());
    Ok(json!({"id": id, "token": token, "expiresAt": expires.to_string()}))
}

fn delete(key: Key) -> Write {
    Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None }
}

/// `GET /podbay/v1/tokens`: ids and expiry, no secrets.
pub async fn list(State(state): State<Arc<ServerState>>) -> Response {
    let now = state.clock.now();
    let snapshot = state.store.snapshot();
    let live = tokens(&snapshot).filter_map(|(id, object)| expiry(object).filter(|expiry| *expiry >= now).map(|expiry| (id, expiry)));
    let items: Vec<Value> = live.map(|(id, expiry)| json!({"id": id, "expiresAt": expiry.to_string()})).collect();
    json_response(StatusCode::OK, json!({ "items": items }).to_string())
}

/// `DELETE /podbay/v1/tokens/{id}`
pub async fn revoke(State(state): State<Arc<ServerState>>, Path(id): Path<String>) -> Response {
    let known = state.store.snapshot().get(&key(&id)).is_some();
    if !known {
        return Fault::new(404, "NotFound", format!("token {id:?} not found")).into_response();
    }
    match state.store.commit(Transaction::new("podbay").with(delete(key(&id)))).await {
        Ok(_) => json_response(StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}).to_string()),
        Err(error) => Fault::from(error).into_response(),
    }
}

/// Whether `ID.SECRET` (or the whole token) is good now. One answer for every way it can be wrong.
///
/// # Errors
/// 401.
pub fn check(snapshot: &Snapshot, token: &str, now: Timestamp) -> Result<(), Fault> {
    let wrong = || Fault::unauthorized("the token is unknown, revoked or expired: make a new one with `podbay token create`");
    let mut parts = token.trim().split('.');
    let (Some(id), Some(secret)) = (parts.next(), parts.next()) else { return Err(wrong()) };
    let stored = snapshot.get(&key(id)).ok_or_else(wrong)?;
    // Hashes are compared, so how long it takes says nothing about the secret.
    let good = field(stored, "hash") == Some(hash(secret).as_str()) && expiry(stored).is_some_and(|expiry| now <= expiry);
    if good { Ok(()) } else { Err(wrong()) }
}
