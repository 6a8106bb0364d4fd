//! The labels of a Namespace that a later wave changes: a pod is judged by what they are when it is written.

use super::tests::{current, foresee, happen};
use super::*;
use crate::model::pod_security::LABEL;
use crate::simulate::tests::cluster;

fn namespace(level: &str, wave: i32) -> String {
    let labels = format!("{{{LABEL}enforce: {level}}}");
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {labels}, {}}}\n---\n", in_wave(wave))
}

fn in_wave(wave: i32) -> String {
    format!("annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}")
}

/// On the host's network: no level but the widest lets it.
fn pod(wave: i32) -> String {
    let meta = format!("{{name: p, namespace: shop, {}}}", in_wave(wave));
    format!("apiVersion: v1\nkind: Pod\nmetadata: {meta}\nspec: {{hostNetwork: true, containers: [{{name: c, image: \"i:1\"}}]}}\n---\n")
}

/// The level that is enforced, and whether the pod is there.
fn found(state: &Snapshot) -> (&str, bool) {
    let namespace = state.get(&Key::cluster(Kind::Namespace, "shop")).expect("the namespace");
    (&namespace.labels()[&format!("{LABEL}enforce")], state.get(&Key::new(Kind::Pod, "shop", "p")).is_some())
}

#[test]
fn a_pod_is_judged_by_the_labels_its_namespace_has_in_its_wave() {
    for (before, after, wave, level) in [
        ("privileged", "restricted", 0, Some("restricted")),
        ("privileged", "restricted", 2, None),
        ("restricted", "privileged", 0, None),
        ("restricted", "privileged", 2, Some("privileged")),
        // In the same wave the namespace is first.
        ("restricted", "privileged", 1, Some("privileged")),
    ] {
        let case = format!("{before} to {after} in wave 1, the pod in wave {wave}");
        let base = happen(&cluster(1, Vec::new()), "r1", &[("a.yaml", namespace(before, 1))], None);
        let files = [("a.yaml", namespace(after, 1) + &pod(wave))];
        let told = foresee(&base, "r2", &files);
        let end = happen(&base, "r2", &files, None);
        match level {
            Some(level) => {
                assert_eq!((told.exit_code(), told.counts.create, told.unmet.len()), (1, 1, 0), "{case}: {told}");
                assert_eq!(found(&end), (level, true), "{case}");
            }
            None => {
                assert_eq!(told.exit_code(), 2, "{case}: {told}");
                assert!(told.refusals.iter().any(|line| line.contains("violates PodSecurity \"restricted:latest\"")), "{case}: {told}");
                assert_eq!(found(&end), (before, false), "{case}");
                assert_eq!(current(&end).status.unwrap().errors, told.refusals, "{case}");
            }
        }
    }
}
