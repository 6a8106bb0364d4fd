//! Golden previews, and the promise: what a preview foretells is what then happens.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use proptest::prelude::*;

use super::matched::{Placed, matched};
use super::*;
use crate::model::custom::Definitions;
use crate::model::{PruneBudget, SourceSpec, pod};
use crate::simulate::saved;
use crate::simulate::tests::{cluster, controllers, start};
use crate::store::transaction::{Precondition, Transaction, Write};
use crate::sync::asked::{Answer, Question};
use crate::sync::source::Tree;

pub(super) fn source() -> Source {
    let spec = SourceSpec { directory: Some("/srv".to_owned()), namespace: Some("web".to_owned()), ..SourceSpec::default() };
    Source::new("shop", spec)
}

pub(super) fn read(source: &Source, revision: &str, files: &[(&str, String)]) -> Look {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.clone().into_bytes())).collect();
    let tree = Tree { revision: revision.to_owned(), files, path_exists: true, ..Tree::default() };
    Look::of(tree, &source.spec, &Definitions::default(), &mut Memory::default())
}

pub(super) fn current(state: &Snapshot) -> Source {
    state.get(&Key::cluster(Kind::Source, "shop")).and_then(|object| object.get::<Source>()).cloned().unwrap_or_else(source)
}

pub(super) fn foresee(state: &Snapshot, revision: &str, files: &[(&str, String)]) -> Preview {
    let source = current(state);
    preview(state, &source, &read(&source, revision, files), &controllers(), start())
}

/// What happens when the source's worker and everybody else go on by themselves.
pub(super) fn happen(state: &Snapshot, revision: &str, files: &[(&str, String)], approve: Option<&str>) -> Snapshot {
    let mut state = state.clone();
    if state.get(&Key::cluster(Kind::Source, "shop")).is_none() {
        commit(&mut state, &Transaction::new("admin").with(Write::Create(Object::new(source()))), "src");
    }
    if let Some(id) = approve {
        let object = state.get(&Key::cluster(Kind::Source, "shop")).unwrap().clone();
        let approved = object.edit_meta(|meta| drop(meta.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.to_owned())));
        commit(&mut state, &Transaction::new("admin").with(Write::Update(approved, Precondition::exists())), "src");
    }
    let look = read(&current(&state), revision, files);
    let mut memory = Memory::default();
    for round in 0..100 {
        let mut number = 0;
        let mut uid = || {
            number += 1;
            format!("real-{revision}-{round}-{number}")
        };
        let step = decide(&state, "shop", &look, None, &mut memory, &mut uid, start());
        let done = step.transaction.writes.is_empty();
        commit(&mut state, &step.transaction, &format!("other-{revision}-{round}"));
        memory.carried(&step.put_back, start());
        let settled = crate::simulate::settle::settle(state, &controllers(), start());
        assert!(!settled.stuck);
        state = settled.state;
        if done {
            return state;
        }
    }
    panic!("it never comes to rest");
}

pub(super) fn commit(state: &mut Snapshot, transaction: &Transaction, prefix: &str) {
    let mut number = 0;
    let mut uid = || {
        number += 1;
        format!("{prefix}-{number}")
    };
    *state = state.apply(transaction, state.revision() + 1, &mut Stamp { now: start(), uid: &mut uid }).unwrap().snapshot;
}

/// Who a pod belongs to in the end: the workload that a manifest names.
fn workload(state: &Snapshot, pod: &Object) -> Key {
    let mut next = pod.clone();
    while let Some(owner) = next.controller().cloned() {
        let key = Kind::known(&owner.api_version, &owner.kind).map(|kind| Key::new(kind, next.key().namespace.clone(), owner.name));
        match key.and_then(|key| state.get(&key)) {
            Some(object) => next = object.clone(),
            None => break,
        }
    }
    next.key().clone()
}

