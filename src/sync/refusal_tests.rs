//! What a commit is refused for: whole, in order, and at its place.

use serde_json::json;

use super::tests::{World, config};
use crate::model::{Kind, Object};
use crate::store::transaction::Write;

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector:\n    matchLabels: {a: b}\n  template:\n    metadata:\n      labels: {a: b, c: d}\n    spec: {containers: [{name: c, image: i}]}\n---\n";

fn namespace(more: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: web\n{more}---\n")
}

fn inside(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: {name}\n---\n")
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  type: NodePort\n  ports:\n  - port: 80\n{spec}---\n")
}

fn pod(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers: [{{name: c, image: i}}]\n{spec}---\n")
}

fn job(spec: &str, labels: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: j\nspec:\n{spec}  template:\n    metadata:\n      labels: {{{labels}}}\n    spec: {{restartPolicy: Never, containers: [{{name: c, image: i}}]}}\n---\n"
    )
}

/// What a source is told of a commit after another.
fn told(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
    let mut world = World::with("web");
    if !before.is_empty() {
        let status = world.put("web", "r1", before);
        assert_eq!(status.errors, [""; 0], "what it begins with");
    }
    let revision = world.state.revision();
    let status = world.put("web", "r2", after);
    assert!(status.accepted_revision.as_deref() != Some("r2"), "it is refused");
    assert!(world.state.revision() > revision, "which is told");
    status.errors
}

/// The one error of each commit after another.
fn each(rows: &[(&str, String, &str)]) {
    for (before, after, expected) in rows {
        let before = [("a.yaml", *before)];
        let errors = told(if before[0].1.is_empty() { &[] } else { &before }, &[("a.yaml", after)]);
        let [error] = &errors[..] else { panic!("{expected}: {errors:#?}") };
        let (start, end) = expected.split_once("SHOWN").unwrap_or((*expected, ""));
        assert!(error.starts_with(start) && error.ends_with(end) && (error == *expected || !end.is_empty()), "{error}\n{expected}");
    }
}

#[test]
fn every_refusal_is_told_at_its_field_with_what_would_help() {
    let rows: [(&str, String, &str); 7] = [
        ("", inside("defalt"), "a.yaml:5:3: namespaces \"defalt\" not found, did you mean `default`?"),
        ("", namespace("") + &inside("wed"), "a.yaml:10:3: namespaces \"wed\" not found, did you mean `web`?"),
        ("", inside("nosuch"), "a.yaml:5:3: namespaces \"nosuch\" not found, add a Namespace to the tree"),
        (
            "",
            namespace("  annotations: {argocd.argoproj.io/sync-wave: '2'}\n") + &inside("web"),
            "a.yaml:11:3: namespaces \"web\" not found, its Namespace comes in wave 2, after it",
        ),
        (
            "",
            service("s", "  clusterIP: 10.1.2.3\n"),
            "a.yaml:9:3: Service.spec.clusterIPs: Invalid value: [\"10.1.2.3\"]: failed to allocate IP 10.1.2.3: the provided IP (10.1.2.3) is not in the valid range. The range of valid IPs is 10.96.0.0/16, without `clusterIP` it gets a free one",
        ),
        (
            "",
            service("one", "  clusterIP: 10.96.0.9\n") + &service("two", "  clusterIP: 10.96.0.9\n"),
            "a.yaml:19:3: Service.spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated, Service default/one has it; without `clusterIP` it gets a free one",
        ),
        (
            "",
            service("one", "    nodePort: 30001\n") + &service("two", "    nodePort: 30001\n"),
            "a.yaml:19:5: Service.spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated, Service default/one has it; without `nodePort` it gets a free one",
        ),
    ];
    each(&rows);
}

