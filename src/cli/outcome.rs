//! What has come of an accepted revision: applied wave by wave, and healthy. PURE.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{InventoryEntry, Kind, Object, Source};
use crate::sync::again::CHANGED_AGAIN;
use crate::sync::asked::DENIED;
use crate::sync::health::{Health, health};
use crate::sync::status::{PROGRESSING, UNDISTURBED, WAVE_FAILED};

/// Kinds that become what they say some time after they exist.
const GROWING: [Kind; 6] = [Kind::Namespace, Kind::Pod, Kind::ReplicaSet, Kind::Deployment, Kind::Job, Kind::Source];

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Healthy,
    /// Not yet: what for, in a sentence.
    Waits(String),
    /// Not without a change: why, in a sentence.
    Failed(String),
}

/// The kinds whose objects tell how far a source is.
pub(super) fn kinds(source: &Source) -> Vec<Kind> {
    let held = source.status.iter().flat_map(|status| &status.inventory);
    let mut kinds: Vec<Kind> = held.filter_map(|entry| Kind::known(&entry.api_version, &entry.kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| GROWING.contains(kind));
    kinds
}

/// How far a source is, from the live objects of its kinds.
pub(super) fn progress(source: &Source, live: &[Value]) -> Progress {
    let status = source.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    if let Some(ready) = ready.filter(|ready| matches!(ready.reason.as_str(), WAVE_FAILED | DENIED | CHANGED_AGAIN)) {
        return Progress::Failed(ready.message.clone());
    }
    // What a revision no longer wants goes last and is held until then: it may have failed, and the revision mend that.
    // Of what is wanted, a failure is told by the wave that stops there, or once all waves are done.
    let goes_on = goes_on(source);
    let live = by_uid(live);
    let mut waits = None;
    for entry in &status.inventory {
        let Some(kind) = growing(entry) else { continue };
        match live.get(entry.uid.as_str()).and_then(|found| object(kind, found)) {
            Some(object) => match health(&object) {
                Health::Healthy => {}
                Health::Failed(reason) if !goes_on => return Progress::Failed(format!("{}: {}", object.key(), reason.message)),
                Health::Progressing(reason) | Health::Failed(reason) => {
                    waits.get_or_insert_with(|| format!("{}: {}", object.key(), reason.message));
                }
            },
            None => {
                let slash = if entry.namespace.is_empty() { "" } else { "/" };
                waits.get_or_insert_with(|| format!("{} {}{slash}{}: does not exist yet", entry.kind, entry.namespace, entry.name));
            }
        }
    }
    let disturbed = status.conditions.iter().find(|condition| condition.type_ == UNDISTURBED && condition.status == "False");
    // What a wave waits for says more than what one object of it does.
    match (ready, waits) {
        (Some(ready), _) if ready.status != "True" => Progress::Waits(ready.message.clone()),
        (_, Some(waits)) => Progress::Waits(waits),
        // As it says now, and not for long.
        _ => disturbed.map_or(Progress::Healthy, |condition| Progress::Failed(condition.message.clone())),
    }
}

/// The live objects that a source waits for, or that have failed; none that a revision on its way may be about to delete.
pub(super) fn unhealthy<'l>(source: &Source, live: &'l [Value]) -> Vec<&'l Value> {
    let (live, goes_on) = (by_uid(live), goes_on(source));
    let held = source.status.iter().flat_map(|status| &status.inventory);
    let found = held.filter_map(|entry| Some((growing(entry)?, *live.get(entry.uid.as_str())?)));
    let is_told = |kind: Kind, found: &Value| match object(kind, found).map(|it| health(&it)) {
        Some(Health::Progressing(_)) => true,
        Some(Health::Failed(_)) => !goes_on,
        Some(Health::Healthy) | None => false,
    };
    found.filter(|(kind, found)| is_told(*kind, found)).map(|(_, found)| found).collect()
}

/// Not all of the accepted revision is applied yet.
fn goes_on(source: &Source) -> bool {
    let mut conditions = source.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == "Ready" && condition.reason == PROGRESSING)
}

fn by_uid(live: &[Value]) -> BTreeMap<&str, &Value> {
    live.iter().filter_map(|object| Some((object["metadata"]["uid"].as_str()?, object))).collect()
}

