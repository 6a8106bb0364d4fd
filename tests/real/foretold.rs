//! A preview against what the agents then ran.

use std::collections::BTreeMap;

use podbay::simulate::Preview;
use podbay::simulate::preview::matched::{Placed, matched};
use serde_json::Value;

use crate::hosts::{Admin, text};

/// A preview, and the pods that were there.
pub struct Foretold {
    preview: Preview,
    before: Pods,
}

/// What is known of a pod, by its UID.
type Pods = BTreeMap<String, Pod>;

struct Pod {
    name: String,
    node: String,
    going: bool,
    over: bool,
    /// Its agent has started a container of it.
    ran: bool,
}

impl Foretold {
    /// Previews with these arguments, as JSON.
    pub fn of(admin: &Admin<'_>, arguments: &[&str]) -> Self {
        let before = pods(admin);
        let out = admin.run(&[&["reconcile", "--dry-run", "-o", "json"], arguments].concat());
        let preview = serde_json::from_slice(&out.stdout);
        let preview = preview.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out.stderr)));
        Self { preview, before }
    }

    /// What started and stopped since, pod by pod with its node, is what was foretold.
    pub fn happened(&self, admin: &Admin<'_>) {
        let after = pods(admin);
        let starts: Placed = after
            .iter()
            .filter(|(uid, pod)| self.before.get(*uid).is_none_or(|old| old.node.is_empty()) && !pod.node.is_empty())
            .map(|(_, pod)| (pod.name.clone(), pod.node.clone()))
            .collect();
        let idle: Vec<&String> = after.values().filter(|pod| !pod.node.is_empty() && !pod.ran).map(|pod| &pod.name).collect();
        let stops: Placed = self
            .before
            .iter()
            .filter(|(uid, pod)| !pod.going && !pod.over && !pod.node.is_empty() && after.get(*uid).is_none_or(|now| now.going))
            .map(|(_, pod)| (pod.name.clone(), pod.node.clone()))
            .collect();
        let mut wrong = matched("starts", &self.preview.pods.starts, &starts);
        wrong.extend(matched("stops", &self.preview.pods.stops, &stops));
        assert!(wrong.is_empty(), "{}\nwas the preview, but:\n{}", self.preview, wrong.join("\n"));
        assert!(idle.is_empty(), "bound, but never ran: {idle:?}");
    }

    /// The preview says that nothing would happen.
    pub fn is_refused(&self) -> bool {
        self.preview.is_refused()
    }
}

fn pods(admin: &Admin<'_>) -> Pods {
    let list = admin.json(&["pods", "-A"]).expect("the API answers");
    let all = list["items"].as_array().cloned().unwrap_or_default();
    all.iter().map(|pod| (text(pod, "/metadata/uid").to_owned(), seen(pod))).collect()
}

fn seen(pod: &Value) -> Pod {
    let started = |status: &Value| status["containerID"].as_str().is_some_and(|id| !id.is_empty());
    Pod {
        name: format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name")),
        node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
        going: !pod["metadata"]["deletionTimestamp"].is_null(),
        over: matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")),
        ran: pod["status"]["containerStatuses"].as_array().is_some_and(|all| all.iter().any(started)),
    }
}