#[test]
fn so_are_those_of_pods_and_of_what_cannot_change() {
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: robot\n---\n";
    let rows: [(&str, String, &str); 9] = [
        (
            "",
            account.to_owned() + &pod("  serviceAccountName: robott\n"),
            "a.yaml:12:3: Pod default/p is forbidden: error looking up service account default/robott: serviceaccount \"robott\" not found, did you mean `robot`?",
        ),
        (
            "",
            pod("  serviceAccountName: nobody\n"),
            "a.yaml:7:3: Pod default/p is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found, add a ServiceAccount to the tree",
        ),
        (
            "",
            pod("  runtimeClassName: heavy\n"),
            "a.yaml:7:3: Pod default/p is forbidden: pod rejected: RuntimeClass \"heavy\" not found, add a RuntimeClass to the tree",
        ),
        (
            "",
            job("  selector: {matchLabels: {controller-uid: x}}\n", "job-name: j, controller-uid: x, mine: z"),
            "a.yaml:6:3: Job.spec.selector: Invalid value: {\"matchLabels\":{\"controller-uid\":\"x\"}}: `selector` not auto-generated, a Job gets its own here: take out `spec.selector` and of `spec.template.metadata.labels` `controller-uid`, `job-name`",
        ),
        (
            "",
            job("", "batch.kubernetes.io/controller-uid: x"),
            "a.yaml:8:7: Job.spec.template.metadata.labels: Invalid value: SHOWN: `selector` does not match template `labels`, a Job gets its own here: take out of `spec.template.metadata.labels` `batch.kubernetes.io/controller-uid`",
        ),
        (
            DEPLOYMENT,
            DEPLOYMENT.replace("matchLabels: {a: b}", "matchLabels: {c: d}"),
            "a.yaml:6:3: Deployment.spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable, annotate it with podbay.dev/replace: \"true\" to have it deleted and created",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nimmutable: true\nstringData:\n  k: geheim\n",
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nimmutable: true\nstringData:\n  k: anders\n".to_owned(),
            "a.yaml:6:1: Secret.data: Forbidden: field is immutable when `immutable` is set, annotate it with podbay.dev/replace: \"true\" to have it deleted and created",
        ),
        (
            "",
            CONFIG.replace("name: a\n", "name: b\n  namespace: 'no'\n"),
            "a.yaml:5:3: namespaces \"no\" not found, add a Namespace to the tree",
        ),
        (
            "",
            "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n \"metadata\": {\"namespace\": \"nosuch\", \"name\": \"a\"}}".to_owned(),
            "a.yaml:2:15: namespaces \"nosuch\" not found, add a Namespace to the tree",
        ),
    ];
    each(&rows);
}

