//! The audit log: who asked what of the API and what became of it, a JSON line each, as Kubernetes' log backend writes them
//! (`audit.k8s.io/v1 Event`, stage ResponseComplete).
//!
//! - `policy`: what is written

mod policy;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::access::user_info;
use super::gate::Actor;
use super::request::{Query, Target, Verb};
use super::{Identity, ServerState};
use crate::model::Timestamp;
use policy::Level;
pub use policy::{Policy, PolicyError};

/// A file that would get larger is put aside, and so many of these are kept.
const LARGEST: u64 = 100 * 1024 * 1024;
const KEPT: u32 = 10;
/// Lines that wait for the disk; requests wait when there are more.
const WAITING: usize = 1024;
/// Of a path or a user agent: whoever sends more is known by its beginning.
const LONGEST: usize = 2048;

/// The log of a running server.
#[derive(Debug)]
pub struct Audit {
    policy: Policy,
    lines: mpsc::Sender<String>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[error("write the audit log {}: {cause}", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

impl Audit {
    /// Opens the file, which only root may read, and writes to it on a thread of its own until the server ends.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn open(path: &Path, policy: Policy) -> Result<Self, AuditError> {
        let mut file = File::open(path).map_err(|cause| AuditError { path: path.to_owned(), cause })?;
        let (lines, mut waiting) = mpsc::channel::<String>(WAITING);
        std::thread::spawn(move || {
            let mut failed = false;
            while let Some(line) = waiting.blocking_recv() {
                match file.write(&line) {
                    Ok(()) => failed = false,
                    Err(cause) if !failed => {
                        failed = true;
                        tracing::error!(%cause, path = %file.path.display(), "requests go on without being written into the audit log");
                    }
                    Err(_) => {}
                }
            }
        });
        Ok(Self { policy, lines })
    }
}

/// The file that is written now, and how long it is.
struct File {
    path: PathBuf,
    file: std::fs::File,
    length: u64,
}

impl File {
    fn open(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let added = line.len() as u64;
        if self.length > 0 && self.length + added > LARGEST {
            self.put_aside()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.length += added;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the oldest goes.
    fn put_aside(&mut self) -> std::io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..KEPT).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

/// Writes down what the policy wants of the request, once it was answered.
pub async fn audit(State(state): State<Arc<ServerState>>, request: Request<Body>, next: Next) -> Response {
    let Some(audit) = &state.audit else { return next.run(request).await };
    let asked = Asked::of(&request, state.clock.now());
    let level = audit.policy.level(asked.identity.as_ref(), &asked.verb, asked.target.as_ref(), request.uri().path());
    let response = next.run(request).await;
    if level == Level::Metadata {
        let event = asked.event(response.status().as_u16(), state.clock.now());
        // It only ends with the server.
        audit.lines.send(format!("{event}\n")).await.ok();
    }
    response
}

/// A request as it came.
struct Asked {
    identity: Option<Identity>,
    actor: Option<Identity>,
    verb: String,
    target: Option<Target>,
    uri: String,
    agent: Option<String>,
    at: Timestamp,
}

impl Asked {
    fn of(request: &Request<Body>, at: Timestamp) -> Self {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let target = Target::parse(request.uri().path());
        let query = Query::parse(request.uri()).unwrap_or_default();
        let verb = target.as_ref().and_then(|target| Verb::of(request.method(), target, &query));
        let agent = request.headers().get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            identity: request.extensions().get::<Identity>().cloned(),
            actor: request.extensions().get::<Actor>().map(|actor| actor.0.clone()),
            verb: policy::verb_of(verb, request.method()),
            target,
            uri: short(&request.uri().to_string()),
            agent: agent.map(short),
            at,
        }
    }

    fn event(self, code: u16, now: Timestamp) -> Value {
        let (user, other) = match (self.actor, self.identity) {
            (None, identity) => (identity, None),
            (actor, identity) => (actor, identity),
        };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": uuid::Uuid::new_v4().to_string(),
            "stage": "ResponseComplete", "requestURI": self.uri, "verb": self.verb,
            "user": user_info(&user.unwrap_or_else(Identity::anonymous)),
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": micros(self.at), "stageTimestamp": micros(now),
        });
        if let Some(other) = other {
            event["impersonatedUser"] = user_info(&other);
        }
        if let Some(agent) = self.agent {
            event["userAgent"] = agent.into();
        }
        if let Some(target) = self.target {
            event["objectRef"] = reference(&target);
        }
        event
    }
}

/// To the microsecond, as Kubernetes' `MicroTime`.
fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn reference(target: &Target) -> Value {
    let info = target.kind.info();
    let mut reference = json!({"resource": info.plural, "apiVersion": info.version});
    let named = [("namespace", target.namespace.as_str()), ("apiGroup", info.group)];
    let optional = [("name", target.name.as_deref()), ("subresource", target.subresource.as_deref())];
    let optional = optional.into_iter().map(|(field, text)| (field, text.unwrap_or_default()));
    for (field, text) in named.into_iter().chain(optional).filter(|(_, text)| !text.is_empty()) {
        reference[field] = text.into();
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_who_what_and_how_it_ended() {
        let mut request = Request::delete("/apis/apps/v1/namespaces/a/deployments/web?dryRun=All").body(Body::empty()).expect("a request");
        request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static("kubectl/v1.37"));
        request.extensions_mut().insert(Identity::new("jane", &["team"]));
        let at: Timestamp = "2026-05-01T10:00:00.25Z".parse().expect("a time");
        let mut event = Asked::of(&request, at).event(200, at);
        let id = event["auditID"].take();
        assert_eq!(id.as_str().map(str::len), Some(36));
        assert_eq!(
            event,
            json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": null, "stage": "ResponseComplete",
                "requestURI": "/apis/apps/v1/namespaces/a/deployments/web?dryRun=All", "verb": "delete",
                "user": {"username": "jane", "groups": ["team"]}, "userAgent": "kubectl/v1.37",
                "objectRef": {"resource": "deployments", "apiVersion": "v1", "apiGroup": "apps", "namespace": "a", "name": "web"},
                "responseStatus": {"metadata": {}, "code": 200},
                "requestReceivedTimestamp": "2026-05-01T10:00:00.250000Z", "stageTimestamp": "2026-05-01T10:00:00.250000Z"})
        );
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let mut file = File::open(&path).expect("open");
        for number in 0..KEPT + 2 {
            file.length = LARGEST;
            file.write(&format!("{number}\n")).expect("write");
        }
        let read = |name: String| std::fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("audit.log".to_owned()).as_deref(), Some("11\n"));
        assert_eq!(read("audit.log.1".to_owned()).as_deref(), Some("10\n"));
        assert_eq!(read(format!("audit.log.{KEPT}")).as_deref(), Some("1\n"));
        assert_eq!(read(format!("audit.log.{}", KEPT + 1)), None);
    }
}
