//! A real kubelet's part, played by its requests: those that `pkg/kubelet` of Kubernetes 1.30 to 1.36 makes when it starts and
//! in its loops, over TLS, with no path that kube-apiserver has not. (No kubelet can be had from the registries at hand.)

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use base64::Engine as _;
use http::{Request, StatusCode};
use podbay::clock::{Clock as _, SystemClock};
use podbay::server::TlsNodes;
use podbay::tls::authority::Pair;
use podbay::tls::{LiveKey, Order, Pki, SERVER_CLIENT, connect, serve};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

const NODE: &str = "kub";
const USER: &str = "system:node:kub";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CSINODES: &str = "/apis/storage.k8s.io/v1/csinodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Who asks, over connections that end with their answers.
struct Kubelet {
    address: String,
    config: Arc<ClientConfig>,
    token: Option<String>,
}

impl Kubelet {
    fn roots(rig: &Rig) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rig.pki.authority().der().clone()).unwrap();
        roots
    }

    fn with_token(rig: &Rig, token: &str) -> Self {
        let config = ClientConfig::builder().with_root_certificates(Self::roots(rig)).with_no_client_auth();
        Self { address: rig.url.trim_start_matches("https://").to_owned(), config: Arc::new(config), token: Some(token.to_owned()) }
    }

    fn with_certificate(rig: &Rig, certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(Self::roots(rig)).with_client_auth_cert(chain, key).unwrap();
        Self { address: rig.url.trim_start_matches("https://").to_owned(), config: Arc::new(config), token: None }
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.address);
        request = request.header("accept", "application/vnd.kubernetes.protobuf, */*").header("content-type", content_type);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // By the address of the URL, as Go's client: a kubelet knows no other name of the server.
        let host = self.address.rsplit_once(':').unwrap().0;
        let answer = connect::ask(&self.address, host, Arc::clone(&self.config), request.body(Body::from(body)).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.body().to_vec())
    }

    async fn say(&self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (code, answer) = self.send(method, path, content_type, body).await;
        (code, serde_json::from_slice(&answer).unwrap_or_else(|_| String::from_utf8_lossy(&answer).into_owned().into()))
    }

    /// The answer, which has this code.
    async fn ask(&self, code: u16, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" { STRATEGIC } else { "application/json" };
        let (got, answer) = self.say(method, path, kind, &body).await;
        assert_eq!(got, code, "{method} {path}: {answer}");
        answer
    }

    /// A reflector's first two requests: a page of the list, then a watch from there. The objects' names.
    async fn follow(&self, path: &str, selector: &str) -> Vec<String> {
        let selected = if selector.is_empty() { String::new() } else { format!("fieldSelector={}&", selector.replace('=', "%3D")) };
        let list = self.ask(200, "GET", &format!("{path}?{selected}limit=500&resourceVersion=0"), Value::Null).await;
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let watch = format!("{path}?allowWatchBookmarks=true&{selected}resourceVersion={from}&timeoutSeconds=1&watch=true");
        let (code, answer) = self.send("GET", &watch, "application/json", Vec::new()).await;
        assert_eq!(code, 200, "{watch}: {}", String::from_utf8_lossy(&answer));
        list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// A message's field of bytes in protobuf, below 128 of them.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A body as a kubelet's client encodes it.
fn protobuf(version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let what = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    // Longer than a byte can say.
    let length = [0x12, (message.len() & 0x7f) as u8 | 0x80, (message.len() >> 7) as u8];
    [b"k8s\0".as_slice(), &field(1, &what), &length, message].concat()
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A request for a certificate, and its key.
fn request(signer: &str, usage: &str, hosts: &[&str]) -> (Value, String) {
    let mut params = rcgen::CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, USER);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = base64::engine::general_purpose::STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap());
    let spec = json!({"request": pem, "signerName": signer, "usages": ["digital signature", usage]});
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"}, "spec": spec});
    (request, key.serialize_pem())
}

