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
use crate::server::proxy::headers::protocol_token;
use crate::server::render::json_response;
use crate::server::{Identity, ServerState};

/// Where the public key is.
pub const KEYS: &str = "/openid/v1/jwks";
/// What RFC 8414's readers ask first.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The token of `Authorization: Bearer TOKEN`, or of a WebSocket's protocols: a page in a browser can say no header.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let token = URL_SAFE_NO_PAD.decode(protocol_token(headers)?).ok()?;
        return String::from_utf8(token).ok().filter(|token| !token.is_empty());
    };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()).filter(|token| !token.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_a_header_or_in_a_protocol() {
        const SECRET: &str = "base64url.bearer.authorization.k8s.io.c2VjcmV0";
        let of = |lines: &[(&'static str, &str)]| {
            let lines = lines.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
            bearer(&lines.collect::<HeaderMap>())
        };
        let socket = |protocols: &str| of(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", protocols)]);
        let secret = Some("secret".to_owned());
        assert_eq!(of(&[("authorization", "bearer  secret ")]), secret);
        assert_eq!(socket(&format!("v5.channel.k8s.io, {SECRET}")), secret);
        assert_eq!(
            of(&[
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("authorization", "Bearer other"),
                ("sec-websocket-protocol", SECRET)
            ]),
            Some("other".to_owned())
        );
        let none = [
            of(&[("authorization", "Basic secret")]),
            of(&[("authorization", "Bearer ")]),
            of(&[("sec-websocket-protocol", &format!("chat, {SECRET}"))]),
            socket(SECRET),
            socket(&format!("chat, {SECRET}, {SECRET}")),
            socket("chat, base64url.bearer.authorization.k8s.io.%%"),
            socket("chat, base64url.bearer.authorization.k8s.io."),
        ];
        assert!(none.iter().all(Option::is_none), "{none:?}");
    }
}
