//! What a preview said, against what the cluster then did.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use podbay::model::custom::CustomKind;
use podbay::model::volume::PersistentVolume;
use podbay::model::{Key, Kind, Object, local_volume, pod};
use podbay::simulate::Preview;
use podbay::simulate::preview::matched::{Placed, matched};
use podbay::simulate::preview::{VolumePreview, volumes};
use podbay::store::Snapshot;
use serde_json::Value;

/// Kinds that others derive from what a source writes, or that nodes write.
const DERIVED: [Kind; 6] = [Kind::ReplicaSet, Kind::EndpointSlice, Kind::Event, Kind::Lease, Kind::Node, Kind::Source];

/// A preview and the state it was made from.
pub struct Foretold {
    pub preview: Preview,
    pub before: Snapshot,
}

impl Foretold {
    /// One line that says how it came.
    ///
    /// # Errors
    /// Every difference.
    pub fn compare(&self, after: &Snapshot, approved: bool) -> Result<String, String> {
        let Preview { pods, .. } = &self.preview;
        let held = self.preview.is_refused() || (!approved && !self.preview.approvals.is_empty());
        let (starts, stops) = (started(&self.before, after), stopped(&self.before, after));
        let mut wrong = Vec::new();
        if held {
            let changed = changes(&self.before, after);
            wrong.extend(changed.iter().map(|(key, mark)| format!("nothing was to happen, but {mark} {key}")));
            wrong.extend(starts.iter().chain(&stops).map(|(name, node)| format!("no pod was to start or stop, but {name} on {node}")));
        } else {
            wrong.extend(self.objects(after));
            wrong.extend(self.volumes(after));
            wrong.extend(matched("starts", &pods.starts, &starts));
            wrong.extend(matched("stops", &pods.stops, &stops));
            wrong.extend(matched("is pending", &pods.pending, &pending(after)));
        }
        if !wrong.is_empty() {
            return Err(format!(
                "the preview of {} at {} was wrong:\n  {}",
                self.preview.source,
                self.preview.revision,
                wrong.join("\n  ")
            ));
        }
        if held {
            return Ok("as foretold: nothing changed".to_owned());
        }
        let (objects, starts, stops) = (self.preview.objects.len(), starts.len(), stops.len());
        Ok(format!("as foretold: {}, {} started, {} stopped", many(objects, "object"), many(starts, "pod"), many(stops, "pod")))
    }

    /// The volumes it named were made, or went, and no others; on the node it said, if no other would have done as well.
    fn volumes(&self, after: &Snapshot) -> Option<String> {
        let plain = |all: &[VolumePreview], exact: &[bool]| -> Vec<VolumePreview> {
            let one = |(it, exact): (&VolumePreview, &bool)| VolumePreview {
                node: it.node.clone().filter(|_| *exact),
                tied: false,
                ..it.clone()
            };
            all.iter().zip(exact).map(one).collect()
        };
        let (foretold, happened) = (&self.preview.volumes, volumes(&self.before, after, &BTreeSet::new()));
        let exact: Vec<bool> = foretold.iter().map(|it| !it.tied).collect();
        let same = foretold.len() == happened.len() && plain(foretold, &exact) == plain(&happened, &exact);
        (!same).then(|| format!("volumes {foretold:?} were foretold, {happened:?} happened"))
    }

