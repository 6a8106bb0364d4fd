//! Who may call the node API of a node whose server is not Podbay's: the server itself by its certificate, and whoever else the
//! server says may, as with a kubelet whose `authentication.webhook` is on and whose `authorization.mode` is `Webhook`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode, header};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Refusal;
use super::rights::{self, Caller, Need, Print, Recent};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::tls::Peer;
use crate::tls::connection::Trust;

/// How much is remembered of each sort, and how many questions the server is asked at once: strangers can make up tokens.
const REMEMBERED: usize = 512;
const AT_ONCE: usize = 8;
/// No token is longer: what is longer is not asked about.
const LONGEST: usize = 64 * 1024;

/// Whom to let in.
pub struct Callers {
    node: String,
    /// The names in certificates of those who may do everything.
    servers: Vec<String>,
    client: kube::Client,
    clock: Arc<dyn Clock>,
    recent: Mutex<Words>,
    asking: Semaphore,
}

/// What the server said lately.
struct Words {
    callers: Recent<Caller>,
    /// Tokens of nobody, apart: there may be many.
    nobody: Recent<()>,
    verdicts: Recent<bool>,
}

/// The paths of `router` for those only who may.
pub fn guarded(router: Router, callers: Callers) -> Router {
    router.layer(from_fn_with_state(Arc::new(callers), gate))
}

async fn gate(State(callers): State<Arc<Callers>>, request: Request<Body>, next: Next) -> Response {
    let need = rights::need(request.method(), request.uri().path());
    let extensions = request.extensions();
    let allowed = match extensions.get::<Peer>() {
        Some(peer) => callers.certified(peer, &need).await,
        None => callers.known(bearer(&request), &need, extensions.get::<Trust>()).await,
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn bearer(request: &Request<Body>) -> Option<String> {
    let (scheme, token) = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LONGEST).then(|| token.to_owned())
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")
}

impl Callers {
    pub fn new(node: &str, servers: Vec<String>, client: kube::Client, clock: Arc<dyn Clock>) -> Self {
        let words = Words { callers: Recent::new(REMEMBERED), nobody: Recent::new(REMEMBERED), verdicts: Recent::new(REMEMBERED) };
        Self { node: node.to_owned(), servers, client, clock, recent: Mutex::new(words), asking: Semaphore::new(AT_ONCE) }
    }

    /// With a certificate that the handshake has verified.
    async fn certified(&self, peer: &Peer, need: &Need) -> Result<(), Refusal> {
        // A connection may be older than that.
        if self.clock.now() > peer.not_after || peer.common_name.is_empty() {
            return Err(unauthorized());
        }
        if self.servers.contains(&peer.common_name) {
            return Ok(());
        }
        self.may(&Caller::of_certificate(&peer.common_name, &peer.organisations), need).await
    }

    /// With a token; without one nobody gets in.
    async fn known(&self, token: Option<String>, need: &Need, trust: Option<&Trust>) -> Result<(), Refusal> {
        let caller = self.caller(&token.ok_or_else(unauthorized)?).await?;
        self.may(&caller, need).await?;
        // From now on the connection may last.
        trust.inspect(|trust| trust.prove(&caller.user));
        Ok(())
    }

    fn recent<T>(&self, see: impl FnOnce(&mut Words) -> T) -> T {
        see(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn until(&self, lasts: SignedDuration) -> Timestamp {
        self.clock.steady().checked_add(lasts).unwrap_or(Timestamp::MAX)
    }

    async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let (print, now) = (rights::print(token), self.clock.steady());
        let said = self.recent(|words| match words.nobody.get(&print, now) {
            Some(()) => Some(None),
            None => words.callers.get(&print, now).map(Some),
        });
        let caller = match said {
            Some(caller) => caller,
            None => {
                let review = self.ask("/apis/authentication.k8s.io/v1/tokenreviews", &rights::token_review(token)).await?;
                let (caller, until) = (Caller::of_review(&review), self.until(rights::KNOWN));
                self.recent(|words| match &caller {
                    Some(caller) => words.callers.insert(print, caller.clone(), until),
                    None => words.nobody.insert(print, (), until),
                });
                caller
            }
        };
        caller.ok_or_else(unauthorized)
    }

    async fn may(&self, caller: &Caller, need: &Need) -> Result<(), Refusal> {
        for subresource in &need.subresources {
            if self.may_one(&caller.review(&self.node, need.verb, subresource)).await? {
                return Ok(());
            }
        }
        let (user, verb, subresources) = (&caller.user, need.verb, need.subresources.join(" "));
        let message = format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])");
        Err(Refusal::new(StatusCode::FORBIDDEN, message))
    }

    async fn may_one(&self, review: &Value) -> Result<bool, Refusal> {
        let print: Print = rights::print(&review.to_string());
        if let Some(verdict) = self.recent(|words| words.verdicts.get(&print, self.clock.steady())) {
            return Ok(verdict);
        }
        let answer = self.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await?;
        let status = &answer["status"];
        let verdict = status["allowed"] == true && status["denied"] != true;
        let until = self.until(if verdict { rights::ALLOWED } else { rights::DENIED });
        self.recent(|words| words.verdicts.insert(print, verdict, until));
        Ok(verdict)
    }

    /// The review as it comes back.
    async fn ask(&self, path: &str, review: &Value) -> Result<Value, Refusal> {
        let failed = |cause: String| {
            tracing::warn!(path, cause, "the server does not say who may call the node API");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the API server does not say who asks and whether they may")
        };
        // It is never closed.
        let _turn = self.asking.acquire().await.map_err(|closed| failed(closed.to_string()))?;
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(review.to_string().into_bytes());
        let request = request.map_err(|error| failed(error.to_string()))?;
        self.client.request::<Value>(request).await.map_err(|error| failed(error.to_string()))
    }
}
