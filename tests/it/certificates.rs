//! Certificates by CertificateSigningRequest: nodes that begin with a bootstrap token, people who approve and deny.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::rights::with_token;

/// A request and its key, as files of the rig's directory; the request is made by who calls kubectl.
fn request(rig: &Rig, name: &str, signer: &str, (user, group): (&str, &str), hosts: &[&str], usage: &str) {
    let mut params = rcgen::CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    use base64::Engine as _;
    let spec = json!({"request": base64::engine::general_purpose::STANDARD.encode(pem), "signerName": signer,
        "usages": ["digital signature", usage]});
    let object =
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec});
    std::fs::write(rig.directory.path().join(format!("{name}.json")), object.to_string()).unwrap();
    std::fs::write(rig.directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

async fn get(rig: &Rig, name: &str) -> Value {
    rig.get(&format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}")).await
}

fn conditions(request: &Value) -> Vec<&str> {
    request["status"]["conditions"].as_array().into_iter().flatten().filter_map(|it| it["type"].as_str()).collect()
}

/// What kubectl says of itself with an issued certificate.
async fn whoami(rig: &Rig, name: &str) -> String {
    use base64::Engine as _;
    let issued = get(rig, name).await;
    let certificate = issued["status"]["certificate"].as_str().expect("it is issued");
    let pem = base64::engine::general_purpose::STANDARD.decode(certificate).unwrap();
    std::fs::write(rig.directory.path().join(format!("{name}.crt")), pem).unwrap();
    std::fs::write(rig.directory.path().join("ca.pem"), rig.pki.authority().pem()).unwrap();
    let server = podbay::tls::SERVER_NAME;
    let line = format!(
        "auth whoami --kubeconfig=/dev/null --server={} --certificate-authority=ca.pem --tls-server-name={server} --client-certificate={name}.crt --client-key={name}.key",
        rig.url
    );
    rig.kubectl_ok(&line).await
}

const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_begins_with_a_bootstrap_token() {
    let rig = Rig::start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token", "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true"}});
    std::fs::write(rig.directory.path().join("token.json"), secret.to_string()).unwrap();
    rig.kubectl_ok("apply -f token.json").await;
    let token = "abcdef.0123456789abcdef";
    assert!(with_token(&rig, token, "auth whoami").await.contains("system:bootstrap:abcdef"));
    assert!(with_token(&rig, token, "get nodes").await.contains("forbidden"));
    request(&rig, "n7", NODE_CLIENT, ("system:node:n7", "system:nodes"), &[], "client auth");
    with_token(&rig, token, "create -f n7.json").await;
    let asked = get(&rig, "n7").await;
    assert_eq!((asked["spec"]["username"].as_str(), conditions(&asked)), (Some("system:bootstrap:abcdef"), vec!["Approved"]), "{asked}");
    assert!(whoami(&rig, "n7").await.contains("system:node:n7"));
    assert!(rig.kubectl_ok("get csr n7").await.contains("Approved,Issued"));
    // The name is taken once the Node is there; not by who has another key.
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n7"}})).await;
    request(&rig, "again", NODE_CLIENT, ("system:node:n7", "system:nodes"), &[], "client auth");
    with_token(&rig, token, "create -f again.json").await;
    assert_eq!(conditions(&get(&rig, "again").await), ["Approved", "Failed"]);
    // Nor does anybody become somebody else so.
    request(&rig, "root", NODE_CLIENT, ("root", "system:masters"), &[], "client auth");
    with_token(&rig, token, "create -f root.json").await;
    assert!(conditions(&get(&rig, "root").await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_approve_and_deny() {
    let rig = Rig::start().await;
    let client = "kubernetes.io/kube-apiserver-client";
    for (name, user, group) in [("jane", "jane", "dev"), ("joe", "joe", "dev"), ("boss", "boss", "system:masters")] {
        request(&rig, name, client, (user, group), &[], "client auth");
        rig.kubectl_ok(&format!("create -f {name}.json")).await;
    }
    assert!(rig.kubectl_ok("get csr jane").await.contains("Pending"));
    rig.kubectl_ok("certificate approve jane boss").await;
    rig.kubectl_ok("certificate deny joe").await;
    let who = whoami(&rig, "jane").await;
    assert!(who.contains("jane") && who.contains("[dev system:authenticated]"), "{who}");
    assert_eq!(conditions(&get(&rig, "joe").await), ["Denied"]);
    // What was decided and issued stays, whoever writes the status.
    let mut cleared = get(&rig, "jane").await;
    cleared["status"] = json!({});
    for part in ["status", "approval"] {
        let path = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/jane/{part}");
        let (code, answer) = rig.ask("PUT", &path, cleared.clone()).await;
        assert_eq!(code.as_u16(), 422, "{part}: {answer}");
    }
    // What was asked for stays: the file says nothing of who asked.
    for (name, user) in [("jane", "jane"), ("joe", "somebody")] {
        let before = get(&rig, name).await;
        let text = std::fs::read_to_string(rig.directory.path().join(format!("{name}.json"))).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        file["metadata"]["labels"] = json!({"team": "a"});
        file["spec"]["username"] = user.into();
        std::fs::write(rig.directory.path().join("again.json"), file.to_string()).unwrap();
        rig.kubectl_ok("replace -f again.json").await;
        let after = get(&rig, name).await;
        assert_eq!(after["metadata"]["labels"]["team"], "a");
        assert_eq!((&after["spec"], &after["status"]), (&before["spec"], &before["status"]), "{name}");
    }
    let boss = get(&rig, "boss").await;
    assert_eq!((conditions(&boss), boss["status"]["certificate"].is_null()), (vec!["Approved", "Failed"], true));
    // Who may write approvals decides only about the signers they may decide about.
    rig.kubectl_ok(
        "create clusterrole decider --verb=get,update,patch --resource=certificatesigningrequests,certificatesigningrequests/approval",
    )
    .await;
    rig.kubectl_ok("create clusterrolebinding decider --clusterrole=decider --user=kim").await;
    request(&rig, "last", client, ("last", ""), &[], "client auth");
    rig.kubectl_ok("create -f last.json").await;
    let refused = rig.kubectl("certificate approve last --as kim").await;
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""), "{text}");
    let rule =
        json!({"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]});
    let role = json!({"metadata": {"name": "signer"}, "rules": [rule]});
    rig.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    rig.kubectl_ok("create clusterrolebinding signer --clusterrole=signer --user=kim").await;
    rig.kubectl_ok("certificate approve last --as kim").await;
    assert!(whoami(&rig, "last").await.contains("last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_asked_for_goes_with_its_certificate() {
    use kube::api::PostParams;
    let rig = Rig::start().await;
    // Nobody's request is approved by itself, so that it can wait.
    let binding = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
    rig.kubectl_ok(&format!("delete clusterrolebinding {binding}")).await;
    let old = crate::join::joined(&rig, "n1").await;
    let requests: kube::Api<CertificateSigningRequest> = kube::Api::all(old.client());
    let serving = "kubernetes.io/kubelet-serving";
    for (name, signer, hosts, usage) in [
        ("now", NODE_CLIENT, &[][..], "client auth"),
        ("later", NODE_CLIENT, &[], "client auth"),
        ("serving-now", serving, &["n1.example.org"], "server auth"),
        ("serving-later", serving, &["n1.example.org"], "server auth"),
        ("serving-server", serving, &["kubernetes.default.svc"], "server auth"),
    ] {
        request(&rig, name, signer, ("system:node:n1", "system:nodes"), hosts, usage);
        let text = std::fs::read_to_string(rig.directory.path().join(format!("{name}.json"))).unwrap();
        requests.create(&PostParams::default(), &serde_json::from_str(&text).unwrap()).await.unwrap();
        assert!(conditions(&get(&rig, name).await).is_empty(), "{name}");
    }
    rig.kubectl_ok("certificate approve now serving-now serving-server").await;
    assert!(whoami(&rig, "now").await.contains("system:node:n1"));
    assert!(get(&rig, "serving-now").await["status"]["certificate"].is_string());
    assert_eq!(conditions(&get(&rig, "serving-server").await), ["Approved", "Failed"]);
    // Another host has the name now: its Node is not there yet.
    let new = crate::join::joined_elsewhere(&rig, "n1").await;
    rig.kubectl_ok("certificate approve later serving-later").await;
    for name in ["later", "serving-later"] {
        let refused = get(&rig, name).await;
        assert_eq!(conditions(&refused), ["Approved", "Failed"], "{refused}");
        assert!(refused["status"]["conditions"].to_string().contains("joined anew"), "{refused}");
    }
    let requests: kube::Api<CertificateSigningRequest> = kube::Api::all(new.client());
    requests.get("later").await.unwrap();
}
