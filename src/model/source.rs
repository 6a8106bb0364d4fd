//! `podbay.dev/v1 Source`: what is synchronised from where, and how that goes.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use serde::{Deserialize, Serialize};

/// A git repository or a directory whose manifests are applied. Its name is its identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SourceSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SourceStatus>,
}

fn api_version() -> String {
    "podbay.dev/v1".to_owned()
}
fn kind() -> String {
    "Source".to_owned()
}

impl Source {
    pub fn new(name: &str, spec: SourceSpec) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { api_version: api_version(), kind: kind(), metadata, spec, status: None }
    }
}

/// Where the manifests are. Exactly one of `directory` and `git`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// A directory on the server's host (absolute path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Path below the directory or the repository's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Namespace of objects that name none; `default` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Seconds between looks, jittered by a tenth. Default 60 for git, 30 for a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i32>,
    /// `refuse` (default) or `skip`: what to do with kinds that are not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Nothing is fetched or applied while true; objects stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Update live objects that Podbay did not create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<PruneBudget>,
}

/// A branch, tag or commit of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// `/path`, `file://`, `https://` or `ssh://`/scp-like.
    pub url: String,
    /// Branch, tag or full commit id; the remote's HEAD where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// File with a token for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// PEM file of a private certificate authority for https, trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with a private key for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_file: Option<String>,
    /// OpenSSH `known_hosts` file; required for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_file: Option<String>,
}

/// How much a commit may delete without approval: it stops when BOTH are exceeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneBudget {
    /// Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<i32>,
    /// Percent of the source's objects. Default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
}

/// What was last seen and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The revision last fetched (commit id or tree hash).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_revision: Option<String>,
    /// The revision last accepted: what runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_revision: Option<String>,
    /// Digest of the whole set that was accepted; later waves of it are still to come while it is
    /// being applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_set: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Time>,
    /// Id of the plan that waits for approval, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_plan: Option<String>,
    /// That plan, and those that waited before it, the newest first: what each does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_plans: Vec<WaitingPlan>,
    /// One-line sum of the last plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_plan: Option<String>,
    /// Why the newest revision is not accepted: one message an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// `unsupported: skip` left these out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What admission webhooks warn of in what the accepted revision writes, or the newest would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The newest value of the annotation `podbay.dev/reconcile-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
    /// Plan ids a person approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_plan: Option<String>,
    /// Shared: a source may hold thousands of objects, and most stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory: Vec<Arc<InventoryEntry>>,
    /// Objects this source wants and another source holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<InventoryEntry>,
}

/// A plan that waits for approval, or did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingPlan {
    pub id: String,
    pub revision: String,
    /// Its first ops by object, each with the beginning of a digest where there is nothing to guess:
    /// `- ConfigMap web/a #9f86d081`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<String>,
    /// How many it has beyond them.
    #[serde(default)]
    pub more: usize,
}

/// One object of the source's inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryEntry {
    pub api_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    /// UID of the object this entry speaks of.
    pub uid: String,
    /// Podbay created it; an adopted object is never pruned.
    pub created: bool,
    /// File it came from, relative to the source's root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// `Prune=false` at the time it was accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Of what its manifest says, where the object goes by itself: a Job that is removed when it has
    /// finished.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// It has finished and was removed by its `ttlSecondsAfterFinished`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model::{Kind, schema};

    /// With every field there is: no `..Default`, so that a new field comes in here, and in `source.json`.
    fn full() -> Source {
        let text = || Some("a".to_owned());
        let entry = InventoryEntry {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "a".to_owned(),
            name: "a".to_owned(),
            uid: "a".to_owned(),
            created: true,
            file: "a".to_owned(),
            keep: true,
            digest: "a".to_owned(),
            finished: true,
        };
        let git = GitSource {
            url: "a".to_owned(),
            reference: text(),
            token_file: text(),
            ca_file: text(),
            ssh_key_file: text(),
            known_hosts_file: text(),
        };
        let spec = SourceSpec {
            directory: text(),
            git: Some(git),
            path: text(),
            namespace: text(),
            interval_seconds: Some(1),
            unsupported: text(),
            suspend: Some(true),
            adopt: Some(true),
            budget: Some(PruneBudget { objects: Some(1), percent: Some(1) }),
        };
        let status = SourceStatus {
            fetched_revision: text(),
            accepted_revision: text(),
            accepted_set: text(),
            accepted_at: Some(Time(crate::model::Timestamp::UNIX_EPOCH)),
            pending_plan: text(),
            waiting_plans: vec![WaitingPlan { id: "a".to_owned(), revision: "a".to_owned(), ops: vec!["a".to_owned()], more: 1 }],
            last_plan: text(),
            errors: vec!["a".to_owned()],
            skipped: vec!["a".to_owned()],
            warnings: vec!["a".to_owned()],
            conditions: vec![],
            handled_request: text(),
            approved_plan: text(),
            inventory: vec![Arc::new(entry.clone())],
            contested: vec![entry],
        };
        Source { status: Some(status), ..Source::new("a", spec) }
    }

    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                found.push(path.clone());
                paths(value, &path, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), found)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_has_the_fields_of_the_type() {
        let value = serde_json::to_value(full()).expect("a source is JSON");
        assert_eq!(schema::check(Kind::Source, &value), []);
        let mut written = Vec::new();
        paths(&value, "", &mut written);
        for path in schema::field_paths(Kind::Source) {
            let elsewhere = path.starts_with("metadata.") || path.starts_with("status.conditions");
            assert!(elsewhere || written.contains(&path), "source.json has {path}, which the type lacks");
        }
    }
}
