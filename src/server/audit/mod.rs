//! The audit log: who asked what of the API and what became of it, a JSON line each, as Kubernetes' log backend writes them
//! (`audit.k8s.io/v1 Event`, stage ResponseComplete).
//!
//! - `policy`: what is written

mod policy;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::access::user_info;
use super::request::{Query, Target, Verb};
use super::{Identity, ServerState};
use crate::model::Timestamp;
use crate::model::custom::Definitions;
use crate::tls::Remote;
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
        // What cannot be put aside goes on growing until it can.
        let aside = if self.length > 0 && self.length + added > LARGEST { self.put_aside() } else { Ok(()) };
        if let Err(cause) = self.file.write_all(line.as_bytes()) {
            // No half of a line stays before the next one.
            self.file.set_len(self.length).ok();
            return Err(cause);
        }
        self.length += added;
        aside
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the oldest goes.
    fn put_aside(&mut self) -> std::io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        if !self.path.try_exists()? {
            // Somebody else has put it aside already.
            *self = Self::open(&self.path)?;
            return Ok(());
        }
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

/// Who a request turned out to be from: what is asked for is there before that is known.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<OnceLock<(Identity, Option<Identity>)>>, Arc<OnceLock<BTreeMap<String, String>>>);

impl Caller {
    /// Tells it, once. `actor`: who acts as the identity, where that is somebody else.
    pub fn is(&self, identity: &Identity, actor: Option<&Identity>) {
        self.0.get_or_init(|| (identity.clone(), actor.cloned()));
    }

    /// Tells what webhooks want to be written down, once.
    pub fn annotate(&self, annotations: BTreeMap<String, String>) {
        self.1.get_or_init(|| annotations);
    }
}

/// Writes down what the policy wants of the request, once it was answered or its client went away.
pub async fn audit(State(state): State<Arc<ServerState>>, mut request: Request<Body>, next: Next) -> Response {
    let Some(audit) = &state.audit else { return next.run(request).await };
    let caller = Caller::default();
    request.extensions_mut().insert(caller.clone());
    let mut open =
        Open { audit, state: &state, asked: Some((Asked::of(&request, state.store.snapshot().definitions(), state.clock.now()), caller)) };
    let response = next.run(request).await;
    if let Some(line) = open.close(response.status().as_u16()) {
        // It only ends with the server.
        audit.lines.send(line).await.ok();
    }
    response
}

/// A request that is being answered.
struct Open<'a> {
    audit: &'a Audit,
    state: &'a ServerState,
    asked: Option<(Asked, Caller)>,
}

/// What proxies write for a client that did not wait for its answer.
const CLIENT_GONE: u16 = 499;

impl Open<'_> {
    /// The line, if one is wanted; the second time there is none.
    fn close(&mut self, code: u16) -> Option<String> {
        let (asked, caller) = self.asked.take()?;
        // Who was not let in proved nothing.
        let (who, actor) = caller.0.get().cloned().unwrap_or_else(|| (Identity::anonymous(), None));
        let path = asked.uri.split('?').next().unwrap_or_default();
        let level = self.audit.policy.level(&who, &asked.verb, asked.target.as_ref(), path);
        (level == Level::Metadata).then(|| {
            let mut event = asked.event(&who, actor.as_ref(), code, self.state.clock.now());
            if let Some(annotations) = caller.1.get().filter(|annotations| !annotations.is_empty()) {
                event["annotations"] = json!(annotations);
            }
            format!("{event}\n")
        })
    }
}

impl Drop for Open<'_> {
    /// What it asked for may have been done all the same.
    fn drop(&mut self) {
        if let Some(line) = self.close(CLIENT_GONE)
            && self.audit.lines.try_send(line).is_err()
        {
            tracing::warn!("a request whose client went away is not in the audit log: too many lines wait for the disk");
        }
    }
}

/// A request as it came.
struct Asked {
    verb: String,
    target: Option<Target>,
    /// Path and query.
    uri: String,
    agent: Option<String>,
    sources: Vec<IpAddr>,
    at: Timestamp,
}

/// Of what a proxy says of where a request is from.
const MOST_SOURCES: usize = 16;