#[test]
fn what_is_refused_is_sorted_by_place_whatever_it_is() {
    let mut world = World::with("web");
    world.source("other", |_| {});
    world.put("other", "r1", &[("theirs.yaml", &config("shared", "1"))]);
    world.put("web", "r1", &[("c.yaml", DEPLOYMENT)]);
    let files = [
        ("c.yaml", DEPLOYMENT.replace("matchLabels: {a: b}", "matchLabels: {c: d}")),
        ("b.yaml", inside("nosuch") + &config("shared", "2").replace("metadata: {name", "metadata: { name")),
        ("a.yaml", inside("none") + &pod("  serviceAccountName: nobody\n")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let errors = world.put("web", "r2", &files).errors;
    let places: Vec<&str> = errors.iter().map(|error| error.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(places, ["a.yaml:5:3", "a.yaml:13:3", "b.yaml:5:3", "b.yaml:9:13", "c.yaml:6:3"], "{errors:#?}");
    assert!(errors[3].ends_with("ConfigMap default/shared is in two sources: b.yaml of web, and theirs.yaml of other"), "{errors:#?}");
}

#[test]
fn documents_that_read_well_are_admitted_beside_those_that_do_not() {
    let bad = config("bad", "1").replace("\ndata", "\ndatta");
    let files = [
        ("a.yaml", bad.clone() + &inside("nosuch") + &namespace("") + &inside("web")),
        ("b.yaml", DEPLOYMENT.replace("matchLabels: {a: b}", "matchLabels: {c: d}")),
        ("c.yaml", "kind: [\n---\n".to_owned() + &inside("none") + "---\nkind: {\n"),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let errors = told(&[("b.yaml", DEPLOYMENT)], &files);
    let short: Vec<&str> = errors.iter().map(|error| error.split(", ").next().unwrap_or_default()).collect();
    let expected = [
        "a.yaml:4:1: unknown field `datta` in ConfigMap",
        "a.yaml:10:3: namespaces \"nosuch\" not found",
        "b.yaml:6:3: Deployment.spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable",
        "c.yaml:7:3: namespaces \"none\" not found",
    ];
    let of_yaml = |line: &&str| line.starts_with("c.yaml:") && line.contains("not YAML");
    assert_eq!(short.iter().filter(|line| of_yaml(line)).count(), 2, "{errors:#?}");
    assert_eq!(short.into_iter().filter(|line| !of_yaml(line)).collect::<Vec<_>>(), expected, "{errors:#?}");
}

/// What a person would mend in vain: it goes by itself once the other is mended.
#[test]
fn what_only_follows_from_another_error_is_not_told() {
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\nspec:\n  group: example.com\n  scoped: Namespaced\n  names: {kind: Widget, plural: widgets}\n---\n";
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n---\n";
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: bot\n  labls: {}\n---\n";
    let rows: [(String, &[&str]); 5] = [
        // Its Namespace has a slip; is no YAML; has a bad name of a label; is in the same text as others.
        (namespace("  labls: {}\n") + &inside("web"), &["a.yaml:5:3: unknown field `labls`"]),
        (namespace("  labels: {a: [}\n") + &inside("web"), &["a.yaml:"]),
        (namespace("  labels: {-: a}\n") + &inside("web"), &["a.yaml:5:3: Namespace.metadata.labels"]),
        (
            namespace("  labls: {}\n") + &inside("web") + &inside("wed"),
            &["a.yaml:5:3: unknown", "a.yaml:17:3: namespaces \"wed\" not found"],
        ),
        (account.to_owned() + &pod("  serviceAccountName: bot\n"), &["a.yaml:5:3: unknown field `labls`"]),
    ];
    for (text, expected) in rows {
        let errors = told(&[], &[("a.yaml", &text)]);
        assert_eq!(errors.len(), expected.len(), "{text}{errors:#?}");
        assert!(errors.iter().zip(expected).all(|(error, start)| error.starts_with(start)), "{errors:#?}");
    }
    let errors = told(&[], &[("a.yaml", definition), ("b.yaml", widget)]);
    assert!(errors.iter().all(|error| error.starts_with("a.yaml:")), "the kind will be served: {errors:#?}");
    let slip = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\nspec:\n  group: example.com\n  scope: Namespaced\n  names: {kind: Widget, plural: widgets, shrtNames: [w]}\n  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]\n";
    let errors = told(&[], &[("a.yaml", widget), ("b.yaml", slip)]);
    assert!(matches!(&errors[..], [one] if one.starts_with("b.yaml:7:")), "{errors:#?}");
    // Whoever speaks of definitions defines nothing.
    let application = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: a}\nspec:\n  ignoreDifferences: [{group: apiextensions.k8s.io, kind: CustomResourceDefinition}]\n";
    let older = slip.replace("io/v1\n", "io/v1beta1\n");
    for text in [application, &older] {
        let errors = told(&[], &[("a.yaml", text)]);
        assert!(matches!(&errors[..], [one] if one.starts_with("a.yaml:")), "{errors:#?}");
    }
    let mut world = World::with("web");
    let text = namespace("  annotations: {argocd.argoproj.io/sync-wave: x}\n") + &inside("web");
    let errors = world.put("web", "r1", &[("a.yaml", &text)]).errors;
    assert_eq!(errors, ["a.yaml:5:17: annotation argocd.argoproj.io/sync-wave is not a whole number"]);
    assert!(!world.has(Kind::ConfigMap, "web", "a"));
}

/// While it is refused, the state goes on, and what is told with it; at rest nothing is written.
#[test]
fn what_is_told_of_a_tree_that_cannot_be_read_follows_the_state() {
    let mut world = World::with("web");
    let bad = config("bad", "1").replace("\ndata", "\ndatta") + &inside("later");
    assert_eq!(world.put("web", "r1", &[("a.yaml", &bad)]).errors.len(), 2);
    let rest = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), rest);
    let namespace = Object::from_value(Kind::Namespace, json!({"metadata": {"name": "later"}})).unwrap();
    world.write("admin", Write::Create(namespace));
    assert_eq!(world.again("web").errors.len(), 1);
    let mended = bad.replace("datta", "data");
    assert_eq!(world.put("web", "r2", &[("a.yaml", &mended)]).errors, [""; 0]);
    assert!(world.has(Kind::ConfigMap, "later", "a"));
}