    /// The objects it named changed as it said, what was to go with them is gone, and nothing else changed.
    fn objects(&self, after: &Snapshot) -> Vec<String> {
        let mut happened = changes(&self.before, after);
        let mut wrong = Vec::new();
        for object in &self.preview.objects {
            let custom = || CustomKind::of_word(&object.kind.to_lowercase(), None).map(Kind::Custom);
            let kind = Kind::of_word(&object.kind).or_else(custom).expect("a kind");
            let key = Key::new(kind, &object.namespace, &object.name);
            match happened.remove(&key) {
                Some(mark) if mark == object.mark => {}
                other => wrong.push(format!("{} {key} was foretold, {} happened", object.mark, other.unwrap_or("nothing"))),
            }
        }
        let takes: BTreeSet<&String> = self.preview.objects.iter().flat_map(|object| &object.takes).collect();
        for object in self.before.iter().filter(|object| takes.contains(&object.key().to_string())) {
            happened.remove(object.key());
            if after.get(object.key()).is_some_and(|now| now.uid() == object.uid()) {
                wrong.push(format!("{} was to go with its owner and is there", object.key()));
            }
        }
        wrong.extend(happened.iter().map(|(key, mark)| format!("{mark} {key} happened and was not foretold")));
        wrong
    }
}

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What sources write that differs between two states, with the preview's marks.
fn changes(before: &Snapshot, after: &Snapshot) -> BTreeMap<Key, &'static str> {
    // Every namespace has one: it comes and goes with it.
    let furnished = |object: &Object| object.kind() == Kind::ServiceAccount && object.key().name == podbay::model::DEFAULT_ACCOUNT;
    let written = |object: &&Object| {
        let made = object.get::<PersistentVolume>().is_some_and(|volume| local_volume::made_by(volume).is_some());
        let derived = DERIVED.contains(&object.kind()) || object.controller().is_some() || furnished(object) || made;
        !derived && object.key().namespace != "kube-system"
    };
    let mut found = BTreeMap::new();
    for new in after.iter().filter(written) {
        let mark = match before.get(new.key()) {
            None => "+",
            Some(old) if old.uid() != new.uid() => "-/+",
            Some(old) if meaning(old) != meaning(new) => "~",
            Some(_) => continue,
        };
        found.insert(new.key().clone(), mark);
    }
    let gone = before.iter().filter(written).filter(|old| after.get(old.key()).is_none());
    found.extend(gone.map(|old| (old.key().clone(), "-")));
    found
}

/// An object without what the server and the controllers write.
fn meaning(object: &Object) -> Value {
    let mut value = object.value();
    value.as_object_mut().map(|map| map.remove("status"));
    // The scheduler's, and what claims and volumes are to each other.
    if let Some(spec) = value["spec"].as_object_mut() {
        spec.retain(|name, _| !matches!(name.as_str(), "nodeName" | "volumeName" | "claimRef"));
    }
    if let Some(meta) = value["metadata"].as_object_mut() {
        meta.retain(|name, _| matches!(name.as_str(), "labels" | "annotations"));
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            const DERIVED: [&str; 4] =
                ["deployment.kubernetes.io/", "pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/"];
            annotations.retain(|name, _| !DERIVED.iter().any(|prefix| name.starts_with(prefix)));
        }
        meta.retain(|_, value| value.as_object().is_some_and(|map| !map.is_empty()));
    }
    value
}

fn node_of(object: &Object) -> Option<String> {
    pod::node_name(object.get::<Pod>()?).map(str::to_owned)
}

fn is_over(object: &Object) -> bool {
    object.get::<Pod>().is_none_or(pod::is_terminal)
}

fn name(object: &Object) -> String {
    format!("{}/{}", object.key().namespace, object.key().name)
}

fn same<'a>(state: &'a Snapshot, pod: &Object) -> Option<&'a Object> {
    state.get(pod.key()).filter(|other| other.uid() == pod.uid())
}

/// Pods that have a node and had none before.
fn started(before: &Snapshot, after: &Snapshot) -> Placed {
    let new = after.list(Kind::Pod).filter(|pod| same(before, pod).and_then(node_of).is_none());
    new.filter_map(|pod| Some((name(pod), node_of(pod)?))).collect()
}

/// Pods that ran and are gone.
fn stopped(before: &Snapshot, after: &Snapshot) -> Placed {
    let ran = before.list(Kind::Pod).filter(|pod| !pod.is_deleting() && !is_over(pod));
    ran.filter(|pod| same(after, pod).is_none()).filter_map(|pod| Some((name(pod), node_of(pod)?))).collect()
}

/// Pods without a node, with the scheduler's reason in place of it.
fn pending(after: &Snapshot) -> Placed {
    let waiting = after.list(Kind::Pod).filter(|pod| node_of(pod).is_none() && !is_over(pod));
    let reason = |pod: &Object| pod::condition(pod.get::<Pod>()?, "PodScheduled")?.message.clone();
    waiting.map(|pod| (name(pod), reason(pod).unwrap_or_default())).collect()
}
