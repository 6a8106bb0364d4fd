//! What kubectl makes of answers that are a "no".

use std::sync::Arc;

use http::StatusCode;
use podbay::clock::SystemClock;
use podbay::server::{Identity, InProcessNode};
use serde_json::{Value, json};

use crate::rig::Rig;

const POD: &str = "/api/v1/namespaces/default/pods";

async fn says(rig: &Rig, line: &str) -> String {
    let output = rig.kubectl(line).await;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn pod(rig: &Rig) {
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "i"}]}});
    assert_eq!(rig.ask("POST", POD, pod).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_nobody_serves_has_details() {
    let rig = Rig::start().await;
    for (method, path) in [("GET", "/api/v1/nothings".to_owned()), ("PATCH", format!("{POD}/web/nothing"))] {
        let (status, answer) = rig.ask(method, &path, json!({})).await;
        assert_eq!((status, answer["details"].is_object()), (StatusCode::NOT_FOUND, true), "{path}: {answer}");
    }
    pod(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_nobody_serves_is_told_as_such() {
    let rig = Rig::start().await;
    let manifest = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {}});
    std::fs::write(rig.directory.path().join("db.json"), manifest.to_string()).unwrap();
    for verb in ["apply", "create"] {
        let text = says(&rig, &format!("{verb} -f db.json")).await;
        assert!(text.contains("no matches for kind \"StatefulSet\""), "{verb}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_side_and_server_side_apply_take_turns() {
    let rig = Rig::start().await;
    let write = |data: Value| {
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
        std::fs::write(rig.directory.path().join("m.json"), manifest.to_string()).unwrap();
    };
    write(json!({"a": "1"}));
    rig.kubectl_ok("apply -f m.json").await;
    write(json!({"a": "2", "b": "1"}));
    assert_eq!(rig.kubectl_ok("apply --server-side -f m.json").await, "configmap/m serverside-applied\n");
    write(json!({"a": "3"}));
    rig.kubectl_ok("apply -f m.json").await;
    let data = &rig.get("/api/v1/namespaces/default/configmaps/m").await["data"];
    assert_eq!(data, &json!({"a": "3"}), "what came by the server's way goes by the client's");
}

async fn with_a_pod_whose_node_answers(status: StatusCode, message: &'static str) -> Rig {
    let answer = move || async move { (status, format!("{message}\n")) };
    let api = axum::Router::new().fallback(axum::routing::any(answer));
    let rig = Rig::with_nodes(Arc::new(SystemClock), move |_| {
        let node = InProcessNode::new("n1", None);
        node.attach(api);
        Arc::new(node)
    })
    .await;
    pod(&rig).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_refusal_is_a_status() {
    let message = "previous terminated container \"main\" in pod \"web\" not found";
    let rig = with_a_pod_whose_node_answers(StatusCode::BAD_REQUEST, message).await;
    let (status, answer) = rig.ask("GET", &format!("{POD}/web/log?previous=true"), Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&answer["kind"], &answer["reason"], &answer["message"]), (&json!("Status"), &json!("BadRequest"), &json!(message)));
    assert_eq!(says(&rig, "logs web --previous").await.trim(), format!("Error from server (BadRequest): {message}"));
    let text = says(&rig, "exec web -- true").await;
    assert!(text.contains(message), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_waits_has_no_log_and_is_there() {
    let rig = with_a_pod_whose_node_answers(StatusCode::NOT_FOUND, "pod default/web is not on this node").await;
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let rows = [
        (Value::Null, "", "container \"main\" in pod \"web\" is not available"),
        (waiting("ContainerCreating"), "", "container \"main\" in pod \"web\" is waiting to start: ContainerCreating"),
        (waiting("ErrImagePull"), "", "container \"main\" in pod \"web\" is waiting to start: image can't be pulled"),
        (waiting("ImagePullBackOff"), "", "container \"main\" in pod \"web\" is waiting to start: trying and failing to pull image"),
        (json!({"waiting": {}}), "", "container \"main\" in pod \"web\" is waiting to start - no logs yet"),
        (json!({"terminated": {"exitCode": 1}}), "", "container \"main\" in pod \"web\" is terminated"),
        (waiting("ContainerCreating"), " --previous", "previous terminated container \"main\" in pod \"web\" not found"),
    ];
    for (state, flag, message) in rows {
        let status = json!([{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        let (code, answer) = rig.ask("PATCH", &format!("{POD}/web/status"), json!({"status": {"containerStatuses": status}})).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        assert_eq!(says(&rig, &format!("logs web{flag}")).await.trim(), format!("Error from server (BadRequest): {message}"));
    }
    assert_eq!(rig.ask("GET", &format!("{POD}/none/log"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_version_are_told_by_every_name() {
    let rig = Rig::start().await;
    let paths = rig.get("/").await["paths"].as_array().unwrap().clone();
    for path in ["/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/apis/metrics.k8s.io/v1beta1", "/healthz", "/openapi/v3", "/version"] {
        assert!(paths.contains(&json!(path)), "{path} {paths:?}");
    }
    for path in paths.iter().map(|path| path.as_str().unwrap()) {
        assert_ne!(rig.ask("GET", path, Value::Null).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(rig.get("/version/").await, rig.get("/version").await);
    assert_eq!(rig.ask_as(&Identity::new("jane", &[]), "GET", "/", "application/json", Value::Null).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what_is_told() {
    let rig = Rig::start().await;
    assert_eq!(rig.kubectl_ok("auth can-i delete pods").await.trim(), "yes");
    assert_eq!(rig.kubectl_ok("auth can-i get /metrics").await.trim(), "yes");
    assert!(rig.kubectl_ok("auth whoami").await.contains("podbay-admin"));
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ask = |attributes: Value| {
        let rig = &rig;
        async move {
            let review = json!({"spec": {"resourceAttributes": attributes}});
            let (status, answer) = rig.ask_as(&Identity::node("n1"), "POST", path, "application/json", review).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            answer["status"]["allowed"].as_bool().unwrap()
        }
    };
    assert!(ask(json!({"verb": "list", "resource": "services"})).await);
    assert!(ask(json!({"verb": "patch", "resource": "nodes", "subresource": "status", "name": "n1"})).await);
    for (verb, resource) in [("list", "secrets"), ("*", "*"), ("delete", "nodes"), ("create", "nothings")] {
        assert!(!ask(json!({"verb": verb, "resource": resource})).await, "{verb} {resource}");
    }
    assert_eq!(rig.ask("POST", path, json!({"spec": {}})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_can_be_dumped() {
    let rig = Rig::start().await;
    rig.kubectl_ok("create configmap c").await;
    pod(&rig).await;
    rig.kubectl_ok("cluster-info dump --all-namespaces --output-directory=dump").await;
    let dumped = |path: &str| {
        let text = std::fs::read_to_string(rig.directory.path().join("dump").join(path)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().map_or(0, Vec::len)
    };
    let counts = ["nodes.json", "default/pods.json", "default/replication-controllers.json", "default/daemonsets.json"].map(dumped);
    assert_eq!(counts, [1, 1, 0, 0]);
    // Who may not see them does not hear that there are none.
    let refused = says(&rig, "get --raw /apis/apps/v1/daemonsets --as jane").await;
    assert!(refused.contains("cannot list resource \"daemonsets\" in API group \"apps\" at the cluster scope"), "{refused}");
}

/// What `podbay kubeconfig` says of the rig's directory, and whether it failed.
async fn printed(rig: &Rig, more: &[&str]) -> (bool, String) {
    let mut podbay = std::process::Command::new(env!("CARGO_BIN_EXE_podbay"));
    podbay.arg("kubeconfig").args(more).env_remove("KUBECONFIG").env_remove("PODBAY_RUN_DIR").env("PODBAY_DATA_DIR", rig.directory.path());
    let output = tokio::task::spawn_blocking(move || podbay.output().unwrap()).await.unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_printed_kubeconfig_is_good_from_elsewhere() {
    let rig = Rig::start().await;
    let as_kubectl = rig.kubectl_ok("config view --raw").await.replace("preferences: {}\n", "");
    assert_eq!(printed(&rig, &[]).await, (true, as_kubectl.clone()));
    let config = rig.directory.path().join("podbay.toml");
    std::fs::write(&config, format!("data-dir = {:?}\n", rig.directory.path())).unwrap();
    assert_eq!(printed(&rig, &["--config", config.to_str().unwrap()]).await, (true, as_kubectl));
    // The certificate says nothing of this name: the one it has is in the file.
    let url = rig.url.replace("127.0.0.1", "localhost");
    let (_, text) = printed(&rig, &["--server", &format!("{url}/")]).await;
    std::fs::write(rig.directory.path().join("far"), &text).unwrap();
    assert_eq!(rig.kubectl_ok("--kubeconfig far config view -o jsonpath={.clusters[*].cluster.server}").await, url);
    assert!(rig.kubectl_ok("--kubeconfig far auth whoami").await.contains("podbay-admin"));
    for wrong in ["http://10.0.0.1:6443", "10.0.0.1:6443", "https://", "https://a@b", "https://a b"] {
        let (done, said) = printed(&rig, &["--server", wrong]).await;
        assert!(!done && said.contains("not of the form https://HOST:PORT"), "{wrong}: {said}");
    }
    std::fs::remove_file(rig.kubeconfig()).unwrap();
    let (done, said) = printed(&rig, &[]).await;
    assert!(!done && said.contains("no daemon on this host"), "{said}");
}
