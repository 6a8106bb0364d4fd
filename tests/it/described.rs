//! The API tried by its own description: schemathesis makes requests from the OpenAPI documents, and none may end in a 5xx.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use podbay::model::Kind;
use serde_json::{Map, Value, json};

use crate::rig::Rig;

/// Requests made up for each operation.
const EXAMPLES: &str = "5";

/// What is not made up: where objects are, and no watch, which ends when its client has had enough.
const CONFIG: &str = r#"
[parameters]
"path.namespace" = "default"
"path.name" = "x"
"query.watch" = false
"query.sendInitialEvents" = false
"#;

fn schemathesis() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    assert!(path.exists(), "{} is missing: run `make setup-test`", path.display());
    path
}

/// All documents as one.
async fn described(rig: &Rig) -> Value {
    let index = rig.get("/openapi/v3").await;
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for document in index["paths"].as_object().unwrap().values() {
        let mut document = rig.get(document["serverRelativeURL"].as_str().unwrap()).await;
        paths.append(document["paths"].as_object_mut().unwrap());
        schemas.append(document["components"]["schemas"].as_object_mut().unwrap());
    }
    json!({"openapi": "3.0.0", "info": {"title": "all", "version": "0"}, "paths": paths, "components": {"schemas": schemas}})
}

/// A kind of its own, with every subresource. Where no rule says what an object is, made-up ones are stored.
fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "replicas": {"type": "integer", "minimum": 0, "default": 1},
            "when": {"type": "string", "format": "date-time", "nullable": true},
            "size": {"x-kubernetes-int-or-string": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 5}}}}},
            "x-kubernetes-validations": [{"rule": "!has(self.ports) || self.ports.size() <= self.replicas + 5"}]},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}}});
    let scale =
        json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": scale}, "selectableFields": [{"jsonPath": ".spec.when"}],
            "additionalPrinterColumns": [{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]})
    };
    json!({"metadata": {"name": "things.example.org"}, "spec": {"group": "example.org", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"}, "versions": [version("v1", true), version("v2", false)]}})
}

/// An object of each kind called `x`, where a bare one is valid, so that requests find something.
async fn furnish(rig: &Rig) {
    for info in Kind::all() {
        let scope = if info.namespaced { "namespaces/default/" } else { "" };
        let group = if info.group.is_empty() { "api".to_owned() } else { format!("apis/{}", info.group) };
        let body = json!({"apiVersion": info.kind.api_version(), "kind": info.name, "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "completions": 1, "containers": [{"name": "main", "image": "busybox"}],
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": if info.name == "Job" { "Never" } else { "Always" },
                    "containers": [{"name": "main", "image": "busybox"}]}}}});
        rig.ask("POST", &format!("/{group}/{}/{scope}{}?fieldValidation=Ignore", info.version, info.plural), body).await;
    }
    for (path, body) in [
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition()),
        ("/apis/example.org/v1/namespaces/default/things", json!({"metadata": {"name": "x"}, "spec": {"size": 1}})),
    ] {
        let (status, answer) = rig.ask("POST", path, body).await;
        assert!(status.is_success(), "{answer}");
    }
}

/// The admin's certificate and key, the server's CA, each in a file.
fn credentials(rig: &Rig) -> [PathBuf; 3] {
    let config: Value = serde_json::from_slice(&std::fs::read(rig.kubeconfig()).unwrap()).unwrap();
    let (user, cluster) = (&config["users"][0]["user"], &config["clusters"][0]["cluster"]);
    [("crt", &user["client-certificate-data"]), ("key", &user["client-key-data"]), ("ca", &cluster["certificate-authority-data"])].map(
        |(name, data)| {
            let path = rig.directory.path().join(name);
            std::fs::write(&path, base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap();
            path
        },
    )
}

/// What it takes to ask, and paths that the description must have.
async fn tried(rig: &Rig, who: Vec<String>) {
    furnish(rig).await;
    let (directory, mut description) = (rig.directory.path(), described(rig).await);
    // Subresources take much the same, and are not described.
    let paths = description["paths"].as_object_mut().unwrap();
    for (plural, group, parts) in [
        ("things", "apis/example.org/v1", &["status", "scale"][..]),
        ("things", "apis/example.org/v2", &["scale"]),
        ("pods", "api/v1", &["status"]),
    ] {
        let path = format!("/{group}/namespaces/{{namespace}}/{plural}/{{name}}");
        let of_one = paths.get(&path).cloned().unwrap_or_else(|| panic!("{path} is not described"));
        paths.extend(parts.iter().map(|part| (format!("{path}/{part}"), of_one.clone())));
    }
    std::fs::write(directory.join("all.json"), description.to_string()).unwrap();
    std::fs::write(directory.join("schemathesis.toml"), CONFIG).unwrap();
    let mut command = Command::new(schemathesis());
    command.arg("--config-file").arg(directory.join("schemathesis.toml")).arg("run").arg(directory.join("all.json"));
    command.args(["--url", &rig.url, "--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", EXAMPLES]);
    // The same requests everywhere. A watch ends with the time that a client has for it.
    command.args(["--generation-deterministic", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]);
    command.args(["--request-timeout", "10", "--continue-on-failure"]).args(who).current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let tested = text.lines().find(|line| line.trim().starts_with("Tested:"));
    assert!(tested.is_some_and(|line| line.trim() > "Tested: 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_its_description_allows_breaks_the_server() {
    let rig = Rig::start().await;
    let [certificate, key, authority] = credentials(&rig).map(|path| path.display().to_string());
    let who = [["--tls-verify", &authority], ["--request-cert", &certificate], ["--request-cert-key", &key]];
    tried(&rig, who.concat().into_iter().map(str::to_owned).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_of_a_user_who_may_only_look() {
    let rig = Rig::start().await;
    let [_, _, authority] = credentials(&rig).map(|path| path.display().to_string());
    rig.kubectl_ok("create serviceaccount looks").await;
    rig.kubectl_ok("create clusterrolebinding looks --clusterrole=view --serviceaccount=default:looks").await;
    let token = rig.kubectl_ok("create token looks").await;
    let header = format!("Authorization: Bearer {}", token.trim());
    tried(&rig, vec!["--tls-verify".to_owned(), authority, "--header".to_owned(), header]).await;
}
