//! Who a token stands for, told to the gate, to others (`TokenReview`), and how others find out for themselves.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use k8s_openapi::api::authentication::v1::TokenReviewSpec;
use serde_json::json;

use super::claims::{self, Claims, ISSUER};
use super::{bootstrap, lasting};
use crate::server::access::{answer, read, user_info};
use crate::server::fault::Fault;
use crate::server::render::json_response;
use crate::server::{Identity, ServerState};

/// Where the public key is.
pub const KEYS: &str = "/openid/v1/jwks";
/// What RFC 8414's readers ask first.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// Who a token stands for, and for which of the audiences; one answer for every way it can be wrong.
pub fn check(state: &ServerState, token: &str, audiences: &[&str]) -> Option<(Identity, Vec<String>)> {
    if let Some(identity) = bootstrap::identity(token, &state.store.snapshot(), state.clock.now()) {
        return audiences.contains(&ISSUER).then(|| (identity.authenticated(), vec![ISSUER.to_owned()]));
    }
    let signer = state.pki.as_ref()?.signer();
    let (signed, claims, signature) = claims::parse(token, signer.id())?;
    if !signer.is_signed(signed.as_bytes(), &signature) {
        return None;
    }
    let snapshot = state.store.snapshot();
    let Ok(claims) = serde_json::from_slice::<Claims>(&claims) else {
        let identity = lasting::identity(token, &serde_json::from_slice(&claims).ok()?, &snapshot)?;
        return audiences.contains(&ISSUER).then(|| (identity.authenticated(), vec![ISSUER.to_owned()]));
    };
    let identity = claims::identity(&claims, audiences, &snapshot, state.clock.now())?.authenticated();
    let audiences = claims.aud.into_iter().filter(|it| audiences.contains(&it.as_str())).collect();
    Some((identity, audiences))
}

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`
pub async fn review(State(state): State<Arc<ServerState>>, request: Request<Body>) -> Response {
    let reviewed = async {
        let (mut review, asked) = read::<TokenReviewSpec>("TokenReview", request).await?;
        let token = asked.token;
        let audiences = asked.audiences.unwrap_or_default();
        let audiences: Vec<&str> = if audiences.is_empty() { vec![ISSUER] } else { audiences.iter().map(String::as_str).collect() };
        review["status"] = match check(&state, &token, &audiences) {
            Some((identity, audiences)) => json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences}),
            None => json!({"authenticated": false, "user": {}, "error": "the token is not valid, not any more, or not for this audience"}),
        };
        Ok(answer("TokenReview", "authentication.k8s.io/v1", review))
    };
    reviewed.await.unwrap_or_else(Fault::into_response)
}

/// `GET /.well-known/openid-configuration`
pub async fn discovery() -> Response {
    let document = json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}{KEYS}"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    });
    json_response(StatusCode::OK, document.to_string())
}

/// `GET /openid/v1/jwks`: the public key (RFC 7517).
pub async fn keys(State(state): State<Arc<ServerState>>) -> Response {
    let Some(pki) = &state.pki else { return Fault::no_such_path().into_response() };
    let signer = pki.signer();
    let (x, y) = signer.point();
    let key = json!({
        "use": "sig", "kty": "EC", "kid": signer.id(), "crv": "P-256", "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    let mut response = json_response(StatusCode::OK, json!({"keys": [key]}).to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    response
}