/// Where a request is from: what its headers say (and so anybody), then the connection's other end, as in Kubernetes.
fn sources(request: &Request<Body>) -> Vec<IpAddr> {
    let said = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let addresses =
        |name: &str| said(name).split(',').filter_map(|text| text.trim().parse().ok()).take(MOST_SOURCES).collect::<Vec<IpAddr>>();
    let mut all = addresses("x-forwarded-for");
    let real: Option<IpAddr> = said("x-real-ip").trim().parse().ok();
    all.extend(real.filter(|real| !all.contains(real)));
    let remote = request.extensions().get::<Remote>().map(|remote| remote.0);
    all.extend(remote.filter(|remote| all.last() != Some(remote)));
    all
}

impl Asked {
    fn of(request: &Request<Body>, served: &Definitions, at: Timestamp) -> Self {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let uri = request.uri();
        let target = Target::parse(uri.path(), served);
        let query = Query::parse(uri).unwrap_or_default();
        let verb = target.as_ref().and_then(|target| Verb::of(request.method(), target, &query));
        let agent = request.headers().get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            verb: policy::verb_of(verb, request.method()),
            target,
            uri: short(uri.path_and_query().map_or("/", |it| it.as_str())),
            agent: agent.map(short),
            sources: sources(request),
            at,
        }
    }

    fn event(self, who: &Identity, actor: Option<&Identity>, code: u16, now: Timestamp) -> Value {
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": uuid::Uuid::new_v4().to_string(),
            "stage": policy::STAGE, "requestURI": self.uri, "verb": self.verb,
            "user": user_info(actor.unwrap_or(who)),
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": micros(self.at), "stageTimestamp": micros(now),
        });
        if actor.is_some() {
            event["impersonatedUser"] = user_info(who);
        }
        if !self.sources.is_empty() {
            event["sourceIPs"] = json!(self.sources);
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
        let mut request = Request::delete("https://127.0.0.1:6443/apis/apps/v1/namespaces/a/deployments/web?dryRun=All")
            .body(Body::empty())
            .expect("a request");
        request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static("kubectl/v1.37"));
        let jane = Identity::new("jane", &["team"]).authenticated();
        let at: Timestamp = "2026-05-01T10:00:00.25Z".parse().expect("a time");
        let mut event = Asked::of(&request, &Definitions::default(), at).event(&jane, None, 200, at);
        assert!(event.get("sourceIPs").is_none(), "it is of this process");
        let id = event["auditID"].take();
        assert_eq!(id.as_str().map(str::len), Some(36));
        assert_eq!(
            event,
            json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": null, "stage": "ResponseComplete",
                "requestURI": "/apis/apps/v1/namespaces/a/deployments/web?dryRun=All", "verb": "delete",
                "user": {"username": "jane", "groups": ["team", "system:authenticated"]}, "userAgent": "kubectl/v1.37",
                "objectRef": {"resource": "deployments", "apiVersion": "v1", "apiGroup": "apps", "namespace": "a", "name": "web"},
                "responseStatus": {"metadata": {}, "code": 200},
                "requestReceivedTimestamp": "2026-05-01T10:00:00.250000Z", "stageTimestamp": "2026-05-01T10:00:00.250000Z"})
        );
    }

    #[test]
    fn where_a_request_is_from_is_said_by_headers_and_known_of_the_connection() {
        for (forwarded, real, expected) in [
            ("", "", "127.0.0.1"),
            ("192.0.2.1, nonsense,2001:db8::1", "", "192.0.2.1 2001:db8::1 127.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1 127.0.0.1"),
            ("", "192.0.2.2", "192.0.2.2 127.0.0.1"),
            ("192.0.2.1,127.0.0.1", "", "192.0.2.1 127.0.0.1"),
        ] {
            let request = Request::get("/").header("x-forwarded-for", forwarded).header("x-real-ip", real);
            let request = request.extension(Remote([127, 0, 0, 1].into())).body(Body::empty()).expect("a request");
            let told: Vec<String> = sources(&request).iter().map(ToString::to_string).collect();
            assert_eq!(told.join(" "), expected, "{forwarded} {real}");
        }
        let many = Request::get("/").header("x-forwarded-for", "192.0.2.1,".repeat(1000)).body(Body::empty()).expect("a request");
        assert_eq!(sources(&many).len(), MOST_SOURCES);
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