fn certificate(request: &Value) -> String {
    let text = request["status"]["certificate"].as_str().unwrap_or_else(|| panic!("it has no certificate: {request}"));
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

/// `--bootstrap-kubeconfig`: from a token to a certificate (`pkg/kubelet/certificate/bootstrap`).
async fn bootstrapped(rig: &Rig) -> Kubelet {
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}});
    let (code, answer) = rig.ask("POST", "/api/v1/namespaces/kube-system/secrets", secret).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let stranger = Kubelet::with_token(rig, "abcdef.0123456789abcdef");
    stranger.ask(200, "GET", "/healthz", Value::Null).await;
    let (mut wanted, key) = request("kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[]);
    wanted["metadata"] = json!({"name": "node-csr-1"});
    stranger.ask(201, "POST", CSRS, wanted.clone()).await;
    assert_eq!(stranger.follow(CSRS, "metadata.name=node-csr-1").await, ["node-csr-1"]);
    // After a restart it finds its own again.
    stranger.ask(409, "POST", CSRS, wanted).await;
    let issued = stranger.ask(200, "GET", &format!("{CSRS}/node-csr-1"), Value::Null).await;
    stranger.ask(403, "GET", &format!("/api/v1/nodes/{NODE}"), Value::Null).await;
    Kubelet::with_certificate(rig, &certificate(&issued), &key)
}

