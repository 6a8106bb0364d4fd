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

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_its_description_allows_breaks_the_server() {
    let rig = Rig::start().await;
    furnish(&rig).await;
    let directory = rig.directory.path();
    std::fs::write(directory.join("all.json"), described(&rig).await.to_string()).unwrap();
    std::fs::write(directory.join("schemathesis.toml"), CONFIG).unwrap();
    let [certificate, key, authority] = credentials(&rig);
    let mut command = Command::new(schemathesis());
    command.arg("--config-file").arg(directory.join("schemathesis.toml")).arg("run").arg(directory.join("all.json"));
    command.args(["--url", &rig.url, "--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", EXAMPLES]);
    // The same requests everywhere. A watch ends with the time that a client has for it.
    command.args(["--generation-deterministic", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]);
    command.args(["--request-timeout", "10", "--continue-on-failure"]);
    command.arg("--tls-verify").arg(authority).arg("--request-cert").arg(certificate).arg("--request-cert-key").arg(key);
    command.current_dir(directory);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let tested = text.lines().find(|line| line.trim().starts_with("Tested:"));
    assert!(tested.is_some_and(|line| line.trim() > "Tested: 0"), "{text}");
}