/// Starts and stops by workload.
fn by_workload(before: &Snapshot, after: &Snapshot) -> BTreeMap<(Key, &'static str), usize> {
    let mut all = BTreeMap::new();
    let placed = |pod: &Object| {
        pod.get::<k8s_openapi::api::core::v1::Pod>().is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()))
    };
    let same = |state: &Snapshot, pod: &Object| state.get(pod.key()).is_some_and(|other| other.uid() == pod.uid() && !other.is_deleting());
    // A pod that waited for room and gets it starts, too.
    let waited = |pod: &Object| placed(pod) && before.get(pod.key()).is_some_and(|before| !placed(before));
    for pod in after.list(Kind::Pod).filter(|pod| !pod.is_deleting() && (!same(before, pod) || waited(pod))) {
        *all.entry((workload(after, pod), if placed(pod) { "start" } else { "pending" })).or_default() += 1;
    }
    for pod in before.list(Kind::Pod).filter(|pod| !same(after, pod) && placed(pod)) {
        *all.entry((workload(before, pod), "stop")).or_default() += 1;
    }
    all
}

/// Each pod with its node, or with the reason why it has none: those that start, those that stop, those that wait.
fn each_pod(before: &Snapshot, after: &Snapshot) -> [Placed; 3] {
    type Pod = k8s_openapi::api::core::v1::Pod;
    let node = |object: &Object| pod::node_name(object.get::<Pod>()?).map(str::to_owned);
    let same = |state: &Snapshot, pod: &Object| state.get(pod.key()).filter(|other| other.uid() == pod.uid()).cloned();
    let named = |object: &Object, place: String| (format!("{}/{}", object.key().namespace, object.key().name), place);
    let why = |object: &Object| pod::condition(object.get::<Pod>()?, "PodScheduled")?.message.clone();
    let new = after.list(Kind::Pod).filter(|pod| same(before, pod).as_ref().and_then(node).is_none());
    let gone = before.list(Kind::Pod).filter(|pod| same(after, pod).is_none());
    let waiting = after.list(Kind::Pod).filter(|pod| node(pod).is_none());
    [
        new.filter_map(|pod| Some(named(pod, node(pod)?))).collect(),
        gone.filter_map(|pod| Some(named(pod, node(pod)?))).collect(),
        waiting.map(|pod| named(pod, why(pod).unwrap_or_default())).collect(),
    ]
}

/// Everything that a manifest or a person says, and what it says.
fn everything_said(state: &Snapshot) -> BTreeMap<Key, serde_json::Value> {
    let made = [Kind::Pod, Kind::ReplicaSet, Kind::EndpointSlice, Kind::Event, Kind::Source];
    let said = |object: &Object| {
        let mut value = crate::sync::identity::said(object);
        // A Job's labels and selector carry its UID.
        if object.kind() == Kind::Job {
            value["spec"]["selector"].take();
            value["spec"]["template"]["metadata"].take();
        }
        value
    };
    state.iter().filter(|object| !made.contains(&object.kind())).map(|object| (object.key().clone(), said(object))).collect()
}

pub(super) fn deployment(name: &str, replicas: i32, image: &str, cpu: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      - {{name: c, image: \"{image}\", env: [{{name: A, value: \"1\"}}], resources: {{requests: {{cpu: {cpu}}}}}}}\n---\n"
    )
}

pub(super) fn config(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  conf: |\n    one\n    two\n    {value}\n    four\n    five\n---\n"
    )
}

