use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;

const NOTHING: Value = Value::Null;

/// A webhook with these fields over ones that match everything.
fn hook(fields: &Value) -> Hook {
    let mut whole = json!({"name": "a.hooks.example.com", "clientConfig": {}, "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Fail", "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"}]});
    json_patch::merge(&mut whole, fields);
    Hook { configuration: "all".to_owned(), webhook: serde_json::from_value(whole).expect("a webhook") }
}

fn rule(fields: &Value) -> Hook {
    let mut rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"});
    json_patch::merge(&mut rule, fields);
    hook(&json!({"rules": [rule]}))
}

fn subject(kind: Kind, subresource: &'static str) -> Subject<'static> {
    let namespace = if kind.info().namespaced { "web" } else { "" };
    Subject { operation: Operation::Create, kind, namespace, name: "x", subresource, sent: None, object: &NOTHING, old: &NOTHING }
}

fn state() -> Snapshot {
    let mut state = Snapshot::default();
    let web = json!({"metadata": {"name": "web", "labels": {"tier": "front"}}});
    state.insert(Object::from_value(Kind::Namespace, web).expect("a namespace"));
    let version = |name: &str, served: bool, storage: bool| {
        json!({"name": name, "served": served, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let definition = json!({"metadata": {"name": "parts.hooks.example.com"}, "spec": {"group": "hooks.example.com", "scope": "Namespaced",
        "names": {"plural": "parts", "kind": "Part"}, "versions": [version("v1", true, true), version("v2", true, false), version("v0", false, false)]},
        "status": {"acceptedNames": {"plural": "parts", "kind": "Part"}, "conditions": [
            {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]}});
    state.insert(Object::from_value(Kind::CustomResourceDefinition, definition).expect("a definition"));
    state
}

#[test]
fn rules_say_what_is_sent() {
    let (pod, log, node) = (subject(Kind::Pod, ""), subject(Kind::Pod, "exec"), subject(Kind::Node, ""));
    let (namespace, deployment) = (subject(Kind::Namespace, ""), subject(Kind::Deployment, ""));
    for (fields, subject, is_sent) in [
        (json!({}), &pod, true),
        // A `*` alone is no subresource.
        (json!({}), &log, false),
        (json!({"resources": ["pods/*"]}), &log, true),
        (json!({"resources": ["pods/*"]}), &pod, true),
        (json!({"resources": ["*/exec"]}), &log, true),
        (json!({"resources": ["*/exec"]}), &pod, false),
        (json!({"resources": ["*/*"]}), &log, true),
        (json!({"resources": ["pods/status"]}), &log, false),
        (json!({"resources": ["services", "pods"]}), &pod, true),
        (json!({"operations": ["UPDATE", "CREATE"]}), &pod, true),
        (json!({"operations": ["UPDATE"]}), &pod, false),
        (json!({"apiGroups": [""]}), &pod, true),
        (json!({"apiGroups": [""]}), &deployment, false),
        (json!({"apiGroups": ["apps"], "apiVersions": ["v1"]}), &deployment, true),
        (json!({"apiGroups": ["apps"], "apiVersions": ["v1beta1"]}), &deployment, false),
        (json!({"scope": "Namespaced"}), &pod, true),
        (json!({"scope": "Namespaced"}), &node, false),
        (json!({"scope": "Namespaced"}), &namespace, false),
        (json!({"scope": "Cluster"}), &namespace, true),
        (json!({"scope": "Cluster"}), &pod, false),
    ] {
        assert_eq!(asks(&rule(&fields), subject, &state()).is_some(), is_sent, "{fields} {subject:?}");
    }
    for kind in [Kind::MutatingWebhookConfiguration, Kind::ValidatingWebhookConfiguration] {
        assert_eq!(asks(&rule(&json!({})), &subject(kind, ""), &state()), None, "{kind}");
    }
}

#[test]
fn selectors_look_at_the_namespace_and_at_either_object() {
    let front = json!({"matchLabels": {"tier": "front"}});
    let back = json!({"matchLabels": {"tier": "back"}});
    let unlike = json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]});
    let labelled = json!({"metadata": {"labels": {"tier": "front"}}});
    let (bare, options) = (json!({"metadata": {}}), json!({"kind": "PodExecOptions"}));
    let pod = |object, old| Subject { object, old, ..subject(Kind::Pod, "") };
    let namespace = |object, old| Subject { object, old, ..subject(Kind::Namespace, "") };
    for (field, selector, subject, is_sent) in [
        ("namespaceSelector", &front, pod(&bare, &NOTHING), true),
        ("namespaceSelector", &back, pod(&bare, &NOTHING), false),
        ("namespaceSelector", &unlike, pod(&bare, &NOTHING), false),
        // In a namespace that is not there.
        ("namespaceSelector", &unlike, Subject { namespace: "else", ..pod(&bare, &NOTHING) }, true),
        ("namespaceSelector", &front, Subject { namespace: "else", ..pod(&bare, &NOTHING) }, false),
        // What is in no namespace is not kept out by one.
        ("namespaceSelector", &back, subject(Kind::Node, ""), true),
        ("namespaceSelector", &front, namespace(&labelled, &NOTHING), true),
        ("namespaceSelector", &front, namespace(&bare, &labelled), false),
        ("namespaceSelector", &front, namespace(&NOTHING, &labelled), true),
        ("objectSelector", &front, pod(&labelled, &bare), true),
        ("objectSelector", &front, pod(&bare, &labelled), true),
        ("objectSelector", &front, pod(&NOTHING, &labelled), true),
        ("objectSelector", &front, pod(&bare, &bare), false),
        ("objectSelector", &unlike, pod(&bare, &NOTHING), true),
        ("objectSelector", &unlike, pod(&options, &NOTHING), false),
        ("objectSelector", &json!({}), pod(&options, &NOTHING), true),
    ] {
        let got = asks(&hook(&json!({ field: selector })), &subject, &state()).is_some();
        assert_eq!(got, is_sent, "{field} {selector} {subject:?}");
    }
}

#[test]
fn another_version_is_as_good_unless_it_must_be_this_one() {
    let state = state();
    let kind = |version: &str| {
        state
            .definitions()
            .kind_of("hooks.example.com/v1", "Part")
            .map(|kind| state.definitions().get(kind).unwrap().version(version).unwrap().kind)
    };
    let v1 = subject(kind("v1").expect("a kind"), "");
    let versions = |versions: Value, policy: &str| {
        let mut hook = rule(&json!({"apiGroups": ["hooks.example.com"], "apiVersions": versions}));
        hook.webhook.match_policy = Some(policy.to_owned());
        asks(&hook, &v1, &state).map(|kind| kind.info().version)
    };
    assert_eq!(versions(json!(["v2"]), "Equivalent"), Some("v2"));
    assert_eq!(versions(json!(["v2", "v1"]), "Equivalent"), Some("v1"));
    assert_eq!(versions(json!(["v0"]), "Equivalent"), None, "it is not served");
    assert_eq!(versions(json!(["v2"]), "Exact"), None);
    assert_eq!(versions(json!(["v1"]), "Exact"), Some("v1"));
    let hook = rule(&json!({"apiVersions": ["v2"]}));
    let asker = Asker { user: &json!({"username": "jane"}), options: &NOTHING, dry_run: true };
    let request = request("u", &v1, asks(&hook, &v1, &state).unwrap(), &asker);
    assert_eq!(
        request,
        json!({"uid": "u", "operation": "CREATE", "name": "x", "namespace": "web", "dryRun": true, "options": null,
            "userInfo": {"username": "jane"},
            "kind": {"group": "hooks.example.com", "version": "v2", "kind": "Part"},
            "resource": {"group": "hooks.example.com", "version": "v2", "resource": "parts"},
            "requestKind": {"group": "hooks.example.com", "version": "v1", "kind": "Part"},
            "requestResource": {"group": "hooks.example.com", "version": "v1", "resource": "parts"}})
    );
}

#[test]
fn a_subresource_says_what_it_takes() {
    let scale = Subject { sent: Some(["autoscaling", "v1", "Scale"]), ..subject(Kind::Deployment, "scale") };
    let asker = Asker { user: &NOTHING, options: &NOTHING, dry_run: false };
    let request = request("u", &scale, Kind::Deployment, &asker);
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
    assert_eq!((&request["subResource"], &request["requestSubResource"]), (&json!("scale"), &json!("scale")));
    // A namespace is in itself.
    assert_eq!(super::request("u", &subject(Kind::Namespace, ""), Kind::Namespace, &asker)["namespace"], "x");
}

fn answered(changes: bool, response: &Value) -> Result<Answer, String> {
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    answer(&hook(&json!({})), "u", changes, review.to_string().as_bytes())
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn an_answer_is_one_to_the_question() {
    let patch = encoded(r#"[{"op":"add","path":"/a","value":1}]"#);
    let yes = answered(
        true,
        &json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["w"],
        "auditAnnotations": {"why": "so"}}),
    )
    .expect("an answer");
    assert_eq!(yes.patch.map(|patch| patch.len()), Some(1));
    assert_eq!((yes.refusal, yes.warnings), (None, vec!["w".to_owned()]));
    assert_eq!(yes.annotations, BTreeMap::from([("a.hooks.example.com/why".to_owned(), "so".to_owned())]));
    // Who only judges changes nothing.
    let judged = answered(false, &json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch})).expect("an answer");
    assert_eq!(judged.patch, None);
    assert!(answered(true, &json!({"uid": "u", "patchType": "JSONPatch", "patch": patch})).expect("a no").refusal.is_some());

    let invalid = "received invalid webhook response: ";
    for (response, why) in [
        (NOTHING, "webhook response was absent".to_owned()),
        (json!({"uid": "other", "allowed": true}), "expected response.uid=\"u\", got \"other\"".to_owned()),
        (json!({"uid": "u", "allowed": true, "patch": patch}), "webhook returned response.patch but not response.patchType".to_owned()),
        (
            json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}),
            "webhook returned response.patchType but not response.patch".to_owned(),
        ),
        (
            json!({"uid": "u", "allowed": true, "patchType": "Merge", "patch": patch}),
            "invalid value of response.patchType \"Merge\"".to_owned(),
        ),
    ] {
        assert_eq!(answered(true, &response).unwrap_err(), format!("{invalid}{why}"), "{response}");
    }
    for wrong in ["no base64!".to_owned(), encoded("{}")] {
        let response = json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": wrong});
        let why = answered(true, &response).unwrap_err();
        assert!(why.starts_with("received undecodable patch in webhook response: "), "{why}");
    }
    let many = encoded(&format!("[{}]", vec![r#"{"op":"remove","path":"/a"}"#; 10_001].join(",")));
    let why = answered(true, &json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": many})).unwrap_err();
    assert!(why.ends_with("more than 10000 operations"), "{why}");
    let of_beta = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u", "allowed": true}});
    let why = answer(&hook(&json!({})), "u", true, of_beta.to_string().as_bytes()).unwrap_err();
    assert!(why.ends_with(
        "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
    ));
    assert!(answer(&hook(&json!({})), "u", true, b"<html>").unwrap_err().starts_with("failed to call webhook: "));
}

#[test]
fn a_refusal_is_told_in_kubernetes_words() {
    let denied = "admission webhook \"x\" denied the request";
    for (status, code, reason, message) in [
        (NOTHING, 400, "", format!("{denied} without explanation")),
        (json!({"message": "no latest tags"}), 400, "", format!("{denied}: no latest tags")),
        (json!({"code": 403, "reason": "Forbidden"}), 403, "Forbidden", format!("{denied}: Forbidden")),
        (json!({"code": 418, "reason": "Tea", "message": "short and stout"}), 418, "Tea", format!("{denied}: short and stout")),
        (json!({"code": 200, "message": "fine"}), 400, "", format!("{denied}: fine")),
        (json!({"code": 70_000}), 400, "", format!("{denied} without explanation")),
    ] {
        assert_eq!(refusal("x", &status), (code, reason.to_owned(), message, NOTHING), "{status}");
    }
    assert_eq!(refusal("x", &json!({"details": {"causes": []}})).3, json!({"causes": []}));
}

/// Who is asked when these change the object: the numbers in order.
fn order(policies: &[&str], changing: &[&[usize]]) -> Vec<usize> {
    let hooks: Vec<Hook> = policies.iter().map(|policy| hook(&json!({ "reinvocationPolicy": policy }))).collect();
    let (mut rounds, mut asked) = (Rounds::default(), Vec::new());
    while let Some(at) = rounds.next(hooks.len()) {
        let times = asked.iter().filter(|it| **it == at).count();
        asked.push(at);
        rounds.answered(at, &hooks[at], changing.get(times).is_some_and(|changing| changing.contains(&at)));
    }
    asked
}

#[test]
fn who_wants_to_see_later_changes_is_asked_once_more() {
    let (never, needed) = ("Never", "IfNeeded");
    for (policies, changing, wanted) in [
        (vec![never, never], vec![[0].as_slice()], vec![0, 1]),
        (vec![needed, never], vec![&[]], vec![0, 1]),
        // Its own change is none that it has not seen.
        (vec![needed, never], vec![&[0]], vec![0, 1]),
        (vec![needed, never], vec![&[1]], vec![0, 1, 0]),
        (vec![never, needed], vec![&[1]], vec![0, 1]),
        (vec![needed, needed, never], vec![&[1]], vec![0, 1, 2, 0]),
        (vec![needed, needed, never], vec![&[2], &[0, 1]], vec![0, 1, 2, 0, 1]),
    ] {
        assert_eq!(order(&policies, &changing), wanted, "{policies:?} {changing:?}");
    }
}

#[test]
fn configurations_come_by_their_names() {
    let mut state = Snapshot::default();
    for (name, hooks) in [("b", ["1.b.example.com", "2.b.example.com"]), ("a", ["9.a.example.com", "0.a.example.com"])] {
        let webhooks: Vec<Value> = hooks
            .iter()
            .map(|hook| json!({"name": hook, "clientConfig": {}, "admissionReviewVersions": ["v1"], "sideEffects": "None"}))
            .collect();
        let value = json!({"metadata": {"name": name}, "webhooks": webhooks});
        state.insert(Object::from_value(Kind::ValidatingWebhookConfiguration, value).expect("a configuration"));
    }
    let found = hooks(&state, Kind::ValidatingWebhookConfiguration);
    let names: Vec<&str> = found.iter().map(Hook::name).collect();
    assert_eq!(names, ["9.a.example.com", "0.a.example.com", "1.b.example.com", "2.b.example.com"]);
    assert!(hooks(&state, Kind::MutatingWebhookConfiguration).is_empty());
}