fn growing(entry: &InventoryEntry) -> Option<Kind> {
    Kind::known(&entry.api_version, &entry.kind).filter(|kind| GROWING.contains(kind))
}

fn object(kind: Kind, live: &Value) -> Option<Object> {
    Object::from_value(kind, live.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(ready: Value) -> Source {
        let entry = |kind: &str, api: &str, uid: &str| json!({"apiVersion": api, "kind": kind, "namespace": "web", "name": "a", "uid": uid, "created": true});
        serde_json::from_value(json!({"metadata": {"name": "s"}, "status": {"conditions": [ready],
            "inventory": [entry("ConfigMap", "v1", "c"), entry("Deployment", "apps/v1", "d"), entry("Job", "batch/v1", "j")]}}))
        .unwrap()
    }

    fn ready(status: &str, reason: &str, message: &str) -> Value {
        json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn deployment(available: i32) -> Value {
        json!({"metadata": {"name": "a", "namespace": "web", "uid": "d", "generation": 1}, "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available}})
    }

    fn job(condition: &str) -> Value {
        json!({"metadata": {"name": "a", "namespace": "web", "uid": "j"},
            "status": {"conditions": [{"type": condition, "status": "True", "message": "too often"}]}})
    }

    #[test]
    fn a_revision_is_done_when_all_of_it_is_healthy() {
        let synced = source(ready("True", "Synced", ""));
        assert_eq!(kinds(&synced), [Kind::Deployment, Kind::Job]);
        let rows = [
            (vec![deployment(2), job("Complete")], Progress::Healthy),
            (vec![deployment(1), job("Complete")], Progress::Waits("Deployment web/a: 1 of 2 replicas are available".to_owned())),
            (vec![deployment(1), job("Failed")], Progress::Failed("Job web/a: failed: too often".to_owned())),
            (vec![job("Complete")], Progress::Waits("Deployment web/a: does not exist yet".to_owned())),
        ];
        for (live, expected) in rows {
            assert_eq!(progress(&synced, &live), expected);
        }
        let all = [deployment(2), job("Complete")];
        let waits = source(ready("False", "Progressing", "Job web/a: wave 1 waits"));
        assert_eq!(progress(&waits, &all), Progress::Waits("Job web/a: wave 1 waits".to_owned()));
        let mends = source(ready("False", "Progressing", "later waves are to come"));
        assert_eq!(progress(&mends, &[deployment(2), job("Failed")]), Progress::Waits("later waves are to come".to_owned()));
        assert_eq!(unhealthy(&mends, &[deployment(1), job("Failed")]), [&deployment(1)]);
        assert_eq!(unhealthy(&synced, &[deployment(1), job("Failed")]), [&deployment(1), &job("Failed")]);
        assert_eq!(unhealthy(&synced, &[deployment(2), job("Complete")]), Vec::<&Value>::new());
        let again = source(ready("False", "ChangedAgain", "Job web/a: somebody else"));
        assert_eq!(progress(&again, &all), Progress::Failed("Job web/a: somebody else".to_owned()));
        let mut between = source(ready("True", "Synced", ""));
        let mut disturbed = between.status.as_ref().unwrap().conditions[0].clone();
        (disturbed.type_, disturbed.status, disturbed.message) = ("Undisturbed".into(), "False".into(), "ConfigMap web/a: put back".into());
        between.status.as_mut().unwrap().conditions.push(disturbed);
        assert_eq!(progress(&between, &all), Progress::Failed("ConfigMap web/a: put back".to_owned()));
        let waits = Progress::Waits("Deployment web/a: 1 of 2 replicas are available".to_owned());
        assert_eq!(progress(&between, &[deployment(1), job("Complete")]), waits);
        let silent = source(ready("False", "WebhookUnavailable", "Job web/a: nobody is there"));
        assert_eq!(progress(&silent, &[]), Progress::Waits("Job web/a: nobody is there".to_owned()));
        let denied = source(ready("False", "WebhookDenied", "Job web/a: no"));
        assert_eq!(progress(&denied, &[]), Progress::Failed("Job web/a: no".to_owned()));
        let failed = source(ready("False", "WaveFailed", "Job web/a: wave 1 has failed"));
        assert_eq!(progress(&failed, &all), Progress::Failed("Job web/a: wave 1 has failed".to_owned()));
    }
}