fn secret(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: keys, annotations: {{kubectl.kubernetes.io/last-applied-configuration: \"{value}\"}}}}\nstringData: {{password: {value}}}\n---\n"
    )
}

pub(super) fn job(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}{extra}}}\nspec:\n  template:\n    spec: {{restartPolicy: Never, containers: [{{name: c, image: \"i:1\"}}]}}\n---\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\n";

#[test]
fn a_first_commit() {
    let files = [
        ("app/web.yaml", deployment("web", 3, "nginx:1", "100m") + SERVICE),
        ("app/conf.yaml", config("conf", "three") + &secret("hunter2")),
    ];
    let preview = foresee(&cluster(2, Vec::new()), "0123456789abcdef0123456789abcdef01234567", &files);
    insta::assert_snapshot!(preview.to_string());
    assert_eq!(preview.exit_code(), 1);
}

#[test]
fn a_rollout_a_prune_and_a_secret() {
    let files = [
        ("web.yaml", deployment("web", 2, "nginx:1", "100m")),
        ("conf.yaml", config("conf", "three") + &secret("hunter2")),
        ("old.yaml", job("old", "")),
    ];
    let base = happen(&cluster(2, Vec::new()), "r1", &files, None);
    let files = [("web.yaml", deployment("web", 3, "nginx:2", "100m")), ("conf.yaml", config("conf", "3") + &secret("hunter3"))];
    let preview = foresee(&base, "r2", &files);
    insta::assert_snapshot!(preview.to_string());
    assert!(!serde_json::to_string(&preview).unwrap().contains("hunter"));
    // Once it has happened there is nothing to foresee.
    let after = happen(&base, "r2", &files, None);
    let again = foresee(&after, "r2", &files);
    insta::assert_snapshot!(again.to_string());
    assert_eq!(again.exit_code(), 0);
}

#[test]
fn a_key_renamed_in_string_data_is_seen_to_go() {
    let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", secret("hunter2") + &config("c", "1"))], None);
    let renamed = secret("hunter2").replace("stringData: {password:", "stringData: {token:") + &config("c", "1");
    let preview = foresee(&base, "r2", &[("a.yaml", renamed)]);
    let text = preview.to_string();
    assert!(text.contains("- data.password: (sensitive)") && text.contains("+ data.token: (sensitive)"), "{text}");
    assert!(!text.contains("hunter") && !text.contains("aHVu"), "{text}");
}

/// It has two names, of which git says one.
#[test]
fn an_account_that_git_no_longer_names_is_seen_to_go() {
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: sa}\n---\n";
    let with = deployment("web", 1, "nginx:1", "100m")
        .replace("    spec:\n      containers", "    spec:\n      serviceAccountName: sa\n      containers");
    let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", account.to_owned() + &with + &config("c", "1"))], None);
    let files = [("a.yaml", deployment("web", 1, "nginx:1", "100m") + &config("c", "1"))];
    let told = foresee(&base, "r2", &files);
    let text = told.to_string();
    assert!(text.contains("- spec.template.spec.serviceAccountName: sa"), "{text}");
    assert!(told.pods.pending.is_empty() && told.unmet.is_empty(), "{text}");
    let after = happen(&base, "r2", &files, Some(&told.plan_id));
    let accounts: Vec<_> = after.list(Kind::Pod).map(|pod| pod.value()["spec"]["serviceAccountName"].clone()).collect();
    assert_eq!(accounts, ["default"], "{text}");
    assert_eq!(foresee(&after, "r2", &files).exit_code(), 0);
}

#[test]
fn what_does_not_fit_stays_pending() {
    let preview = foresee(&cluster(1, Vec::new()), "r1", &[("web.yaml", deployment("web", 3, "nginx:1", "2"))]);
    insta::assert_snapshot!(preview.to_string());
}

#[test]
fn a_change_that_cannot_be_made_in_place() {
    let base = happen(&cluster(1, Vec::new()), "r1", &[("job.yaml", job("once", "") + &config("conf", "1"))], None);
    let changed = |extra: &str| job("once", extra).replace("i:1", "i:2") + &config("conf", "1");
    let refused = foresee(&base, "r2", &[("job.yaml", changed(""))]);
    insta::assert_snapshot!("immutable_refused", refused.to_string());
    assert_eq!(refused.exit_code(), 2);
    let replaced = foresee(&base, "r2", &[("job.yaml", changed(", annotations: {podbay.dev/replace: \"true\"}"))]);
    insta::assert_snapshot!("immutable_replaced", replaced.to_string());
}

#[test]
fn a_deletion_that_needs_approval() {
    let many = |count: usize| (0..count).map(|index| config(&format!("c{index:02}"), "x")).collect::<String>();
    let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", many(12))], None);
    let preview = foresee(&base, "r2", &[("a.yaml", many(5))]);
    insta::assert_snapshot!(preview.to_string());
    let after = happen(&base, "r2", &[("a.yaml", many(5))], Some(&preview.plan_id));
    assert_eq!(foresee(&after, "r2", &[("a.yaml", many(5))]).exit_code(), 0);
}

/// As `podbay snapshot` saves a cluster.
fn without_values(state: &Snapshot) -> Snapshot {
    let mut copy = state.clone();
    for secret in state.list(Kind::Secret) {
        let blank = secret.edit::<Secret>(|secret| {
            secret.data.iter_mut().flatten().for_each(|(_, value)| value.0.clear());
            secret.metadata.annotations.iter_mut().for_each(|all| drop(all.remove("kubectl.kubernetes.io/last-applied-configuration")));
        });
        copy.insert(blank.unwrap());
    }
    copy
}

/// What a snapshot file does not say is no change, and is said to be unknown.
#[test]
fn on_a_snapshot_file_an_unchanged_tree_changes_nothing() {
    let files = [("conf.yaml", config("conf", "three") + &secret("hunter2"))];
    let mut base = without_values(&happen(&cluster(1, Vec::new()), "r1", &files, None));
    let offline = |base: &mut Snapshot, files: &[(&str, String)]| {
        let source = current(base);
        let look = read(&source, "r1", files);
        let Look::Read(revision) = &look else { panic!("it reads well") };
        let unknown = saved::assume_values(base, &revision.rendered);
        Preview { unknown, ..preview(base, &source, &look, &controllers(), start()) }
    };
    let same = offline(&mut base.clone(), &files);
    assert_eq!((same.exit_code(), same.objects.len()), (0, 0), "{same}");
    assert_eq!(same.unknown, ["Secret web/keys: the snapshot file has no Secret values, they were not compared"]);
    assert!(same.to_string().contains("Not known:\n  Secret web/keys") && !same.to_string().contains("hunter"), "{same}");
    // A key more is a change that can be seen.
    let more = secret("hunter2").replace("{password:", "{user: me, password:");
    let more = offline(&mut base, &[("conf.yaml", config("conf", "three") + &more)]);
    assert_eq!((more.exit_code(), more.objects.len()), (1, 1), "{more}");
    assert!(more.to_string().contains("data.user: (sensitive)") && !more.to_string().contains("password"), "{more}");
}

/// kubectl's exit codes of a diff, whatever the form of the output.
#[test]
fn exit_codes_are_those_of_a_diff() {
    let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", config("a", "1") + &config("b", "1"))], None);
    let rows = [
        (config("a", "1") + &config("b", "1"), 0, ""),
        (config("a", "2") + &config("b", "1"), 1, ""),
        (config("a", "1"), 1, ""),
        // Waits for approval: there is a change to approve.
        (String::new(), 1, "approvals"),
        (config("a", "1").replace("data:", "datta:"), 2, "errors"),
        (
            config("a", "1") + &config("b", "1") + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nowhere}\n",
            2,
            "refusals",
        ),
    ];
    for (text, code, field) in rows {
        let preview = foresee(&base, "r2", &[("a.yaml", text.clone())]);
        let json = serde_json::to_value(&preview).unwrap();
        assert_eq!(preview.exit_code(), code, "{text}: {preview}");
        for one in ["approvals", "errors", "refusals"] {
            assert_eq!(json[one].is_array(), one == field, "{text}: {json:#}");
        }
    }
}

/// The form that programs read: a field that goes or changes its name breaks them.
#[test]
fn the_json_of_a_preview() {
    let files = [("web.yaml", deployment("web", 2, "nginx:1", "100m")), ("old.yaml", config("old", "x"))];
    let base = happen(&cluster(1, Vec::new()), "r1", &files, None);
    let preview = foresee(&base, "r2", &[("web.yaml", deployment("web", 3, "nginx:1", "100m"))]);
    let json = serde_json::to_value(&preview).unwrap();
    assert_eq!((&json["source"], &json["revision"]), (&"shop".into(), &"r2".into()));
    assert_eq!(json["planId"].as_str().unwrap().len(), 64);
    assert_eq!(json["sum"], "0 to create, 1 to update, 1 to delete, 0 unchanged; 1 pod starts, 0 pods stop");
    let counts = serde_json::json!({"create": 0, "update": 1, "replace": 0, "delete": 1, "taken": 0, "unchanged": 0});
    assert_eq!(json["counts"], counts);
    let update = &json["objects"][0];
    assert_eq!(
        (&update["mark"], &update["kind"], &update["namespace"], &update["name"], &update["file"]),
        (&"~".into(), &"Deployment".into(), &"web".into(), &"web".into(), &"web.yaml".into())
    );
    assert_eq!(update["fields"], serde_json::json!([{"mark": "~", "path": "spec.replicas", "before": "2", "after": "3"}]));
    assert_eq!((&json["objects"][1]["mark"], &json["objects"][1]["name"]), (&"-".into(), &"old".into()));
    assert_eq!(json["pods"]["starts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_broken_commit() {
    let broken = deployment("web", 3, "nginx:1", "100m").replace("replicas:", "replica:");
    let preview = foresee(&cluster(1, Vec::new()), "r1", &[("web.yaml", broken)]);
    insta::assert_snapshot!(preview.to_string());
    assert_eq!(preview.exit_code(), 2);
}

#[test]
fn nothing_in_a_manifest_moves_the_cursor() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: \"a\\u001b[2Jb\\u202ec\", \"long\": \"x\\n\\u001b]0;title\\u0007\\n\"}\n";
    let preview = foresee(&cluster(1, Vec::new()), "r1", &[("a.yaml", text.to_owned())]);
    for shown in [preview.to_string(), serde_json::to_string(&preview).unwrap()] {
        assert!(!shown.chars().any(|letter| (letter.is_control() && letter != '\n') || letter == '\u{202e}'), "{shown:?}");
    }
    let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", text.to_owned())], None);
    let changed = foresee(&base, "r2", &[("a.yaml", text.replace("title", "other"))]).to_string();
    assert!(changed.contains("\\u{1b}]0;other") && !changed.contains('\u{1b}'), "{changed}");
}

#[test]
fn json_and_back_is_the_same_preview() {
    let files = [("web.yaml", deployment("web", 3, "nginx:1", "2") + &secret("x")), ("conf.yaml", config("conf", "three"))];
    let preview = foresee(&cluster(2, Vec::new()), "r1", &files);
    let json = serde_json::to_value(&preview).unwrap();
    assert_eq!(serde_json::from_value::<Preview>(json).unwrap(), preview);
}

/// The first wave makes the namespace, and with it comes an account that the second then finds to be somebody else's.
#[test]
fn what_stands_in_the_way_of_a_later_wave_is_foretold() {
    let in_wave = |kind: &str, name: &str, wave: i32| {
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{{name}, annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}}}\n---\n")
    };
    let files = [("a.yaml", in_wave("Namespace", "name: shop", 0) + &in_wave("ServiceAccount", "name: default, namespace: shop", 1))];
    let state = cluster(1, Vec::new());
    let told = foresee(&state, "r1", &files);
    assert_eq!(told.exit_code(), 1, "{told}");
    assert_eq!(told.unmet.len(), 1, "{told}");
    assert!(told.unmet[0].starts_with("a.yaml:7:12: ServiceAccount shop/default exists and Podbay did not create it"), "{told}");
    let source = current(&happen(&state, "r1", &files, None));
    assert_eq!(source.status.unwrap().errors, told.unmet);
}

#[test]
fn a_previewed_path_needs_no_source_object() {
    let state = cluster(1, Vec::new());
    assert!(state.get(&Key::cluster(Kind::Source, "shop")).is_none());
    assert_eq!(foresee(&state, "r1", &[("a.yaml", config("a", "1"))]).counts.create, 1);
    let foreign = current(&happen(&state, "r1", &[("a.yaml", config("a", "1"))], None));
    assert!(foreign.status.unwrap().inventory.iter().all(|entry| entry.created));
}

/// One commit: workloads by name with replicas, image and size, and the rest.
#[derive(Clone, Debug)]
struct Commit {
    deployments: BTreeMap<u8, (i32, u8, u8)>,
    configs: BTreeMap<u8, u8>,
    jobs: BTreeMap<u8, u8>,
    namespace: bool,
    /// Whether there is something in the namespace, be it there or not.
    inside: bool,
    waves: bool,
}

fn a_commit() -> impl Strategy<Value = Commit> {
    let deployments = prop::collection::btree_map(0..4_u8, (0..4_i32, 0..3_u8, 0..3_u8), 0..4);
    let configs = prop::collection::btree_map(0..5_u8, 0..3_u8, 0..5);
    let jobs = prop::collection::btree_map(0..2_u8, 0..2_u8, 0..2);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (deployments, configs, jobs, flags).prop_map(|(deployments, configs, jobs, (namespace, inside, waves))| Commit {
        deployments,
        configs,
        jobs,
        namespace,
        inside,
        waves,
    })
}

impl Commit {
    fn files(&self) -> Vec<(&'static str, String)> {
        let mut text = String::new();
        for (name, (replicas, image, size)) in &self.deployments {
            let cpu = ["100m", "1500m", "3"][usize::from(*size)];
            let one = deployment(&format!("d{name}"), *replicas, &format!("i:{image}"), cpu);
            let annotated = format!("{{name: d{name}, annotations: {{argocd.argoproj.io/sync-wave: \"{name}\"}}}}");
            text += &if self.waves { one.replacen(&format!("{{name: d{name}}}"), &annotated, 1) } else { one };
        }
        for (name, value) in &self.configs {
            text += &config(&format!("c{name}"), &value.to_string());
        }
        for (name, version) in &self.jobs {
            text += &job(&format!("j{name}"), ", annotations: {podbay.dev/replace: \"true\"}").replace("i:1", &format!("i:{version}"));
        }
        let mut files = vec![("a.yaml", text)];
        if self.namespace {
            files.push(("shop.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned()));
        }
        if self.inside {
            let inside = deployment("in", 2, "i:1", "100m").replace("{name: in}", "{name: in, namespace: shop}");
            files.push(("inside.yaml", inside));
        }
        files
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_is_foretold_is_what_happens(commits in prop::collection::vec(a_commit(), 1..5)) {
        let mut state = cluster(2, Vec::new());
        for (index, commit) in commits.iter().enumerate() {
            let (revision, files) = (format!("r{index}"), commit.files());
            let mut source = current(&state);
            if index % 2 == 1 {
                source.spec.budget = Some(PruneBudget { objects: Some(1000), percent: None });
            }
            let look = read(&source, &revision, &files);
            let Look::Read(read) = &look else { panic!("{commit:?}") };
            let base = with_source(&state, &source);
            let nobody = Answers::nobody();
            let bounds = |made| Bounds { now: start(), made, answers: &nobody };
            let plan = plan_of(&base, &source, read, &bounds(0));
            let told = preview(&state, &source, &look, &controllers(), start());
            let foretold = foretell(&base, "shop", &look, &plan, &controllers(), &bounds(usize::MAX)).expect("nobody is asked").state;
            let happened = happen(&state, &revision, &files, Some(&told.plan_id));
            // What lives in a namespace that the commit does not have is refused, whether the namespace is there or not.
            prop_assert_eq!(told.is_refused(), commit.inside && !commit.namespace, "{}", told);
            prop_assert!(told.unmet.is_empty(), "{}", told);
            prop_assert_eq!(everything_said(&foretold), everything_said(&happened));
            prop_assert_eq!(by_workload(&state, &foretold), by_workload(&state, &happened));
            let numbers = |pods: &[PodPreview]| pods.iter().map(|pod| pod.count).sum::<usize>();
            let count = |word: &str| by_workload(&state, &happened).iter().filter(|((_, what), _)| *what == word).map(|(_, count)| count).sum::<usize>();
            prop_assert_eq!((numbers(&told.pods.starts), numbers(&told.pods.stops)), (count("start"), count("stop")));
            let [starts, stops, waiting] = each_pod(&state, &happened);
            let mut wrong = matched("starts", &told.pods.starts, &starts);
            wrong.extend(matched("stops", &told.pods.stops, &stops));
            wrong.extend(matched("is pending", &told.pods.pending, &waiting));
            prop_assert!(wrong.is_empty(), "{told}\n{}", wrong.join("\n"));
            // Planning again after it has happened gives nothing.
            prop_assert!(plan_of(&happened, &current(&happened), read, &bounds(0)).step().is_empty());
            state = happened;
        }
    }
}

/// What webhooks answer enters the preview, and the questions come until all is known of it.
#[test]
fn webhooks_have_their_say_in_a_preview() {
    let mut state = cluster(1, Vec::new());
    let rules = serde_json::json!([{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]);
    let hook = serde_json::json!({"name": "it.hooks.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1"}, "rules": rules});
    let configuration = serde_json::json!({"metadata": {"name": "it"}, "webhooks": [hook]});
    let configuration = Object::from_value(Kind::MutatingWebhookConfiguration, configuration).unwrap();
    commit(&mut state, &Transaction::new("admin").with(Write::Create(configuration)), "hook");
    // One waits for the other, and each is asked about: once as new, and once as what git says of it when it is there.
    let late =
        deployment("late", 1, "i:1", "100m").replace("{name: late}", "{name: late, annotations: {argocd.argoproj.io/sync-wave: \"1\"}}");
    let (source, files) = (current(&state), [("web.yaml", deployment("web", 1, "i:1", "100m") + &late)]);
    let look = read(&source, "r1", &files);
    assert_eq!(unasked(&state, &source, &look, start()), ["it.hooks.example.com"]);
    let twice = |question: &Question| {
        let mut value = crate::admit::defaulted(question.object.as_ref().expect("nothing goes")).value();
        let is_done = value["spec"]["replicas"] == 2;
        value["spec"]["replicas"] = 2.into();
        if is_done { Answer::Passed } else { Answer::Changed(Object::from_value(Kind::Deployment, value).unwrap()) }
    };
    let (mut answers, mut asked) = (Answers::default(), Vec::new());
    let told = loop {
        match asked_preview(&state, &source, &look, &controllers(), start(), &answers) {
            Ok(told) => break told,
            Err(questions) => {
                answers.take(&questions, questions.all.iter().map(|it| twice(it).into()).collect());
                asked.extend(questions.all.iter().map(|it| format!("{} {}", it.operation.word(), it.key().name)));
            }
        }
        assert!(asked.len() < 20, "it goes on asking: {asked:?}");
    };
    asked.sort();
    assert_eq!(asked, ["CREATE late", "CREATE web", "UPDATE late", "UPDATE web"]);
    assert_eq!(told.pods.starts.iter().map(|pod| pod.count).sum::<usize>(), 4, "{told}");
    let paths: Vec<&str> = told.objects[0].fields.iter().map(|field| field.path.as_str()).collect();
    assert!(paths.contains(&"spec.replicas") && !paths.iter().any(|path| path.contains("revisionHistoryLimit")), "{told}");
    assert!(told.unmet.is_empty() && told.waits.is_empty(), "{told}");
}
