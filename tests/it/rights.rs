//! Who may do what, as kubectl sees it: roles and bindings, reviews, acting as others, tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use podbay::clock::{Clock, SystemClock};
use podbay::model::{Key, Kind, Object};
use podbay::server::{ClusterSettings, Identity, Mint, bootstrap};
use podbay::store::{Precondition, Transaction, Write};
use podbay::{control, driver};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

async fn says(rig: &Rig, line: &str) -> String {
    let output = rig.kubectl(line).await;
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_gives_what_it_says_where_it_is_bound() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create namespace web").await;
    let refused = says(&rig, "get pods -n web --as jane").await;
    let wanted = "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"web\"";
    assert_eq!(refused.trim(), wanted);
    rig.kubectl_ok("create role reader -n web --verb=get,list,watch --resource=pods,pods/log").await;
    rig.kubectl_ok("create rolebinding jane -n web --role=reader --user=jane --serviceaccount=web:bot").await;
    assert!(says(&rig, "get pods -n web --as jane").await.contains("No resources found"));
    assert!(says(&rig, "get pods -n web --as system:serviceaccount:web:bot").await.contains("No resources found"));
    for line in ["get pods --as jane", "get pods -A --as jane", "get secrets -n web --as jane", "delete pod a -n web --as jane"] {
        assert!(says(&rig, line).await.contains("forbidden: User \"jane\" cannot"), "{line}");
    }
    let listed = rig.kubectl_ok("get rolebindings -n web -o wide").await;
    let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]);
    assert_eq!((words[1][0], words[1][1], words[1][3], words[1][4]), ("jane", "Role/reader", "jane", "web/bot"));
    assert!(rig.kubectl_ok("get roles -n web").await.starts_with("NAME     CREATED AT\n"));
    let moved = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "other"}});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/web/rolebindings/jane";
    let (status, answer) = rig.ask("PATCH", path, moved).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["message"].as_str().unwrap().ends_with(": cannot change roleRef"), "{answer}");
    rig.kubectl_ok("delete role reader -n web").await;
    let refused = says(&rig, "get pods -n web --as jane").await;
    assert!(refused.contains(": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_roles_are_refused_in_kubernetes_words() {
    let rig = Rig::start().await;
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let bad = json!({"metadata": {"name": "r"}, "rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "nonResourceURLs": ["/a"]}]});
    let (status, answer) = rig.ask("POST", &format!("{path}/roles"), bad).await;
    let causes: Vec<&str> = answer["details"]["causes"].as_array().unwrap().iter().filter_map(|it| it["message"].as_str()).collect();
    let wanted = [
        "Required value: verbs must contain at least one value",
        "Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
    ];
    assert_eq!((status, causes), (StatusCode::UNPROCESSABLE_ENTITY, wanted.to_vec()));
    let bad = json!({"metadata": {"name": "r"}, "subjects": [{"kind": "Robot", "name": "x"}], "roleRef": {"kind": "Pod", "name": "a/b"}});
    let (status, answer) = rig.ask("POST", &format!("{path}/rolebindings"), bad).await;
    assert_eq!((status, answer["details"]["causes"].as_array().unwrap().len()), (StatusCode::UNPROCESSABLE_ENTITY, 3), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_more_than_they_have() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create rolebinding boss --clusterrole=admin --user=jane").await;
    rig.kubectl_ok("create role reader --verb=get --resource=pods --as jane").await;
    rig.kubectl_ok("create rolebinding joe --role=reader --user=joe --as jane").await;
    rig.kubectl_ok("create rolebinding editor --clusterrole=edit --user=joe --as jane").await;
    for line in [
        "create role big --verb=get --resource=runtimeclasses.node.k8s.io --as jane",
        "create role any --verb=* --resource=pods --as jane",
        "create rolebinding all --clusterrole=cluster-admin --user=jane --as jane",
    ] {
        let refused = says(&rig, line).await;
        let granting = "user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:";
        assert!(refused.contains(granting), "{line}: {refused}");
    }
    let more = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/reader";
    let jane = Identity::new("jane", &[]);
    let (status, _) = rig.ask_as(&jane, "PATCH", path, "application/merge-patch+json", more).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let same = json!({"metadata": {"labels": {"a": "b"}}});
    let (status, _) = rig.ask_as(&jane, "PATCH", path, "application/merge-patch+json", same).await;
    assert_eq!(status, StatusCode::OK, "what grants nothing new is no granting");
    rig.kubectl_ok("create role binder --verb=bind --resource=clusterroles.rbac.authorization.k8s.io").await;
    rig.kubectl_ok("create rolebinding binder --role=binder --user=jane").await;
    rig.kubectl_ok("create rolebinding all --clusterrole=cluster-admin --user=kim --as jane").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_ask_what_they_may() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create clusterrolebinding viewers --clusterrole=view --group=dev").await;
    let can = |line: &'static str| {
        let rig = &rig;
        async move { says(rig, &format!("auth can-i {line} --as jane --as-group dev")).await.lines().next_back().unwrap_or_default().to_owned() }
    };
    for (line, wanted) in [
        ("list deployments.apps -A", "yes"),
        ("get pods/log --subresource=log", "yes"),
        ("get pods --subresource=log", "yes"),
        ("create pods", "no"),
        ("get secrets", "no"),
        ("get /version", "yes"),
        ("get /metrics", "no"),
    ] {
        assert_eq!(can(line).await, wanted, "{line}");
    }
    let list = rig.kubectl_ok("auth can-i --list --as jane --as-group dev").await;
    assert!(list.contains("selfsubjectreviews.authentication.k8s.io") && list.contains("deployments.apps"), "{list}");
    let who = rig.kubectl_ok("auth whoami --as jane --as-group dev --as-uid 7").await;
    assert!(who.contains("jane") && who.contains("[dev system:authenticated]") && who.contains('7'), "{who}");
    let (status, answer) = rig
        .ask(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            json!({"spec": {"user": "x", "groups": ["dev"], "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        )
        .await;
    assert_eq!((status, &answer["status"]), (StatusCode::CREATED, &json!({"allowed": true})));
    let path = "/apis/authorization.k8s.io/v1/namespaces/web/localsubjectaccessreviews";
    let ask =
        |namespace: &str| json!({"spec": {"user": "x", "resourceAttributes": {"namespace": namespace, "verb": "get", "resource": "pods"}}});
    assert_eq!(rig.ask("POST", path, ask("web")).await.1["status"]["allowed"], false);
    assert_eq!(rig.ask("POST", path, ask("other")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    // Reviews are among the resources, and kubectl makes one like any other object.
    let listed = rig.kubectl_ok("api-resources --api-group=authorization.k8s.io -o name").await;
    let reviews = ["localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"];
    assert_eq!(listed.lines().map(str::to_owned).collect::<Vec<_>>(), reviews.map(|name| format!("{name}.authorization.k8s.io")));
    let group = rig.get("/apis/authentication.k8s.io/v1").await;
    assert_eq!((&group["resources"][1]["name"], &group["resources"][1]["verbs"]), (&json!("tokenreviews"), &json!(["create"])), "{group}");
    let mut local = ask("web");
    (local["kind"], local["apiVersion"]) = (json!("LocalSubjectAccessReview"), json!("authorization.k8s.io/v1"));
    (local["metadata"], local["spec"]["groups"]) = (json!({"namespace": "web"}), json!(["dev"]));
    std::fs::write(rig.directory.path().join("review.json"), local.to_string()).unwrap();
    assert_eq!(rig.kubectl_ok("create -f review.json -o jsonpath={.status.allowed}").await, "true");
    // A node has what it is asked for looked at, as Kubernetes' kubelet does, and may ask whether it may.
    let node = Identity::node("n1");
    let review = json!({"spec": {"user": "x", "groups": ["dev"], "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    for (path, body) in [
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", review),
        ("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "nonsense"}})),
    ] {
        let (status, answer) = rig.ask_as(&node, "POST", path, "application/json", body).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {answer}");
    }
    let own = json!({"spec": {"resourceAttributes": {"verb": "create", "group": "authentication.k8s.io", "resource": "tokenreviews"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (who, may) in [(&node, true), (&Identity::new("jane", &["system:authenticated"]), false)] {
        let (_, answer) = rig.ask_as(who, "POST", path, "application/json", own.clone()).await;
        assert_eq!(answer["status"]["allowed"], may, "{answer}");
    }
    let admin = rig.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:kubelet-api-admin").await.to_string();
    assert!(admin.contains("nodes/proxy") && admin.contains("nodes/stats"), "{admin}");
    // Who may not act as others cannot, and reviews of others are not for everybody.
    let jane = Identity::new("jane", &["dev"]);
    let review = json!({"spec": {"user": "x", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let (status, _) = rig.ask_as(&jane, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json", review).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let request = http::Request::get("/api/v1/secrets").header("impersonate-user", "root").header("impersonate-group", "system:masters");
    let response = rig.send(&jane, request.body(String::new()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let request = http::Request::get("/api/v1/secrets").header("impersonate-group", "system:masters").body(String::new()).unwrap();
    assert_eq!(rig.send(&Identity::admin(), request).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reconciles_roles() {
    let rig = Rig::start().await;
    let role = |verbs: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "default"}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
    for verbs in [json!(["get"]), json!(["list"])] {
        std::fs::write(rig.directory.path().join("role.json"), role(verbs).to_string()).unwrap();
        rig.kubectl_ok("auth reconcile -f role.json").await;
    }
    let rules = rig.get("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/r").await["rules"].to_string();
    assert!(rules.contains("get") && rules.contains("list"), "{rules}");
}

fn settings() -> ClusterSettings {
    ClusterSettings { service_range: "10.96.0.0/16".parse().unwrap(), pod_range: "10.80.0.0/16".parse().unwrap(), node_prefix: 24 }
}

#[tokio::test(flavor = "multi_thread")]
async fn default_roles_are_kept_as_they_were() {
    let rig = Rig::start().await;
    let before = rig.store.snapshot().revision();
    bootstrap(rig.store.as_ref(), &settings()).await.unwrap();
    assert_eq!(rig.store.snapshot().revision(), before, "a second start writes nothing");
    let role = |name: &str| rig.store.snapshot().get(&Key::cluster(Kind::ClusterRole, name)).cloned().unwrap();
    let rules = |object: &Object| object.value()["rules"].clone();
    let edit = rules(&role("edit"));
    for part in ["pods/exec", "deployments", "configmaps", "endpointslices"] {
        assert!(edit.to_string().contains(part), "{part}: edit gathers its own and those of view");
    }
    let (discovery, basic) = (rules(&role("system:discovery")), rules(&role("system:basic-user")));
    let empty = |name: &str, update: &str| {
        let changed = role(name).edit(|role: &mut k8s_openapi::api::rbac::v1::ClusterRole| {
            role.rules = None;
            let annotations = role.metadata.annotations.get_or_insert_default();
            annotations.insert("rbac.authorization.kubernetes.io/autoupdate".to_owned(), update.to_owned());
        });
        Write::Update(changed.unwrap(), Precondition::exists())
    };
    let writes = vec![empty("system:discovery", "true"), empty("system:basic-user", "false")];
    rig.store.commit(Transaction { writes, ..Transaction::new("test") }).await.unwrap();
    bootstrap(rig.store.as_ref(), &settings()).await.unwrap();
    assert_eq!(rules(&role("system:discovery")), discovery);
    assert_ne!(rules(&role("system:basic-user")), basic, "not where that is not wanted");
}

/// kubectl with a token and nothing else.
pub async fn with_token(rig: &Rig, token: &str, line: &str) -> String {
    let authority = rig.directory.path().join("ca.pem");
    std::fs::write(&authority, rig.pki.authority().pem()).unwrap();
    let name = podbay::tls::SERVER_NAME;
    let flags = format!(
        "--kubeconfig=/dev/null --server={} --certificate-authority={} --tls-server-name={name} --token={token}",
        rig.url,
        authority.display()
    );
    says(rig, &format!("{line} {flags}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_account_until_what_it_is_bound_to_goes() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create serviceaccount bot").await;
    let token = rig.kubectl_ok("create token bot --duration=10m").await.trim().to_owned();
    let who = with_token(&rig, &token, "auth whoami").await;
    assert!(who.contains("system:serviceaccount:default:bot") && who.contains("system:serviceaccounts:default"), "{who}");
    let refused = with_token(&rig, &token, "get pods").await;
    assert!(refused.contains("User \"system:serviceaccount:default:bot\" cannot list resource \"pods\""), "{refused}");
    rig.kubectl_ok("create rolebinding bot --clusterrole=view --serviceaccount=default:bot").await;
    assert!(with_token(&rig, &token, "get pods").await.contains("No resources found"));
    assert!(with_token(&rig, &token, "get --raw /openid/v1/jwks").await.contains("P-256"));
    let broken = format!("{}x", &token[..token.len() - 1]);
    for wrong in ["nonsense", broken.as_str()] {
        let said = with_token(&rig, wrong, "get pods").await;
        assert!(said.contains("You must be logged in"), "{wrong}: {said}");
    }
    let elsewhere = rig.kubectl_ok("create token bot --audience=vault").await.trim().to_owned();
    assert!(with_token(&rig, &elsewhere, "get pods").await.contains("You must be logged in"));
    let review = |audiences: Value| json!({"spec": {"token": elsewhere, "audiences": audiences}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, answer) = rig.ask("POST", path, review(json!(["vault"]))).await;
    assert_eq!((&answer["status"]["authenticated"], &answer["status"]["audiences"]), (&json!(true), &json!(["vault"])), "{answer}");
    assert_eq!(rig.ask("POST", path, review(json!([]))).await.1["status"]["authenticated"], false);
    assert!(says(&rig, "create token bot --duration=1m").await.contains("may not specify a duration less than 10 minutes"));
    assert!(says(&rig, "create token nobody").await.contains("serviceaccounts \"nobody\" not found"));

    assert_eq!(rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.0, StatusCode::CREATED);
    let spec = json!({"serviceAccountName": "bot", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]});
    let (code, pod) = rig.ask("POST", "/api/v1/namespaces/default/pods", json!({"metadata": {"name": "p"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED);
    let bound = rig.kubectl_ok("create token bot --bound-object-kind=Pod --bound-object-name=p").await.trim().to_owned();
    let who: Value = serde_json::from_str(&with_token(&rig, &bound, "auth whoami -o json").await).unwrap();
    let account = rig.get("/api/v1/namespaces/default/serviceaccounts/bot").await["metadata"]["uid"].clone();
    let node = rig.get("/api/v1/nodes/n1").await["metadata"]["uid"].clone();
    let (who, pod) = (&who["status"]["userInfo"], &pod["metadata"]["uid"]);
    assert_eq!((who["username"].as_str(), &who["uid"]), (Some("system:serviceaccount:default:bot"), &account));
    for (name, value) in [("pod-name", &json!("p")), ("pod-uid", pod), ("node-name", &json!("n1")), ("node-uid", &node)] {
        assert_eq!(who["extra"][format!("authentication.kubernetes.io/{name}")], json!([value]), "{who}");
    }
    let credential = who["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap_or_default();
    assert!(credential.starts_with("JTI="), "{who}");
    let table = with_token(&rig, &bound, "auth whoami").await;
    assert!(table.contains("UID") && table.contains("Extra: authentication.kubernetes.io/node-name"), "{table}");
    rig.kubectl_ok("delete pod p --grace-period=0 --force").await;
    assert!(with_token(&rig, &bound, "get pods").await.contains("You must be logged in"), "the pod is gone");
    rig.kubectl_ok("delete serviceaccount bot").await;
    rig.kubectl_ok("create serviceaccount bot").await;
    assert!(with_token(&rig, &token, "get pods").await.contains("You must be logged in"), "an account made anew is another one");
}

/// Waits until an object is as wanted, by the store's own news.
async fn until(rig: &Rig, key: &Key, is_so: impl Fn(Option<&Object>) -> bool) {
    let mut watch = rig.store.watch(rig.store.snapshot().revision()).unwrap();
    let so = async {
        while !is_so(rig.store.snapshot().get(key)) {
            watch.next().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), so).await.unwrap_or_else(|_| panic!("{key} does not get there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_an_end_lives_as_long_as_its_secret_and_its_account() {
    let rig = Rig::start().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut controllers = control::all(control::Options::new(clock.now()));
    controllers.push(Arc::new(Mint(Arc::clone(&rig.pki))));
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    tokio::spawn(driver::run(Arc::clone(&rig.store), controllers, clock, end));
    let secret = Key::new(Kind::Secret, "default", "bot");
    let has_token = |object: Option<&Object>| object.is_some_and(|it| !it.value()["data"]["token"].is_null());
    let create = || async {
        let annotations = json!({"kubernetes.io/service-account.name": "bot"});
        let body = json!({"metadata": {"name": "bot", "annotations": annotations}, "type": "kubernetes.io/service-account-token"});
        assert_eq!(rig.ask("POST", "/api/v1/namespaces/default/secrets", body).await.0, StatusCode::CREATED);
    };
    let token = || async {
        until(&rig, &secret, has_token).await;
        rig.kubectl_ok("get secret bot -o go-template={{.data.token|base64decode}}").await
    };
    rig.kubectl_ok("create serviceaccount bot").await;
    rig.kubectl_ok("create rolebinding bot --clusterrole=view --serviceaccount=default:bot").await;
    create().await;
    let first = token().await;
    assert!(with_token(&rig, &first, "get pods").await.contains("No resources found"));
    assert!(with_token(&rig, &first, "auth whoami").await.contains("system:serviceaccount:default:bot"));
    let review = |audience: &str| json!({"spec": {"token": first, "audiences": [audience]}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(rig.ask("POST", path, review("vault")).await.1["status"]["authenticated"], false);

    // Without its token the Secret gets another, and the first one is good no more.
    let (status, _) = rig.ask("PATCH", "/api/v1/namespaces/default/secrets/bot", json!({"data": {"token": null}})).await;
    assert_eq!(status, StatusCode::OK);
    let second = token().await;
    assert_ne!(first, second);
    assert!(with_token(&rig, &first, "get pods").await.contains("You must be logged in"));
    assert!(with_token(&rig, &second, "get pods").await.contains("No resources found"));

    // A Secret made anew is another one; and the account takes its Secrets along.
    rig.kubectl_ok("delete secret bot").await;
    assert!(with_token(&rig, &second, "get pods").await.contains("You must be logged in"), "the Secret is gone");
    create().await;
    let third = token().await;
    rig.kubectl_ok("delete serviceaccount bot").await;
    assert!(with_token(&rig, &third, "get pods").await.contains("You must be logged in"), "the account is gone");
    until(&rig, &secret, |object| object.is_none()).await;
    create().await;
    until(&rig, &secret, |object| object.is_none()).await;
}

#[tokio::test]
async fn what_a_list_selects_is_part_of_what_is_asked() {
    let rig = Rig::start().await;
    // A node may list its own pods: what it selects by is what makes them so.
    let selected = json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]});
    for (selector, allowed) in [
        (selected, true),
        (json!({"rawSelector": "status.phase!=Failed,spec.nodeName==n1"}), true),
        (json!({"rawSelector": "spec.nodeName!=n1"}), false),
        (json!({"requirements": [{"key": "spec.nodeName", "operator": "NotIn", "values": ["n1"]}]}), false),
        (json!({"rawSelector": "spec.nodeName=n2"}), false),
        (Value::Null, false),
    ] {
        let attributes = json!({"verb": "list", "resource": "pods", "version": "v1", "fieldSelector": selector});
        let review = json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": attributes}});
        let answer = rig.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await.1;
        assert_eq!(answer["status"]["allowed"], allowed, "{selector}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_tokens_of_its_own_pods_only() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create serviceaccount bot").await;
    let vault = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "own"}}, {"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]);
    let mut uids = BTreeMap::new();
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        let spec = json!({"serviceAccountName": "bot", "nodeName": node, "volumes": vault, "containers": [{"name": "c", "image": "i"}]});
        let (status, made) = rig.ask("POST", "/api/v1/namespaces/default/pods", json!({"metadata": {"name": name}, "spec": spec})).await;
        assert_eq!(status, StatusCode::CREATED);
        uids.insert(name, made["metadata"]["uid"].clone());
    }
    let ask = |bound: Value, audiences: Value| {
        let rig = &rig;
        async move {
            let path = "/api/v1/namespaces/default/serviceaccounts/bot/token";
            let body = json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
            rig.ask_as(&Identity::node("n1"), "POST", path, "application/json", body).await.0
        }
    };
    let of = |name: &str, uid: &Value| json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
    let (mine, theirs) = (of("mine", &uids["mine"]), of("theirs", &uids["theirs"]));
    let rows = [
        (mine.clone(), json!([]), StatusCode::CREATED),
        (of("mine", &json!("other")), json!([]), StatusCode::CONFLICT),
        (of("mine", &Value::Null), json!([]), StatusCode::FORBIDDEN),
        (theirs, json!([]), StatusCode::FORBIDDEN),
        (of("none", &json!("other")), json!([]), StatusCode::NOT_FOUND),
        (Value::Null, json!([]), StatusCode::FORBIDDEN),
        // What its volumes hold, one at a time.
        (mine.clone(), json!(["vault"]), StatusCode::CREATED),
        (mine.clone(), json!(["elsewhere"]), StatusCode::FORBIDDEN),
        (mine, json!(["vault", "elsewhere"]), StatusCode::FORBIDDEN),
    ];
    for (bound, audiences, status) in rows {
        assert_eq!(ask(bound.clone(), audiences.clone()).await, status, "{bound} {audiences}");
    }
    let other = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (status, _) = rig.ask_as(&Identity::node("n1"), "POST", other, "application/json", json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}
