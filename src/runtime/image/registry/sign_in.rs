//! Passwords and tokens, one place's at a time.

use std::time::{Duration, Instant};

use base64::Engine as _;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::{self, Challenge};
use super::endpoint::Endpoint;
use super::refusal;
use super::transport::{Answer, Request, Transport};
use crate::cri::RegistryAuth;
use crate::runtime::image::error::ImageError;

const TOKEN_MAX: u64 = 1 << 20;
/// A token that is refused after so long has run out rather than been wrong.
const FRESH: Duration = Duration::from_secs(30);

/// What is known about signing in at one place.
pub(super) struct Session {
    /// In order; empty: anonymous only.
    candidates: Vec<RegistryAuth>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which of the candidates is in use, or is to be tried.
    candidate: usize,
    challenge: Option<Challenge>,
    authorization: Option<HeaderValue>,
    signed: Option<Instant>,
}

impl Session {
    pub fn new(candidates: Vec<RegistryAuth>) -> Self {
        Self { candidates, state: Mutex::default() }
    }

    /// How often a request may be asked before it is hopeless: each candidate, and once more for a token
    /// that ran out.
    pub fn tries(&self) -> usize {
        self.candidates.len() + 3
    }

    pub async fn current(&self) -> Option<HeaderValue> {
        self.state.lock().await.authorization.clone()
    }

    /// What to try after `used` was refused; `None`: there is nothing left.
    pub async fn next(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        refused: &Answer,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, ImageError> {
        let mut state = self.state.lock().await;
        if state.authorization.as_ref() != used {
            // Another request has signed in meanwhile.
            return Ok(state.authorization.clone());
        }
        let asked = refused.headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        if let Some(challenge) = challenge::choose(asked) {
            state.challenge = Some(challenge);
        }
        let Some(challenge) = state.challenge.clone() else { return Ok(None) };
        let run_out = refused.status == StatusCode::UNAUTHORIZED && state.signed.is_some_and(|at| at.elapsed() > FRESH);
        if used.is_some() && !run_out {
            state.candidate += 1;
        }
        let mut denied = None;
        while state.candidate < self.candidates.len().max(1) {
            let auth = self.candidates.get(state.candidate);
            match authorize(transport, endpoint, &challenge, auth).await {
                Ok(Some(authorization)) => {
                    state.authorization = Some(authorization.clone());
                    state.signed = Some(Instant::now());
                    return Ok(Some(authorization));
                }
                Ok(None) => {}
                Err(error @ ImageError::Denied(_)) => denied = Some(error),
                Err(error) => return Err(error),
            }
            state.candidate += 1;
        }
        denied.map_or(Ok(None), Err)
    }
}

/// `None`: these credentials are no answer to this challenge.
async fn authorize(
    transport: &Transport,
    endpoint: &Endpoint,
    challenge: &Challenge,
    auth: Option<&RegistryAuth>,
) -> Result<Option<HeaderValue>, ImageError> {
    if let Some(auth) = auth.filter(|auth| !auth.token.is_empty()) {
        return secret(format!("Bearer {}", auth.token)).map(Some);
    }
    match challenge {
        Challenge::Basic => auth.filter(|auth| !auth.username.is_empty()).map(basic).transpose(),
        Challenge::Bearer { realm, service, scope } => {
            let own = format!("repository:{}:pull", endpoint.repository);
            let mut query = format!("scope={}", encode(scope.as_deref().unwrap_or(&own)));
            if let Some(service) = service {
                query = format!("service={}&{query}", encode(service));
            }
            token(transport, endpoint, realm, query, auth).await.map(Some)
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Token {
    token: String,
    access_token: String,
}

async fn token(
    transport: &Transport,
    endpoint: &Endpoint,
    realm: &str,
    query: String,
    auth: Option<&RegistryAuth>,
) -> Result<HeaderValue, ImageError> {
    let host = &endpoint.host;
    let uri = |text: &str| text.parse().map_err(|_| ImageError::Registry(format!("{host}: its token server has no sensible address")));
    let identity = auth.map(|auth| auth.identity_token.as_str()).filter(|token| !token.is_empty());
    let request = match identity {
        Some(identity) => {
            let form = format!("grant_type=refresh_token&client_id=podbay&refresh_token={}&{query}", encode(identity));
            Request { form: Some(form), ..Request::get(uri(realm)?) }
        }
        None => {
            let joint = if realm.contains('?') { '&' } else { '?' };
            let authorization = auth.filter(|auth| !auth.username.is_empty()).map(basic).transpose()?;
            Request { authorization, ..Request::get(uri(&format!("{realm}{joint}{query}"))?) }
        }
    };
    let answer = transport.send(request).await?;
    match answer.status.as_u16() {
        200 => {}
        400 | 401 | 403 => return Err(ImageError::Denied(format!("{host}: its token server refuses the credentials"))),
        _ => return Err(refusal(answer, &format!("token server of {host}")).await),
    }
    let bytes = answer.document(&format!("token of {host}"), TOKEN_MAX).await?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| ImageError::Registry(format!("{host}: its token is not readable")))?;
    let token = if token.token.is_empty() { token.access_token } else { token.token };
    if token.is_empty() {
        return Err(ImageError::Registry(format!("{host}: its token server gave no token")));
    }
    secret(format!("Bearer {token}"))
}

fn basic(auth: &RegistryAuth) -> Result<HeaderValue, ImageError> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    secret(format!("Basic {text}"))
}

fn secret(text: String) -> Result<HeaderValue, ImageError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| ImageError::Denied("a token has letters that no header takes".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// For a query or a form.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
