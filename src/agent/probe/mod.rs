//! Probes and hooks: questions put to a container from the host.
//!
//! - `plan` (pure): when to ask and what the answers mean
//! - `http`: the small client; `grpc`: the health protocol of gRPC

mod grpc;
mod http;
pub mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::plan::{Kind, Timing, Track};
use super::observed::ProbeView;
use crate::clock::Clock;
use crate::cri::{CriError, Runtime};
use crate::model::Timestamp;

/// Where a container answers.
#[derive(Clone, Debug)]
pub struct Target {
    pub container: Container,
    pub id: String,
    /// The pod's address, or the node's for a pod on the host's network.
    pub address: String,
    pub started_at: Timestamp,
    /// What was known of it before this process.
    pub known: ProbeView,
}

/// Asks one pod's containers. Dropping it stops asking.
pub struct Prober {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    views: Arc<Mutex<BTreeMap<String, ProbeView>>>,
    tasks: BTreeMap<(String, Kind), JoinHandle<()>>,
    wake: Arc<Notify>,
    tell: Tell,
}

/// Gets (container, message) of each failed probe.
pub type Tell = Arc<dyn Fn(&str, String) + Send + Sync>;

impl Prober {
    pub fn new(runtime: Arc<dyn Runtime>, clock: Arc<dyn Clock>, wake: Arc<Notify>, tell: Tell) -> Self {
        Self { runtime, clock, views: Arc::default(), tasks: BTreeMap::new(), wake, tell }
    }

