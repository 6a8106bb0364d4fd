//! The step that fetches an image: credentials, one attempt with each of them, and what people are told.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PodSpec;

use super::act::{Effect, Scene, failure};
use super::auth::{self, Found};
use super::context::Context;
use super::observed::Subject;
use super::pull_plan;
use super::volume::plan::Names;
use crate::cri::CriError;

/// Pulls an image for a container of the pod, or for a volume.
pub(super) async fn pull(context: &Context, scene: &Scene, owner: &str, image: &str, attempt: u32) -> Vec<Effect> {
    let subject = Subject::Image(owner.to_owned());
    let about = pull_plan::container_of(owner);
    let tell = |warning, reason: &str, message: String| context.events.pod(&scene.pod, about, warning, reason, message);
    let waiting = Instant::now();
    let Ok(_turn) = context.pulls.acquire().await else { return Vec::new() };
    if came_meanwhile(context, scene, owner, image).await {
        tell(false, "Pulled", format!("Container image \"{image}\" already present on machine"));
        return vec![Effect::Clear(subject)];
    }
    tell(false, "Pulling", format!("Pulling image \"{image}\""));
    let found = credentials(context, scene, image).await;
    if !found.problems.is_empty() {
        let problems = found.problems.join("; ");
        let text = format!("Unable to use some image pull secrets ({problems}); attempting to pull the image may not succeed.");
        tell(true, "FailedToRetrieveImagePullSecret", text);
    }
    let began = Instant::now();
    let outcome = {
        let pull = attempts(context, image, &found);
        tokio::pin!(pull);
        loop {
            match tokio::time::timeout(context.options.pull_progress_interval, &mut pull).await {
                Ok(outcome) => break outcome,
                Err(_) => {
                    if let Some(progress) = context.images.pull_progress(image).await {
                        let (done, total) = (progress.done_bytes >> 20, progress.total_bytes >> 20);
                        tell(false, "Pulling", format!("Pulling image \"{image}\": {done} of {total} MiB"));
                    }
                }
            }
        }
    };
    match outcome {
        Ok(()) => {
            let size = context.images.image_status(image).await.ok().flatten().map_or(0, |image| image.size_bytes);
            let (took, with_wait) = (seconds(began.elapsed()), seconds(waiting.elapsed()));
            let text =
                format!("Successfully pulled image \"{image}\" in {took} ({with_wait} including waiting). Image size: {size} bytes.");
            tell(false, "Pulled", text);
            vec![Effect::Clear(subject), Effect::Pulled(owner.to_owned(), attempt)]
        }
        Err(error) => {
            let reason = if matches!(error, CriError::Invalid(_)) { "InvalidImageName" } else { "ErrImagePull" };
            tell(true, "Failed", format!("Failed to pull image \"{image}\": {error}"));
            tell(false, "BackOff", format!("Back-off pulling image \"{image}\""));
            failure(subject, reason, error.to_string())
        }
    }
}

/// Whether another pod's pull, which this one waited for, was enough.
async fn came_meanwhile(context: &Context, scene: &Scene, owner: &str, image: &str) -> bool {
    let policy = scene.pod.spec.as_ref().and_then(|spec| pull_plan::policy_of(spec, owner));
    let always = policy.is_none_or(|policy| policy == "Always");
    !always && matches!(context.images.image_status(image).await, Ok(Some(_)))
}

async fn credentials(context: &Context, scene: &Scene, image: &str) -> Found {
    let empty = PodSpec::default();
    let spec = scene.pod.spec.as_ref().unwrap_or(&empty);
    let namespace = scene.pod.metadata.namespace.as_deref().unwrap_or_default();
    match context.references.fetch(namespace, &Names::of_pulls(spec)).await {
        Ok(references) => auth::find(image, spec, &references.secrets),
        // Missing credentials are no reason not to try: the registry says if it needs some.
        Err(cause) => Found { problems: vec![cause.to_string()], ..Found::default() },
    }
}

/// With each of the credentials until one is taken; without any, as nobody. What no other credentials
/// would change ends it.
async fn attempts(context: &Context, image: &str, found: &Found) -> Result<(), CriError> {
    let mut outcome = None;
    for auth in &found.candidates {
        match context.images.pull(image, Some(auth)).await {
            Err(error @ CriError::Pull { .. }) => outcome = Some(Err(error)),
            done => return done.map(drop),
        }
    }
    match outcome {
        Some(outcome) => outcome,
        None => context.images.pull(image, None).await.map(drop),
    }
}

/// `1.234s`, as Kubernetes prints it.
fn seconds(time: Duration) -> String {
    format!("{:.3}s", time.as_secs_f64())
}
