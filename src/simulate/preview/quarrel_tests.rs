//! What a source wants and somebody else takes away: told before, and no loop afterwards.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use serde_json::json;

use super::tests::{commit, current, deployment, foresee, happen, job};
use super::*;
use crate::plan::{Op, Plan};
use crate::simulate::tests::{cluster, controllers, object, start, write};
use crate::store::transaction::{Precondition, Transaction, Write};

fn migration(image: &str) -> Vec<(&'static str, String)> {
    let text = job("migrate", "").replace("spec:\n  template", "spec:\n  ttlSecondsAfterFinished: 0\n  template").replace("i:1", image);
    vec![("a.yaml", text)]
}

/// Its pod ends well, and everybody answers to that.
fn ends_well(state: &Snapshot) -> Snapshot {
    let mut state = state.clone();
    let pod = state.list(Kind::Pod).next().expect("the Job's pod").clone();
    let ended = pod.edit(|pod: &mut Pod| pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned())).unwrap();
    commit(&mut state, &Transaction::new("system:node:n0").with(Write::UpdateStatus(ended, Precondition::exists())), "end");
    settle_within(state, &controllers(), start().checked_add(jiff::SignedDuration::from_secs(1)).unwrap(), usize::MAX).state
}

#[test]
fn a_job_that_its_ttl_removed_runs_once_for_a_manifest() {
    let base = cluster(1, Vec::new());
    let ran = ends_well(&happen(&base, "r1", &migration("i:1"), None));
    assert_eq!(ran.list(Kind::Job).count(), 0, "it was removed by its ttl");
    let foretold = foresee(&ran, "r1", &migration("i:1"));
    assert_eq!((foretold.exit_code(), foretold.counts.unchanged), (0, 1), "{foretold}");
    assert!(foretold.to_string().contains("Job web/migrate has finished and was removed by its ttlSecondsAfterFinished"), "{foretold}");
    let after = happen(&ran, "r1", &migration("i:1"), None);
    assert_eq!(after.list(Kind::Job).count(), 0);
    // A newer revision that leaves it alone leaves it alone, in another file, too.
    let moved = [("b.yaml", migration("i:1")[0].1.clone() + &super::tests::config("c", "1"))];
    let after = happen(&after, "r2", &moved, None);
    assert_eq!((after.list(Kind::Job).count(), after.list(Kind::ConfigMap).count()), (0, 1));
    let again = happen(&after, "r3", &migration("i:2"), None);
    let image =
        |object: &Object| object.get::<Job>().unwrap().spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.clone();
    assert_eq!(again.list(Kind::Job).map(image).collect::<Vec<_>>(), [Some("i:2".to_owned())]);
}

#[test]
fn a_finished_job_does_not_hold_the_waves_after_it() {
    let waves = |image: &str| {
        let first =
            migration(image)[0].1.replace("{name: migrate}", "{name: migrate, annotations: {argocd.argoproj.io/sync-wave: \"-1\"}}");
        [("a.yaml", first + &deployment("web", 1, "nginx:1", "100m"))]
    };
    let begun = happen(&cluster(1, Vec::new()), "r1", &waves("i:1"), None);
    assert_eq!(begun.list(Kind::Deployment).count(), 0);
    let ended = happen(&ends_well(&begun), "r1", &waves("i:1"), None);
    assert_eq!((ended.list(Kind::Job).count(), ended.list(Kind::Deployment).count()), (0, 1));
}