    /// The results so far, by container id.
    pub fn views(&self) -> BTreeMap<String, ProbeView> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks these and no others.
    pub fn sync(&mut self, targets: &[Target]) {
        let wanted = |id: &str| targets.iter().any(|target| target.id == id);
        self.tasks.retain(|(id, _), task| {
            let keep = wanted(id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.views.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| wanted(id));
        for target in targets {
            for (kind, probe) in plan::probes(&target.container) {
                let key = (target.id.clone(), kind);
                if !self.tasks.contains_key(&key) {
                    let task = self.ask(target.clone(), kind, probe.clone());
                    self.tasks.insert(key, tokio::spawn(task));
                }
            }
        }
    }

    fn ask(&self, target: Target, kind: Kind, probe: Probe) -> impl Future<Output = ()> + use<> {
        let (runtime, clock, views) = (self.runtime.clone(), self.clock.clone(), self.views.clone());
        let (wake, tell) = (self.wake.clone(), self.tell.clone());
        let timing = Timing::of(&probe);
        let known = match kind {
            Kind::Startup => target.known.startup,
            Kind::Liveness => None,
            Kind::Readiness => target.known.ready,
        };
        let mut track = Track::known(known);
        if known.is_some() {
            set(&views, &target.id, kind, known);
        }
        async move {
            let wait = timing.first_at(target.started_at).duration_since(clock.now());
            tokio::time::sleep(unsigned(wait)).await;
            while !track.is_final(kind) {
                let gated = kind != Kind::Startup && target.container.startup_probe.is_some();
                let started = views.lock().unwrap_or_else(PoisonError::into_inner).get(&target.id).and_then(|view| view.startup);
                if gated && started != Some(true) {
                    tokio::time::sleep(Duration::from_millis(250).min(unsigned(timing.period))).await;
                    continue;
                }
                let answer = run(&*runtime, &target, &probe, unsigned(timing.timeout)).await;
                match &answer {
                    Ok(()) => {}
                    Err(Fault::Failed(cause)) => tell(&target.container.name, format!("{} probe failed: {cause}", name(kind))),
                    Err(Fault::Unasked(cause)) => {
                        let said = format!("{} probe errored and resulted in unknown state: {cause}", name(kind));
                        tell(&target.container.name, said);
                        tokio::time::sleep(unsigned(timing.period)).await;
                        continue;
                    }
                }
                if track.record(answer.is_ok(), &timing) {
                    set(&views, &target.id, kind, track.verdict);
                    wake.notify_one();
                }
                tokio::time::sleep(unsigned(timing.period)).await;
            }
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

fn set(views: &Mutex<BTreeMap<String, ProbeView>>, id: &str, kind: Kind, verdict: Option<bool>) {
    let mut views = views.lock().unwrap_or_else(PoisonError::into_inner);
    let view = views.entry(id.to_owned()).or_default();
    match kind {
        Kind::Startup => view.startup = verdict,
        Kind::Liveness => view.live = verdict,
        Kind::Readiness => view.ready = verdict,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Startup => "Startup",
        Kind::Liveness => "Liveness",
        Kind::Readiness => "Readiness",
    }
}

fn unsigned(duration: jiff::SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// Why there is no good answer; what a person reads in the event.
#[derive(Debug)]
enum Fault {
    /// The container gave none.
    Failed(String),
    /// It could not be asked: that says nothing of it.
    Unasked(String),
}

impl From<String> for Fault {
    fn from(cause: String) -> Self {
        Self::Failed(cause)
    }
}

/// One question.
async fn run(runtime: &dyn Runtime, target: &Target, probe: &Probe, timeout: Duration) -> Result<(), Fault> {
    if let Some(action) = &probe.exec {
        return exec(runtime, &target.id, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let asked = async {
        if let Some(action) = &probe.http_get {
            return http_get(target, action).await;
        }
        if let Some(action) = &probe.tcp_socket {
            let port = plan::port(&action.port, &target.container).ok_or("the port has no number")?;
            let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.clone());
            let connected = tokio::net::TcpStream::connect((host.as_str(), port)).await;
            return connected.map(drop).map_err(|cause| format!("connect to {host}:{port}: {cause}"));
        }
        if let Some(action) = &probe.grpc {
            let port = u16::try_from(action.port).map_err(|_| "the port has no number")?;
            let service = action.service.as_deref().unwrap_or_default();
            let tls = action.mode.as_deref() == Some("TLS");
            return grpc::check(grpc::Question { host: &target.address, port, tls, service }).await;
        }
        Err("this kind of probe is not supported".to_owned())
    };
    let late = |_| format!("no answer within {} s", timeout.as_secs());
    Ok(tokio::time::timeout(timeout, asked).await.map_err(late)??)
}

/// A lifecycle hook. The error is what a person reads in the event.
///
/// # Errors
/// The hook failed or took longer than `limit`.
pub async fn hook(runtime: &dyn Runtime, target: &Target, handler: &LifecycleHandler, limit: Duration) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let done = exec(runtime, &target.id, action.command.as_deref().unwrap_or_default(), limit).await;
        return done.map_err(|(Fault::Failed(cause) | Fault::Unasked(cause))| cause);
    }
    let late = || format!("did not end within {} s", limit.as_secs());
    if let Some(action) = &handler.http_get {
        // Any answer will do: the kubelet does not look at its status either.
        return tokio::time::timeout(limit, http_status(target, action)).await.map_err(|_| late())?.map(drop);
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(action.seconds.unsigned_abs()).min(limit)).await;
        return Ok(());
    }
    Err("this kind of hook is not supported".to_owned())
}

async fn http_get(target: &Target, action: &HTTPGetAction) -> Result<(), String> {
    match http_status(target, action).await? {
        200..=399 => Ok(()),
        code => Err(format!("HTTP status {code}")),
    }
}

/// What a server answers, whatever it is.
async fn http_status(target: &Target, action: &HTTPGetAction) -> Result<u16, String> {
    let port = plan::port(&action.port, &target.container).ok_or("the port has no number")?;
    let request = http::Get {
        host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.clone()),
        port,
        tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        path: action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        headers: action.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect(),
    };
    http::get(&request).await.map_err(|cause| {
        let scheme = if request.tls { "https" } else { "http" };
        format!("get {scheme}://{}:{port}{}: {cause}", request.host, request.path)
    })
}

async fn exec(runtime: &dyn Runtime, id: &str, command: &[String], timeout: Duration) -> Result<(), Fault> {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => {
            let mut said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
            said.truncate(said.floor_char_boundary(1024));
            Err(Fault::Failed(format!("exit code {}: {}", output.exit_code, said.trim())))
        }
        Err(CriError::Timeout(_)) => Err(Fault::Failed(format!("command took longer than {} s", timeout.as_secs()))),
        Err(error) => Err(Fault::Unasked(error.to_string())),
    }
}
