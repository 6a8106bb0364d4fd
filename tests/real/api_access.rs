//! A pod reaches the API as the account it runs as, and does there what its roles allow.

use crate::hosts::{Hosts, sh};
use crate::pods::Place;
use crate::runtimes::Kind;

const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn a_pod_reaches_the_api_as_its_account() {
    let hosts = Hosts::new(&Kind::Engine.prefix("pba"), &["one"]);
    let place = Place::start(&hosts, Kind::Engine);
    let admin = &place.admin;
    admin.kubectl_ok(&["create", "serviceaccount", "bot"]);
    place.pod("bot", "  serviceAccountName: bot\n  containers:\n  - {name: main, command: [sleep, '1000'], IMAGE}\n");
    place.pod("none", "  automountServiceAccountToken: false\n  containers:\n  - {name: main, command: [sleep, '1000'], IMAGE}\n");
    place.ready("bot");
    place.ready("none");
    assert_eq!(place.inside("none", &format!("ls {DIRECTORY} 2>&1 || true")).matches("No such file").count(), 1);

    let inside = |script: &str| place.inside("bot", script);
    assert_eq!(inside(&format!("cat {DIRECTORY}/namespace")), "default");
    assert!(inside(&format!("cat {DIRECTORY}/ca.crt")).starts_with("-----BEGIN CERTIFICATE-----"));
    let where_to = inside("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT");
    assert_eq!(where_to.trim(), "10.96.0.1:443");
    inside("timeout 10 nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null");

    // The address and the name that pods use, with what they have, and nothing else.
    let (token, authority) = (inside(&format!("cat {DIRECTORY}/token")), hosts.dir.join("ca.crt"));
    std::fs::write(&authority, inside(&format!("cat {DIRECTORY}/ca.crt"))).unwrap();
    let ask_with = |token: &str, path: &str| {
        let script = format!(
            "nsenter --net=/run/netns/{} curl -s -o /dev/null -w '%{{http_code}}' --cacert {} -H 'Authorization: Bearer {token}' https://10.96.0.1{path}",
            hosts.namespace("one"),
            authority.display()
        );
        sh(&script)
    };
    let ask = |path: &str| ask_with(&token, path);
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(ask("/version"), "200");
    assert_eq!(ask(pods), "403");
    admin.kubectl_ok(&["create", "rolebinding", "bot", "--clusterrole=view", "--serviceaccount=default:bot"]);
    assert_eq!(ask(pods), "200");
    assert_eq!(ask("/api/v1/namespaces/default/secrets"), "403");
    place.delete(&["bot", "--now"]);
    assert_eq!(ask(pods), "401", "with the pod its token ends");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: lasting\n  annotations: {kubernetes.io/service-account.name: bot}\n\
        type: kubernetes.io/service-account-token\n";
    place.apply("lasting", secret);
    let lasting = admin.wait("the Secret has its token", || {
        let token = admin.kubectl_ok(&["get", "secret", "lasting", "-o", "go-template={{with .data.token}}{{.|base64decode}}{{end}}"]);
        (!token.is_empty()).then_some(token)
    });
    let held = admin.kubectl_ok(&["get", "secret", "lasting", "-o", "go-template={{index .data \"ca.crt\"|base64decode}}"]);
    assert_eq!(held.trim(), std::fs::read_to_string(&authority).unwrap().trim());
    assert_eq!(ask_with(&lasting, pods), "200", "it needs no pod");
    admin.kubectl_ok(&["delete", "serviceaccount", "bot"]);
    assert_eq!(ask_with(&lasting, pods), "401", "with the account it ends");
    admin.wait("the Secret goes with its account", || admin.json(&["secret", "lasting"]).is_none().then_some(()));
}
