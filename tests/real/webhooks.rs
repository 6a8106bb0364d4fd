//! A webhook that a pod serves, behind a Service, as people have them.

use base64::Engine as _;

use crate::hosts::Hosts;
use crate::pods::Place;
use crate::runtimes::{IMAGE, Kind};

const NAME: &str = "judge.default.svc";

/// Lets through what says `allowed`.
const SERVER: &str = r#"
import http.server, json, ssl

class Judge(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = asked["request"]
        allowed = request["object"]["data"].get("verdict") == "allowed"
        answer = {"uid": request["uid"], "allowed": allowed, "status": {"message": "asked at " + self.path.split("?")[0]}}
        body = json.dumps({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/host/judge.crt", "/host/judge.key")
server = http.server.ThreadingHTTPServer(("", 8443), Judge)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// The host's Python, with what it is linked to.
fn judge() -> String {
    let host = |name: &str, path: &str| format!("  - {{name: {name}, hostPath: {{path: {path}, type: Directory}}}}\n");
    let mount = |name: &str, path: &str| format!("    - {{name: {name}, mountPath: {path}, readOnly: true}}\n");
    let paths = [("usr", "/usr"), ("lib", "/lib"), ("lib64", "/lib64"), ("host", "HOST")];
    let volumes: String = paths.iter().map(|(name, path)| host(name, path)).collect();
    let mounts: String = paths.iter().map(|(name, path)| mount(name, if *path == "HOST" { "/host" } else { path })).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: judge, labels: {{app: judge}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         volumes:\n{volumes}  containers:\n  - name: main\n    image: {IMAGE}\n    command: [/usr/bin/python3, /host/judge.py]\n    \
         readinessProbe: {{tcpSocket: {{port: 8443}}, periodSeconds: 1}}\n    volumeMounts:\n{mounts}---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: judge}}\nspec: {{selector: {{app: judge}}, ports: [{{port: 443, targetPort: 8443}}]}}\n"
    )
}

fn configuration(bundle: &str) -> String {
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: judge}}\nwebhooks:\n\
         - name: judge.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Fail\n  \
         clientConfig: {{service: {{namespace: default, name: judge, path: /verdict}}, caBundle: {bundle}}}\n  \
         objectSelector: {{matchLabels: {{judged: 'yes'}}}}\n  \
         rules: [{{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]\n"
    )
}

#[test]
fn a_pod_is_asked_whether_something_may_be_created() {
    let hosts = Hosts::new("pbw", &["one"]);
    let place = Place::start(&hosts, Kind::Engine);
    let told = hosts.dir.join("told");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    for (name, text) in [("judge.py", SERVER), ("judge.crt", &certificate), ("judge.key", &key.serialize_pem())] {
        std::fs::write(told.join(name), text).unwrap();
    }
    place.apply("judge", &judge());
    place.ready("judge");
    let bundle = base64::engine::general_purpose::STANDARD.encode(&certificate);
    place.apply("configuration", &configuration(&bundle));
    let create = |name: &str, verdict: &str| {
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{judged: 'yes'}}}}\ndata: {{verdict: {verdict}}}\n"
        );
        let file = hosts.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, map).unwrap();
        let answer = place.admin.kubectl(&["create", "-f", file.to_str().unwrap()]);
        (answer.status.success(), String::from_utf8_lossy(&answer.stderr).into_owned())
    };
    // Once the pod's endpoint is there it is asked.
    place.admin.wait("the pod lets one through", || create("good", "allowed").0.then_some(()));
    let (passed, said) = create("bad", "denied");
    assert!(!passed && said.contains("admission webhook \"judge.example.com\" denied the request: asked at /verdict"), "{said}");
    assert!(place.admin.json(&["configmap", "bad"]).is_none());
    // Without it nobody says yes.
    place.delete(&["judge"]);
    let (passed, said) = create("late", "allowed");
    assert!(!passed && said.contains("failed calling webhook \"judge.example.com\""), "{said}");
}