/// A bare pod that a ReplicaSet adopts and, having one already, lets go.
fn unwanted_pod() -> (Snapshot, [(&'static str, String); 1]) {
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
    let set = object(Kind::ReplicaSet, json!({"metadata": {"name": "x", "namespace": "web"}, "spec": spec}));
    let state = settle_within(cluster(1, vec![set]), &controllers(), start(), usize::MAX).state;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: x}}\nspec: {containers: [{name: c, image: \"i:1\"}]}\n";
    (state, [("p.yaml", pod.to_owned())])
}

#[test]
fn what_a_controller_deletes_again_is_foretold_and_no_loop() {
    let (state, files) = unwanted_pod();
    let foretold = foresee(&state, "r1", &files);
    assert!(foretold.unmet.iter().any(|line| line.starts_with("Pod web/p (p.yaml:1) is not there in the end")), "{foretold}");
    assert!(foretold.waits.iter().any(|line| line.contains("somebody else has deleted it 2 times in a row")), "{foretold}");
    assert_eq!(foretold.exit_code(), 1);
    // `happen` panics where the worker would not come to rest.
    let source = current(&happen(&state, "r1", &files, None));
    let ready = source.status.unwrap().conditions.into_iter().find(|it| it.type_ == "Ready").unwrap();
    assert!(ready.status == "False" && ready.message.contains("it is created again at 2026-01-01T00:00:01Z"), "{ready:?}");
}

/// Writes what it wants into ConfigMaps, whatever they say.
struct Operator;

impl Controller for Operator {
    fn name(&self) -> &'static str {
        "operator"
    }

    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        Some(object.key().clone()).filter(|key| key.kind == Kind::ConfigMap && key.namespace == "web").into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        let Some(before) = state.get(key) else { return Plan::default() };
        let after = before.edit(|it: &mut ConfigMap| it.data = Some([("conf".to_owned(), "theirs".to_owned())].into())).unwrap();
        let op = Op::Update { before: before.clone(), after: after.clone() };
        Plan { ops: Some(op).filter(|_| after != *before).into_iter().collect(), ..Plan::default() }
    }
}

#[test]
fn what_a_controller_changes_again_is_foretold_and_no_loop() {
    let (state, source) = (cluster(1, Vec::new()), super::tests::source());
    let look = super::tests::read(&source, "r1", &[("c.yaml", super::tests::config("c", "1"))]);
    let foretold = preview(&state, &source, &look, &[Arc::new(Operator) as Arc<dyn Controller>], start());
    let told =
        "a controller of Podbay's, a node or a webhook has changed data.conf 4 times in a row; it is put back at 2026-01-01T00:00:01Z";
    assert_eq!(foretold.waits, [format!("ConfigMap web/c: {told}")], "{foretold}");
    assert_eq!(foretold.unmet, ["ConfigMap web/c (c.yaml:1) is not as it says in the end: somebody else changes it again"]);
    assert_eq!(foretold.exit_code(), 1);
}

#[test]
fn a_pod_on_a_node_that_is_not_there_or_not_ready_is_pending() {
    let before = cluster(1, Vec::new());
    let before = before.get(&Key::cluster(Kind::Node, "n0")).cloned().map(|node| {
        let mut state = before.clone();
        state.insert(node.edit::<Node>(|it| it.status.get_or_insert_default().conditions = None).unwrap());
        state
    });
    let before = before.unwrap();
    let pod = |name: &str, node: &str| {
        let value = json!({"metadata": {"name": name, "namespace": "web"}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        Write::Create(object(Kind::Pod, value))
    };
    let after = write(&before, vec![pod("a", "minikube"), pod("b", "n0")]);
    let pods = pods::pods(&before, &after, &BTreeSet::new());
    assert!(pods.starts.is_empty(), "{pods:?}");
    let told: Vec<String> = pods.pending.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["web/a  on minikube: there is no node minikube: the pod is deleted again", "web/b  on n0: node n0 is not ready"]);
}

#[test]
fn pods_that_admission_refuses_are_pending_with_its_words() {
    let files = [("web.yaml", deployment("web", 2, "i:1", "100m"))];
    let base = happen(&cluster(1, Vec::new()), "r1", &files, None);
    // Past the rules for manifests: a set whose pods are refused.
    let set = base.list(Kind::ReplicaSet).next().unwrap();
    let blank = set.edit(|it: &mut k8s_openapi::api::apps::v1::ReplicaSet| {
        it.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("blank".to_owned()),
            namespace: Some("web".to_owned()),
            ..Default::default()
        };
        it.spec.template.as_mut().unwrap().spec.as_mut().unwrap().containers[0].image = Some(" x".to_owned());
    });
    let state = write(&base, vec![Write::Create(blank.unwrap())]);
    let foretold = foresee(&state, "r2", &files);
    let pending = &foretold.pods.pending;
    assert!(pending.len() == 1 && pending[0].count == 2 && pending[0].name == "web/blank-*", "{foretold}");
    assert!(pending[0].reason.as_ref().unwrap().contains("image"), "{foretold}");
}

#[test]
fn what_is_too_much_to_foretell_is_refused() {
    let state = cluster(0, Vec::new());
    let files = [("web.yaml", deployment("web", i32::MAX, "i:1", "100m"))];
    let source = current(&state);
    let look = super::tests::read(&source, "r1", &files);
    let bounds = Bounds { now: start(), made: 100, answers: &Answers::nobody() };
    let told = preview_within(&state, &source, &look, &controllers(), &bounds).expect("nobody is asked");
    assert!(told.refusals.iter().any(|line| line.contains("more than 100 objects")), "{told}");
    assert_eq!(told.exit_code(), 2);
    let whole = preview(&state, &source, &look, &controllers(), start());
    assert!(whole.waits.iter().any(|line| line.contains("2147482647 more are made as those get one")), "{whole}");
}