/// What it registers with (`pkg/kubelet/kubelet_node_status.go`, `initialNode`).
fn node(port: u16) -> Value {
    let conditions = json!([{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "CSINode is not yet initialized",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let labels = json!({"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"});
    json!({"kind": "Node", "apiVersion": "v1",
        "metadata": {"name": NODE, "labels": labels, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"taints": [{"key": "example.org/new", "effect": "NoSchedule"}], "providerID": "x://1"},
        "status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}, "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "conditions": conditions, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6", "osImage": "o", "architecture": "amd64",
                "containerRuntimeVersion": "containerd://2", "kubeletVersion": "v1.34.0", "kubeProxyVersion": "", "operatingSystem": "linux"}}})
}

/// A kubelet on a server, both running; of the node the UID.
async fn registered() -> (Rig, Kubelet, String) {
    let rig = Rig::start().await;
    let kubelet = bootstrapped(&rig).await;
    kubelet.ask(404, "GET", &format!("/api/v1/nodes/{NODE}?resourceVersion=0"), Value::Null).await;
    let made = kubelet.ask(201, "POST", "/api/v1/nodes", node(10250)).await;
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    (rig, kubelet, uid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_registers_and_becomes_ready() {
    let (rig, kubelet, uid) = registered().await;
    let path = format!("/api/v1/nodes/{NODE}");
    let stored = rig.get(&path).await;
    assert_eq!(stored["status"]["nodeInfo"]["kubeletVersion"], "v1.34.0", "it is registered with its status: {stored}");
    assert_eq!(
        (&stored["spec"]["providerID"], &stored["status"]["daemonEndpoints"]),
        (&json!("x://1"), &node(10250)["status"]["daemonEndpoints"])
    );
    kubelet.ask(409, "POST", "/api/v1/nodes", node(10250)).await;
    assert_eq!(kubelet.follow("/api/v1/nodes", &format!("metadata.name={NODE}")).await, [NODE]);
    for kind in ["/api/v1/services", "/apis/node.k8s.io/v1/runtimeclasses", "/apis/storage.k8s.io/v1/csidrivers"] {
        kubelet.follow(kind, "").await;
    }
    // Its patches are of both parts and name lists' orders (`component-helpers/node/util/status.go`).
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:10Z"});
    let patch = json!({"metadata": {"annotations": {"csi.volume.kubernetes.io/nodeid": "{}"}, "labels": {"kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "a"}},
        "status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [ready],
            "addresses": [{"address": "192.0.2.9", "type": "InternalIP"}, {"$patch": "replace"}],
            "images": [{"names": ["example.org/a:1"], "sizeBytes": 5}]}});
    kubelet.ask(200, "PATCH", &format!("{path}/status"), patch).await;
    let stored = rig.get(&path).await;
    let status = &stored["status"];
    assert_eq!((&status["conditions"][0]["status"], &status["conditions"][1]), (&json!("True"), &Value::Null), "{status}");
    assert_eq!(status["addresses"], json!([{"address": "192.0.2.9", "type": "InternalIP"}]));
    let meta = &stored["metadata"];
    assert_eq!(meta["annotations"]["csi.volume.kubernetes.io/nodeid"], "{}");
    assert_eq!(
        (&meta["labels"]["node.kubernetes.io/instance-type"], &meta["labels"]["kubernetes.io/arch"]),
        (&json!("a"), &json!("amd64"))
    );
    let steer = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    kubelet.ask(403, "PATCH", &format!("{path}/status"), steer).await;
    // Its lease (`component-helpers/apimachinery/lease`).
    kubelet.ask(404, "GET", &format!("{LEASES}/{NODE}"), Value::Null).await;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": uid});
    let lease = json!({"metadata": {"name": NODE, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let mut lease = kubelet.ask(201, "POST", LEASES, lease).await;
    lease["spec"]["renewTime"] = json!("2026-01-01T00:00:10.000000Z");
    kubelet.ask(200, "PUT", &format!("{LEASES}/{NODE}"), lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_says_which_drivers_of_volumes_it_has() {
    let (rig, kubelet, uid) = registered().await;
    let own = format!("{CSINODES}/{NODE}");
    kubelet.ask(404, "GET", &own, Value::Null).await;
    // As its client encodes it: protobuf (`pkg/volume/csi/nodeinfomanager`, `CreateCSINode`).
    let owner = [field(1, b"Node"), field(3, NODE.as_bytes()), field(4, uid.as_bytes()), field(5, b"v1")].concat();
    let message = [field(1, &[field(1, NODE.as_bytes()), field(13, &owner)].concat()), field(2, b"")].concat();
    let (code, answer) = kubelet.send("POST", CSINODES, PROTOBUF, protobuf("storage.k8s.io/v1", "CSINode", &message)).await;
    assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
    let mut stored = kubelet.ask(200, "GET", &own, Value::Null).await;
    assert_eq!((&stored["metadata"]["ownerReferences"][0]["uid"], &stored["spec"]["drivers"]), (&json!(uid), &json!([])));
    stored["metadata"]["annotations"] = json!({"storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/nfs"});
    stored["spec"]["drivers"] =
        json!([{"name": "csi.example.org", "nodeID": "kub-1", "topologyKeys": ["example.org/zone"], "allocatable": {"count": 8}}]);
    let mut stored = kubelet.ask(200, "PUT", &own, stored).await;
    let listed = rig.kubectl_ok("get csinodes").await;
    let cells: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[..2], [NODE, "1"]);
    stored["spec"]["drivers"][0]["nodeID"] = json!("kub-2");
    kubelet.ask(422, "PUT", &own, stored).await;
    // Another node's is none of its business.
    let other = json!({"metadata": {"name": "other"}, "spec": {"drivers": []}});
    kubelet.ask(403, "POST", CSINODES, other.clone()).await;
    assert_eq!(rig.ask("POST", CSINODES, other).await.0, StatusCode::CREATED);
    for (method, path) in [("GET", format!("{CSINODES}/other")), ("DELETE", format!("{CSINODES}/other")), ("GET", CSINODES.to_owned())] {
        kubelet.ask(403, method, &path, Value::Null).await;
    }
    // Drivers themselves an admin describes; a kubelet reads of them.
    let driver = json!({"metadata": {"name": "csi.example.org"}, "spec": {"attachRequired": false}});
    kubelet.ask(403, "POST", "/apis/storage.k8s.io/v1/csidrivers", driver.clone()).await;
    assert_eq!(rig.ask("POST", "/apis/storage.k8s.io/v1/csidrivers", driver).await.0, StatusCode::CREATED);
    let read = kubelet.ask(200, "GET", "/apis/storage.k8s.io/v1/csidrivers/csi.example.org", Value::Null).await;
    let spec = &read["spec"];
    assert_eq!(
        (&spec["attachRequired"], &spec["fsGroupPolicy"], &read["metadata"]["generation"]),
        (&json!(false), &json!("ReadWriteOnceWithFSType"), &json!(1))
    );
    let listed = rig.kubectl_ok("get csidrivers").await;
    let cells: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[..7], ["csi.example.org", "false", "false", "false", "<unset>", "false", "Persistent"]);
    kubelet.ask(200, "DELETE", &own, Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_runs_the_pods_that_are_bound_to_it() {
    let (rig, kubelet, _) = registered().await;
    let post = async |path: &str, body: Value| {
        let (code, answer) = rig.ask("POST", path, body).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        answer
    };
    let (_, patched) = rig
        .ask("PATCH", &format!("/api/v1/nodes/{NODE}"), json!({"spec": {"podCIDR": "10.80.0.0/24", "podCIDRs": ["10.80.0.0/24"]}}))
        .await;
    assert_eq!(patched["spec"]["podCIDR"], "10.80.0.0/24", "{patched}");
    let home = "/api/v1/namespaces/default";
    post(&format!("{home}/serviceaccounts"), json!({"metadata": {"name": "runner"}})).await;
    for name in ["mine", "theirs"] {
        post(&format!("{home}/secrets"), json!({"metadata": {"name": name}})).await;
        post(&format!("{home}/configmaps"), json!({"metadata": {"name": name}})).await;
    }
    post(
        "/api/v1/persistentvolumes",
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}}),
    )
    .await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v", "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}});
    post(&format!("{home}/persistentvolumeclaims"), claim).await;
    let volumes = json!([{"name": "s", "secret": {"secretName": "mine"}}, {"name": "m", "configMap": {"name": "mine"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    let spec = json!({"nodeName": NODE, "serviceAccountName": "runner", "containers": [{"name": "main", "image": "example.org/a:1"}], "volumes": volumes});
    let pod = post(&format!("{home}/pods"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();

    assert_eq!(kubelet.follow("/api/v1/pods", &format!("spec.nodeName={NODE}")).await, ["p"]);
    kubelet.ask(403, "GET", "/api/v1/pods?limit=500&resourceVersion=0", Value::Null).await;
    for kind in ["secrets", "configmaps"] {
        kubelet.ask(200, "GET", &format!("{home}/{kind}/mine"), Value::Null).await;
        assert_eq!(kubelet.follow(&format!("{home}/{kind}"), "metadata.name=mine").await, ["mine"]);
        kubelet.ask(403, "GET", &format!("{home}/{kind}?fieldSelector=metadata.name%3Dtheirs"), Value::Null).await;
    }
    kubelet.ask(200, "GET", &format!("{home}/persistentvolumeclaims/c"), Value::Null).await;
    kubelet.ask(200, "GET", "/api/v1/persistentvolumes/v", Value::Null).await;
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid});
    let token = json!({"spec": {"audiences": [], "expirationSeconds": 3607, "boundObjectRef": bound}});
    let token = kubelet.ask(201, "POST", &format!("{home}/serviceaccounts/runner/token"), token).await;
    assert!(token["status"]["token"].as_str().is_some_and(|token| token.split('.').count() == 3));
    // Its status (`pkg/util/pod`, `PatchPodStatus`): of the pod it means and no later one.
    let running = json!({"name": "main", "image": "example.org/a:1", "imageID": "i", "containerID": "containerd://1", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}});
    let status = |uid: &str| {
        json!({"metadata": {"uid": uid}, "status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "PodScheduled"}],
            "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running], "phase": "Running", "hostIP": "127.0.0.1",
            "podIP": "10.80.0.5", "podIPs": [{"ip": "10.80.0.5"}], "startTime": "2026-01-01T00:00:00Z"}})
    };
    kubelet.ask(409, "PATCH", &format!("{home}/pods/p/status"), status("00000000-0000-0000-0000-000000000000")).await;
    kubelet.ask(200, "PATCH", &format!("{home}/pods/p/status"), status(&uid)).await;
    assert!(rig.kubectl_ok("get pod p -o wide").await.contains("Running"));
    // Events of client-go's recorder: made, then counted up.
    let event = json!({"metadata": {"name": "p.1", "namespace": "default"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": uid, "apiVersion": "v1"},
        "reason": "Started", "message": "Started container main", "source": {"component": "kubelet", "host": NODE}, "type": "Normal", "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "reportingComponent": "kubelet", "reportingInstance": NODE});
    kubelet.ask(201, "POST", &format!("{home}/events"), event).await;
    let again = json!({"count": 2, "lastTimestamp": "2026-01-01T00:00:10Z"});
    assert_eq!(kubelet.ask(200, "PATCH", &format!("{home}/events/p.1"), again).await["count"], 2);
    // It ends: marked by who deletes it, gone when the kubelet says so of this very pod.
    rig.ask("DELETE", &format!("{home}/pods/p"), Value::Null).await;
    assert!(kubelet.ask(200, "GET", &format!("{home}/pods/p"), Value::Null).await["metadata"]["deletionTimestamp"].is_string());
    let other = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "another"}});
    kubelet.ask(409, "DELETE", &format!("{home}/pods/p"), other).await;
    let options = [&[8, 0][..], &field(2, &field(1, uid.as_bytes()))].concat();
    let (code, answer) = kubelet.send("DELETE", &format!("{home}/pods/p"), PROTOBUF, protobuf("v1", "DeleteOptions", &options)).await;
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(rig.ask("GET", &format!("{home}/pods/p"), Value::Null).await.0, StatusCode::NOT_FOUND);
    // Of what is gone nobody knows whose it was, as in Kubernetes since 1.32.
    kubelet.ask(403, "GET", &format!("{home}/pods/p"), Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_shows_its_own_pods_and_asks_who_may_come_in() {
    let (rig, kubelet, uid) = registered().await;
    let pods = "/api/v1/namespaces/kube-system/pods";
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": uid, "controller": true});
    let annotations = json!({"kubernetes.io/config.mirror": "h", "kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "h"});
    let mut mirror = json!({"metadata": {"name": "static-kub", "namespace": "kube-system", "annotations": annotations, "ownerReferences": [owner]},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "example.org/a:1"}], "tolerations": [{"operator": "Exists", "effect": "NoExecute"}]}});
    let made = kubelet.ask(201, "POST", pods, mirror.clone()).await;
    assert!(made["spec"]["serviceAccountName"].is_null() && made["spec"]["volumes"].is_null(), "it has no account: {made}");
    // An account's token is not to be had by it.
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "static-kub", "uid": made["metadata"]["uid"]});
    let token = json!({"spec": {"audiences": [], "boundObjectRef": bound}});
    kubelet.ask(403, "POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", token).await;
    kubelet.ask(200, "DELETE", &format!("{pods}/static-kub"), json!({"gracePeriodSeconds": 0})).await;
    mirror["metadata"]["annotations"] = json!({});
    kubelet.ask(403, "POST", pods, mirror).await;
    // Whoever connects to it is looked up here (`pkg/kubelet/server/auth.go`): the server may, and nobody else.
    for (user, allowed) in [(SERVER_CLIENT, true), ("jane", false), (USER, false)] {
        for (verb, subresource) in [("get", "proxy"), ("create", "proxy"), ("get", "log"), ("get", "stats"), ("get", "metrics")] {
            let attributes = json!({"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": NODE});
            let review = json!({"spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes}});
            let review = kubelet.ask(201, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
            assert_eq!(review["status"]["allowed"], allowed, "{user} {verb} {subresource}");
        }
    }
    let review = json!({"spec": {"token": "nobody's"}});
    let review = kubelet.ask(201, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_ne!(review["status"]["authenticated"], true);
    // A certificate to serve with is a person's to give, one to ask with renews itself.
    let (wanted, _) = request("kubernetes.io/kubelet-serving", "server auth", &["kub.example.org", "192.0.2.9"]);
    let serving = kubelet.ask(201, "POST", CSRS, wanted).await;
    let name = serving["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("csr-") && serving["status"]["certificate"].is_null());
    rig.kubectl_ok(&format!("certificate approve {name}")).await;
    assert_eq!(kubelet.follow(CSRS, &format!("metadata.name={name}")).await, [name.as_str()]);
    certificate(&kubelet.ask(200, "GET", &format!("{CSRS}/{name}"), Value::Null).await);
    let (wanted, key) = request("kubernetes.io/kube-apiserver-client-kubelet", "client auth", &[]);
    let name = kubelet.ask(201, "POST", CSRS, wanted).await["metadata"]["name"].as_str().unwrap().to_owned();
    let renewed = certificate(&kubelet.ask(200, "GET", &format!("{CSRS}/{name}"), Value::Null).await);
    Kubelet::with_certificate(&rig, &renewed, &key).ask(200, "GET", &format!("/api/v1/nodes/{NODE}"), Value::Null).await;
}

/// What a reflector of client-go 1.35 and later begins with: everything there is as a watch, to a bookmark that says so.
async fn streamed(kubelet: &Kubelet, path: &str, selector: &str) -> (u16, Vec<String>) {
    let selected = if selector.is_empty() { String::new() } else { format!("fieldSelector={}&", selector.replace('=', "%3D")) };
    let begin = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=1&watch=true";
    let (code, answer) = kubelet.send("GET", &format!("{path}?{selected}{begin}"), "application/json", Vec::new()).await;
    let said = |line: &[u8]| {
        let event: Value = serde_json::from_slice(line).unwrap();
        let ends = event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true";
        if ends { "end".to_owned() } else { format!("{} {}", event["type"], event["object"]["metadata"]["name"]).replace('"', "") }
    };
    let mut told = Vec::new();
    if code == 200 {
        told.extend(answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(said));
        // More of them are where it ends.
        told.retain(|said| !said.starts_with("BOOKMARK"));
    }
    (code, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_gets_what_it_asks_for_when_it_starts() {
    let (rig, kubelet, _) = registered().await;
    let mine = json!({"metadata": {"name": "p"}, "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "i"}]}});
    assert_eq!(rig.ask("POST", "/api/v1/namespaces/default/pods", mine).await.0, StatusCode::CREATED);
    let (own_node, own_pods) = (format!("metadata.name={NODE}"), format!("spec.nodeName={NODE}"));
    let reflected: [(&str, &str, &[&str]); 6] = [
        ("/api/v1/nodes", &own_node, &["ADDED kub", "end"]),
        ("/api/v1/pods", &own_pods, &["ADDED p", "end"]),
        ("/api/v1/services", "", &["end"]),
        ("/apis/node.k8s.io/v1/runtimeclasses", "", &["end"]),
        ("/apis/storage.k8s.io/v1/csidrivers", "", &["end"]),
        (CSRS, "metadata.name=node-csr-1", &["ADDED node-csr-1", "end"]),
    ];
    for (path, selector, wanted) in reflected {
        let (code, told) = streamed(&kubelet, path, selector).await;
        assert_eq!((code, &told.iter().map(String::as_str).collect::<Vec<_>>()[..]), (200, wanted), "{path}");
        kubelet.follow(path, selector).await;
    }
    for (path, selector) in [("/api/v1/pods", ""), ("/api/v1/pods", "spec.nodeName=other"), ("/api/v1/secrets", ""), (CSINODES, "")] {
        assert_eq!(streamed(&kubelet, path, selector).await.0, 403, "{path} {selector}");
    }
    // An event of itself, by the newer recorder.
    let about = json!({"kind": "Node", "name": NODE, "uid": NODE});
    let event = json!({"metadata": {"name": "kub.1", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "regarding": about,
        "reportingController": "kubelet", "reportingInstance": NODE, "action": "Start", "reason": "Starting", "note": "", "type": "Normal"});
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    kubelet.ask(201, "POST", events, event.clone()).await;
    kubelet
        .ask(200, "PATCH", &format!("{events}/kub.1"), json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}}))
        .await;
    let mut of_another = event;
    (of_another["metadata"]["name"], of_another["regarding"]["name"]) = (json!("other.1"), json!("other"));
    kubelet.ask(403, "POST", events, of_another).await;
    kubelet.ask(403, "GET", events, Value::Null).await;
    // What it can do without, and then does (docs/swapping.md): devices by claims, attached volumes, newer certificates.
    let without = [
        (403, "DELETE", "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dkub"),
        (403, "GET", "/apis/storage.k8s.io/v1/volumeattachments/csi-0"),
        (404, "GET", "/apis/certificates.k8s.io/v1beta1"),
        (403, "GET", "/apis/certificates.k8s.io/v1beta1/podcertificaterequests?fieldSelector=spec.nodeName%3Dkub"),
    ];
    for (code, method, path) in without {
        kubelet.ask(code, method, path, Value::Null).await;
    }
}

/// A node's API: a log, and commands that say back what they hear.
fn node_api() -> Router {
    let exec = any(|mut request: Request<Body>| async move {
        let asked = request.headers().get("x-stream-protocol-version").cloned();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut word = [0; 5];
            while stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(&word).await.unwrap();
            }
        });
        let answer = http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "SPDY/3.1");
        answer.header("x-stream-protocol-version", asked.unwrap()).body(Body::empty()).unwrap()
    });
    Router::new().route("/containerLogs/default/p/main", get(|| async { "a line\n" })).route("/exec/default/p/main", exec)
}

/// The node API behind this certificate, and where it is; it ends with the token.
async fn listening(rig: &Rig, pair: &Pair) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, end) = (listener.local_addr().unwrap(), CancellationToken::new());
    let key = LiveKey::new(pair, "").unwrap();
    let config = serve::closed_config(std::slice::from_ref(rig.pki.authority().der()), key, vec![SERVER_CLIENT.to_owned()]).unwrap();
    tokio::spawn(serve::serve(listener, config, node_api(), serve::Bounds::default(), end.clone()));
    (address, end.drop_guard())
}

async fn reaching(nodes: fn(&Pki) -> TlsNodes) -> Rig {
    let rig = Rig::with_nodes(Arc::new(SystemClock), |pki| Arc::new(nodes(pki))).await;
    let (code, _) = rig.ask("POST", "/api/v1/nodes", node(1)).await;
    assert_eq!(code, StatusCode::CREATED);
    let spec = json!({"nodeName": NODE, "containers": [{"name": "main", "image": "example.org/a:1"}]});
    let (code, _) = rig.ask("POST", "/api/v1/namespaces/default/pods", json!({"metadata": {"name": "p"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED);
    rig
}

/// kubectl's log of the pod, the node's API being where it says.
async fn logs(rig: &Rig, at: SocketAddr) -> String {
    let port = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": at.port()}}}});
    rig.ask("PATCH", &format!("/api/v1/nodes/{NODE}/status"), port).await;
    let output = rig.kubectl("logs p").await;
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn signed(rig: &Rig, user: &str, group: &str, names: &[&str]) -> Pair {
    let order = Order {
        common_name: user.to_owned(),
        organisation: Some(group.to_owned()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        life: std::time::Duration::from_secs(3600),
    };
    rig.pki.authority().issue(&order, SystemClock.now()).unwrap().0
}

/// As a kubelet makes one for itself where it is not told to ask for one.
fn self_signed() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["kub".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    Pair { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_reached_by_the_certificate_that_names_it() {
    let rig = reaching(|pki| TlsNodes::new(pki.node_client_config().unwrap())).await;
    let (at, _end) = listening(&rig, &signed(&rig, USER, "system:nodes", &["kub.example.org", "192.0.2.9"])).await;
    assert_eq!(logs(&rig, at).await, "a line\n");
    // A command, by the protocol of older clients, which goes through as it is.
    let authority = rig.pki.authority().der();
    let admin = signed(&rig, "admin", "system:masters", &[]);
    let config = connect::client_config(authority, LiveKey::new(&admin, "").unwrap()).unwrap();
    let mut stream = connect::open(rig.url.trim_start_matches("https://"), "localhost", config).await.unwrap();
    let head = "POST /api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true HTTP/1.1\r\nhost: s\r\nconnection: upgrade\r\n\
        upgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("v4.channel.k8s.io"), "{answer}");
    stream.write_all(b"hello").await.unwrap();
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"hello");
    // Nobody else passes for it: neither another node, whatever addresses its certificate has, nor who is no node.
    for (user, group) in [("system:node:other", "system:nodes"), (USER, "dev"), ("kub", "system:nodes")] {
        let (at, _end) = listening(&rig, &signed(&rig, user, group, &["kub", "127.0.0.1", "kub.node.podbay"])).await;
        let said = logs(&rig, at).await;
        assert!(said.contains("does not prove to be node kub"), "{user} {group}: {said}");
    }
    let (at, _end) = listening(&rig, &self_signed()).await;
    let said = logs(&rig, at).await;
    assert!(
        said.contains("does not prove to be node kub")
            && said.contains("serverTLSBootstrap")
            && said.contains("kubectl certificate approve"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_certificate_of_a_node_does_where_the_administrator_says_so() {
    let rig = reaching(|pki| TlsNodes::new(pki.any_node_client_config().unwrap())).await;
    let (at, _end) = listening(&rig, &self_signed()).await;
    assert_eq!(logs(&rig, at).await, "a line\n");
}
