//! A workload that grows with its load and shrinks without it, on one host with real pods: what containers use, as the
//! kernel counts it, over the node API to the autoscaler.

use crate::hosts::{Hosts, is_ready};
use crate::pods::Place;
use crate::runtimes::Kind;

/// Busy until it is told to be calm, and then nothing at all.
const BUSY: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      volumes: [{name: told, hostPath: {path: HOST}}]
      containers:
        - name: main
          image: podbay.local/busybox:test
          command: [/bin/sh, -c, 'while [ ! -e /host/calm ]; do :; done; exec sleep 1000000']
          volumeMounts: [{name: told, mountPath: /host}]
          resources: {requests: {cpu: 100m}, limits: {cpu: 100m}}
";

/// At once in both directions, or the test would take minutes. A twentieth of what is requested counts as busy: on a
/// machine that others keep busy it gets no more.
const SCALE: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 5}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
";

#[test]
fn a_busy_workload_grows_and_a_calm_one_shrinks() {
    let hosts = Hosts::new("pbh", &["one"]);
    let place = Place::start(&hosts, Kind::Engine);
    place.apply("busy", BUSY);
    let is_ready = || place.admin.pods("default", "app=busy").iter().any(is_ready).then_some(());
    place.admin.wait("busy is ready", is_ready);
    place.apply("scale", SCALE);
    let becomes = |count: usize| {
        place.admin.wait(&format!("{count} pods of busy"), || (place.admin.pods("default", "app=busy").len() == count).then_some(()));
    };
    becomes(3);
    place
        .admin
        .wait("what was done is told", || place.admin.kubectl_ok(&["describe", "hpa", "busy"]).contains("SuccessfulRescale").then_some(()));
    place.touch("calm");
    becomes(1);
    let table = place.admin.kubectl_ok(&["get", "hpa", "busy"]);
    assert!(table.contains("Deployment/busy") && table.contains("%/5%"), "{table}");
    place.admin.kubectl_ok(&["delete", "hpa,deployment", "busy", "--cascade=foreground"]);
}
