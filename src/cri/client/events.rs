//! Which sandbox to look at: told by the runtime, or found by looking where it does not tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tonic::Code;

use super::{Shared, request};
use crate::cri::RuntimeEvent;
use crate::cri::wire;

/// Between two looks at a runtime that does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Before the stream is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Says where to look, for as long as the client lives.
pub(super) async fn listen(shared: Arc<Shared>, events: broadcast::Sender<RuntimeEvent>) {
    loop {
        // Without a limit: it is open for good.
        match shared.runtime().get_container_events(wire::GetEventsRequest {}).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(event)) = stream.message().await {
                    tell(&events, event);
                }
            }
            Err(status) if status.code() == Code::Unimplemented => return look_around(&shared, &events).await,
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(events: &broadcast::Sender<RuntimeEvent>, event: wire::ContainerEventResponse) {
    let Some(sandbox) = event.pod_sandbox_status else { return };
    let pod_uid = sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default();
    let container_id = if event.container_id == sandbox.id { String::new() } else { event.container_id };
    // Nobody listening is fine.
    events.send(RuntimeEvent { sandbox_id: sandbox.id, pod_uid, container_id }).ok();
}

/// What there is: states by (sandbox, container); the sandbox itself has no container.
type Seen = BTreeMap<(String, String), i32>;

async fn look_around(shared: &Shared, events: &broadcast::Sender<RuntimeEvent>) {
    let (mut known, mut uids): (Option<Seen>, BTreeMap<String, String>) = (None, BTreeMap::new());
    loop {
        if let Some((seen, owners)) = look(shared).await {
            uids.extend(owners);
            for (sandbox_id, container_id) in changed(known.as_ref().unwrap_or(&seen), &seen) {
                let pod_uid = uids.get(&sandbox_id).cloned().unwrap_or_default();
                events.send(RuntimeEvent { sandbox_id, pod_uid, container_id }).ok();
            }
            uids.retain(|id, _| seen.keys().any(|(sandbox, _)| sandbox == id));
            known = Some(seen);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(shared: &Shared) -> Option<(Seen, BTreeMap<String, String>)> {
    let mut runtime = shared.runtime();
    let sandboxes = runtime.list_pod_sandbox(request(wire::ListPodSandboxRequest { filter: None })).await.ok()?.into_inner().items;
    let containers = runtime.list_containers(request(wire::ListContainersRequest { filter: None })).await.ok()?.into_inner().containers;
    let mut seen: Seen = containers.into_iter().map(|one| ((one.pod_sandbox_id, one.id), one.state)).collect();
    let mut uids = BTreeMap::new();
    for sandbox in sandboxes {
        uids.insert(sandbox.id.clone(), sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default());
        seen.insert((sandbox.id, String::new()), sandbox.state);
    }
    Some((seen, uids))
}

/// What came, went, or is in another state.
fn changed(before: &Seen, now: &Seen) -> Vec<(String, String)> {
    let other = now.iter().filter(|(id, state)| before.get(*id) != Some(state)).map(|(id, _)| id);
    other.chain(before.keys().filter(|id| !now.contains_key(*id))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen() {
        let seen = |all: &[(&str, &str, i32)]| all.iter().map(|(s, c, state)| (((*s).into(), (*c).into()), *state)).collect::<Seen>();
        let before = seen(&[("s", "", 0), ("s", "a", 1), ("s", "b", 1)]);
        let now = seen(&[("s", "", 0), ("s", "a", 2), ("t", "", 0)]);
        let expected: Vec<(String, String)> = [("s", "a"), ("t", ""), ("s", "b")].map(|(s, c)| (s.into(), c.into())).to_vec();
        assert_eq!(changed(&before, &now), expected);
        assert_eq!(changed(&now, &now), []);
    }
}
