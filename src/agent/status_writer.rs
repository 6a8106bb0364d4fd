//! Writes a pod's status to the server: only when it changed, again after a conflict, never for another
//! pod of the same name.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::act::Effect;
use super::context::Context;
use super::objects::Objects;
use super::observed::{full_name, uid};

/// What the server has, as far as is known.
#[derive(Default)]
pub struct Written {
    /// The status the server has.
    pub status: Option<PodStatus>,
    /// The pod's resource version with that status.
    pub version: Option<String>,
    /// Where a write leaves what it wrote.
    pub shared: Shared,
}

/// A status that was written, and the resource version it got.
pub type Shared = Arc<Mutex<Option<(PodStatus, Option<String>)>>>;

impl Written {
    /// Takes in what was written meanwhile.
    pub fn take(&mut self) {
        if let Some((status, version)) = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take() {
            (self.status, self.version) = (Some(status), version);
        }
    }

    /// Takes in what the server tells of the pod: others write its status too, and what they wrote over ours is
    /// written again. What was on its way before our last write is older than that.
    pub fn hear(&mut self, pod: &Pod) {
        let number = |version: &Option<String>| version.as_deref().and_then(|text| text.parse::<u64>().ok());
        let (told, known) = (&pod.metadata.resource_version, &self.version);
        let newer = match (number(told), number(known)) {
            (Some(told), Some(known)) => told > known,
            _ => told != known,
        };
        if newer {
            self.base(pod);
        }
    }

    /// The server's own word is what the status is compared with.
    pub fn base(&mut self, pod: &Pod) {
        self.status.clone_from(&pod.status);
        self.version.clone_from(&pod.metadata.resource_version);
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Writes it.
///
/// # Errors
/// The server does not answer, or refuses.
pub async fn write(context: &Context, pod: &Pod, status: &PodStatus, written: &Shared) -> Result<Vec<Effect>, String> {
    let meta = &pod.metadata;
    let api: Objects<Pod> = Objects::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    let failed = |cause: String| format!("write the status of pod {}: {cause}", full_name(pod));
    let mut next = pod.clone();
    for _ in 0..4 {
        next.status = Some(status.clone());
        let answer = tokio::time::timeout(PATIENCE, api.replace_status(name, &next)).await;
        match answer.map_err(|_| failed("no answer".to_owned()))? {
            Ok(stored) => {
                let version = stored.metadata.resource_version;
                *written.lock().unwrap_or_else(PoisonError::into_inner) = Some((status.clone(), version));
                return Ok(Vec::new());
            }
            // Forbidden, to kube-apiserver, is also what takes away a label that came meanwhile.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 404 | 409) => {
                match still_there(&api, pod).await.map_err(failed)? {
                    Some(current) if refusal.code == 403 && current.metadata.resource_version == next.metadata.resource_version => {
                        return Err(failed(refusal.message));
                    }
                    Some(current) => next = current,
                    None => return Ok(vec![Effect::Gone]),
                }
            }
            Err(cause) => return Err(failed(cause.to_string())),
        }
    }
    Err(failed("it changes all the time".to_owned()))
}

/// The pod as the server has it now; `None`: it has none of this UID. No refusal but this answer is taken
/// as the end of a pod.
///
/// # Errors
/// The server does not say.
pub async fn still_there(api: &Objects<Pod>, pod: &Pod) -> Result<Option<Pod>, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let current = tokio::time::timeout(PATIENCE, api.get_opt(name)).await.map_err(|_| "no answer".to_owned())?;
    Ok(current.map_err(|cause| cause.to_string())?.filter(|current| uid(current) == uid(pod)))
}
