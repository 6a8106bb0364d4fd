//! `podbay source`: list, add, suspend, resume, remove.

use std::time::{Duration, Instant};

use anyhow::bail;
use kube::Client;
use serde_json::{Value, json};

use super::args::{ClientArgs, CredentialArgs, SourceName, SourceVerb};
use super::client::{call, connect, get, items, path};
use super::error::Outcome;
use super::output;
use super::reconcile::{POLL, is_refused};
use crate::config::from_place;
use crate::model::{GitSource, Kind, Source, SourceSpec};
use crate::sync::again::CHANGED_AGAIN;
use crate::sync::asked::{DENIED, UNAVAILABLE};
use crate::sync::configured::{CONFIGURED, DROPPED};
use crate::sync::names::{PRUNE, REQUESTED_AT};
use crate::sync::status::{self, STAYS, STORE_FULL, UNDISTURBED, WAVE_FAILED};

pub async fn run(verb: &SourceVerb) -> Outcome {
    match verb {
        SourceVerb::List(client) => list(client).await,
        SourceVerb::Add { client, name, place, reference, path, unsupported, credentials } => {
            let mut spec = from_place(place);
            if let Some(git) = &mut spec.git {
                // What git calls the default: the absence of one here.
                let reference = reference.clone().filter(|reference| reference != "HEAD");
                *git = GitSource { url: git.url.clone(), reference, ..credentials.files() };
            }
            spec.path.clone_from(path);
            spec.unsupported.clone_from(unsupported);
            add(client, name, spec).await
        }
        SourceVerb::Suspend(source) => suspend(source, true).await,
        SourceVerb::Resume(source) => suspend(source, false).await,
        SourceVerb::Remove { source, prune } => remove(source, *prune).await,
    }
}

async fn list(client: &ClientArgs) -> Outcome {
    let client = connect(client).await?;
    output::print(&table(&items(&client, &path(Kind::Source, None, None)).await?));
    Ok(0)
}

/// NAME, REVISION, OBJECTS, STATE of each source.
pub(super) fn table(sources: &[Value]) -> String {
    output::table(&["NAME", "REVISION", "OBJECTS", "STATE"], sources.iter().map(row))
}

fn row(source: &Value) -> Vec<String> {
    let status = &source["status"];
    let revision = status["acceptedRevision"].as_str().unwrap_or("<none>");
    let objects = status["inventory"].as_array().map_or(0, Vec::len);
    let name = source["metadata"]["name"].as_str().unwrap_or_default();
    vec![name.to_owned(), short(revision).to_owned(), objects.to_string(), state(source)]
}

/// The first twelve characters of a commit id or tree hash.
pub(super) fn short(revision: &str) -> &str {
    let id = revision.strip_prefix("sha256:").unwrap_or(revision);
    id.get(..12).unwrap_or(id)
}

/// One sentence: what a person would want to know first.
pub(super) fn state(source: &Value) -> String {
    let status = &source["status"];
    let errors = counted(&status["errors"]);
    if source["spec"]["suspend"] == true {
        return if is_dropped(source) { "Suspended: no longer in podbay.toml" } else { "Suspended" }.to_owned();
    }
    let ready = ready(status);
    if ready["reason"] == STORE_FULL {
        return format!("Store full: {}", ready["message"].as_str().unwrap_or_default());
    }
    if let Some(plan) = status["pendingPlan"].as_str() {
        return format!("Waits for approval: podbay reconcile --approve {plan}");
    }
    if errors > 0 {
        let first = status["errors"][0].as_str().unwrap_or_default();
        // Nothing is known of a place that cannot be reached: that is no refusal.
        let first = match first.strip_prefix("unreachable: ") {
            Some(why) => format!("Unreachable: {why}"),
            // The revision is accepted, and applied up to there.
            None if is_held(source) => format!("Not removed, held back by a webhook: {first}"),
            None if ready["reason"] == WAVE_FAILED => format!("Failed: {first}"),
            None if [DENIED, UNAVAILABLE].iter().any(|reason| ready["reason"] == *reason) => format!("Held back by a webhook: {first}"),
            None if ready["reason"] == CHANGED_AGAIN => format!("Changed again and again: {first}"),
            None => format!("Refused: {first}"),
        };
        return if errors == 1 { first } else { format!("{first} (and {} more)", errors - 1) };
    }
    if status["acceptedRevision"].is_null() {
        return "Not fetched yet".to_owned();
    }
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    if let Some(disturbed) = conditions.find(|it| it["type"] == UNDISTURBED && it["status"] == "False") {
        return format!("Changed again and again: {}", disturbed["message"].as_str().unwrap_or_default());
    }
    match counted(&status["skipped"]) {
        0 => "Accepted".to_owned(),
        count => format!("Accepted, {count} left out or left alone"),
    }
}

/// How many messages there are in a list of a status, those that it only counts among them.
pub(super) fn counted(messages: &Value) -> usize {
    let lines = messages.as_array().map_or(&[][..], Vec::as_slice);
    status::counted(lines.len(), lines.last().and_then(Value::as_str).unwrap_or_default())
}

/// Where all the reasons of a refusal are, if the status has only some.
pub(super) fn all_errors(source: &Value) -> Option<String> {
    let name = source["metadata"]["name"].as_str().unwrap_or_default();
    let has_more = is_refused(source) && counted(&source["status"]["errors"]) > status::ERRORS;
    has_more.then(|| format!("hint: all of them: podbay reconcile --dry-run {name}"))
}

/// It is suspended because the daemon's configuration names it no more, not because a person said so.
fn is_dropped(source: &Value) -> bool {
    source["metadata"]["annotations"][DROPPED] == "true"
}

/// What a suspension means, and how it ends. `None`: it is not suspended.
pub(super) fn suspension(source: &Value) -> Option<String> {
    if source["spec"]["suspend"] != true {
        return None;
    }
    let name = source["metadata"]["name"].as_str().unwrap_or_default();
    Some(if is_dropped(source) {
        format!(
            "the daemon started with a podbay.toml (and --source) that does not name it; its objects stay as they are and stay its own: put it \
             back there and it goes on at the next start, or `podbay source remove {name} --prune` deletes it with what it made \
             (without --prune its objects stay)"
        )
    } else {
        format!("nothing is fetched or applied, and its objects stay as they are, until `podbay source resume {name}`")
    })
}

/// The condition that says how it is; null where there is none yet.
pub(super) fn ready(status: &Value) -> &Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == "Ready").unwrap_or(&Value::Null)
}

impl CredentialArgs {
    fn files(&self) -> GitSource {
        GitSource {
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
            ssh_key_file: self.ssh_key_file.clone(),
            known_hosts_file: self.known_hosts_file.clone(),
            ..GitSource::default()
        }
    }
}

async fn add(client: &ClientArgs, name: &str, spec: SourceSpec) -> Outcome {
    let client = connect(client).await?;
    let source = serde_json::to_value(Source::new(name, spec))?;
    call(&client, "POST", &path(Kind::Source, None, None), Some(&source)).await?;
    output::print(&format!("source/{} added\n", output::clean(name)));
    Ok(0)
}

async fn suspend(source: &SourceName, suspended: bool) -> Outcome {
    let client = connect(&source.client).await?;
    let patch = json!({"spec": {"suspend": suspended.then_some(true)}});
    let after = call(&client, "PATCH", &path(Kind::Source, None, Some(&source.name)), Some(&patch)).await?;
    output::print(&format!("source/{} {}\n", output::clean(&source.name), if suspended { "suspended" } else { "resumed" }));
    if let Some(hint) = undone(&after, suspended) {
        anstream::eprintln!("{hint}");
    }
    Ok(0)
}

/// What the configuration says counts again at the daemon's next start.
fn undone(source: &Value, suspended: bool) -> Option<&'static str> {
    let configured = source["metadata"]["labels"][CONFIGURED] == "true";
    configured.then_some(if suspended {
        "hint: it is in podbay.toml or --source of the daemon: say `suspend = true` there too, or the next start resumes it"
    } else {
        "hint: it is in podbay.toml or --source of the daemon: where it is not, or says `suspend = true`, the next start suspends it"
    })
}

/// How long it may take until webhooks have said what they have against it: the longest that one has (Kubernetes'
/// `timeoutSeconds`) and its answer to be written.
const ANSWERED: Duration = Duration::from_secs(35);

async fn remove(source: &SourceName, prune: bool) -> Outcome {
    let client = connect(&source.client).await?;
    let at = path(Kind::Source, None, Some(&source.name));
    let metadata = get(&client, &at).await?["metadata"].take();
    let request = jiff::Timestamp::now().to_string();
    if let Some(patch) = said_first(&metadata, prune, &request) {
        call(&client, "PATCH", &at, Some(&patch)).await?;
    }
    // One that is being deleted may be gone as soon as it has heard that.
    if metadata["deletionTimestamp"].is_null() {
        call(&client, "DELETE", &at, None).await?;
    }
    if prune {
        match followed(&client, &at, &request).await? {
            Removal::Gone => {}
            Removal::Held(errors) => bail!(
                "source {0} is not removed, and nothing of it is deleted:\n{1}\n`podbay source remove {0}` lets it go without",
                source.name,
                errors.join("\n")
            ),
            Removal::Unknown => {
                bail!("source {0} is to be removed with what it created, and is still there: see `podbay explain source {0}`", source.name)
            }
        }
    }
    let what =
        if prune { "removed; what it created is being deleted, unless others have something in it" } else { "removed; its objects stay" };
    output::print(&format!("source/{} {what}\n", output::clean(&source.name)));
    if metadata["labels"][CONFIGURED] == "true" && metadata["annotations"][DROPPED] != "true" {
        anstream::eprintln!("hint: it is in podbay.toml or --source of the daemon: take it out there too, or the next start adds it again");
    }
    Ok(0)
}

/// What a Source has to hear before it is deleted; `None`: nothing, it does not say that its objects go.
fn said_first(metadata: &Value, prune: bool, request: &str) -> Option<Value> {
    // Who asks without it does not want to have anything deleted, whatever was asked before and did not come to its end.
    let is_marked = !metadata["annotations"][PRUNE].is_null();
    let is_told = prune || is_marked || !metadata["deletionTimestamp"].is_null();
    is_told.then(|| json!({"metadata": {"annotations": {PRUNE: prune.then_some("true"), REQUESTED_AT: request}}}))
}

/// How far a source is that is to go with what it created.
enum Removal {
    Gone,
    /// What webhooks have against it.
    Held(Vec<String>),
    /// It is there, and nothing was said yet.
    Unknown,
}

/// Waits for the end of a removal, or for what webhooks have against it.
async fn followed(client: &Client, at: &str, request: &str) -> anyhow::Result<Removal> {
    let deadline = Instant::now() + ANSWERED;
    while Instant::now() < deadline {
        let source = match get(client, at).await {
            Ok(source) => source,
            Err(error) if is_gone(&error) => return Ok(Removal::Gone),
            Err(error) => return Err(error),
        };
        if is_held(&source) && source["status"]["handledRequest"] == request {
            let errors = source["status"]["errors"].as_array().into_iter().flatten();
            return Ok(Removal::Held(errors.filter_map(|error| error.as_str().map(str::to_owned)).collect()));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Removal::Unknown)
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404)
}

/// Webhooks hold it back from going.
fn is_held(source: &Value) -> bool {
    let ready = ready(&source["status"]);
    let says_so = ready["message"].as_str().is_some_and(|message| message.starts_with(STAYS));
    says_so && [DENIED, UNAVAILABLE].iter().any(|reason| ready["reason"] == *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restart_undoes_is_said() {
        let of = |label: &str| json!({"metadata": {"labels": {CONFIGURED: label}}});
        assert!(undone(&of("true"), true).unwrap().contains("the next start resumes it"));
        assert!(undone(&of("true"), false).unwrap().contains("the next start suspends it"));
        assert_eq!(undone(&json!({"metadata": {"name": "mine"}}), true), None);
    }

    #[test]
    fn without_prune_no_earlier_word_deletes_its_objects() {
        let (fresh, deleting) = (json!({"name": "shop"}), json!({"deletionTimestamp": "2026-11-26T10:00:00Z"}));
        let marked = json!({"annotations": {PRUNE: "true"}});
        assert_eq!(said_first(&fresh, false, "now"), None);
        for metadata in [&fresh, &deleting, &marked] {
            let patch = said_first(metadata, true, "now").unwrap();
            assert_eq!(patch["metadata"]["annotations"], json!({PRUNE: "true", REQUESTED_AT: "now"}));
        }
        for metadata in [&deleting, &marked] {
            let patch = said_first(metadata, false, "now").unwrap();
            assert_eq!(patch["metadata"]["annotations"], json!({PRUNE: null, REQUESTED_AT: "now"}));
        }
    }

    #[test]
    fn the_state_is_what_matters_most() {
        let approve = json!({"status": {"pendingPlan": "ab12", "errors": ["x"]}});
        assert_eq!(state(&approve), "Waits for approval: podbay reconcile --approve ab12");
        assert_eq!(state(&json!({"status": {"errors": ["a.yaml:1:1: no", "b"]}})), "Refused: a.yaml:1:1: no (and 1 more)");
        assert_eq!(state(&json!({"status": {"errors": ["unreachable: /srv: gone"]}})), "Unreachable: /srv: gone");
        let many = |lines: Vec<String>| {
            json!({"metadata": {"name": "shop"},
            "status": {"errors": lines, "conditions": [{"type": "Ready", "reason": "Invalid"}]}})
        };
        let shown = vec!["a.yaml:1:1: no".to_owned(); 200];
        assert_eq!(all_errors(&many(shown.clone())), None);
        let more = many([shown, vec!["and 5800 more".to_owned()]].concat());
        assert_eq!(state(&more), "Refused: a.yaml:1:1: no (and 5999 more)");
        assert_eq!(all_errors(&more).as_deref(), Some("hint: all of them: podbay reconcile --dry-run shop"));
        let full = json!({"status": {"pendingPlan": "ab12", "conditions": [{"type": "Fetched", "reason": "Fetched"},
            {"type": "Ready", "reason": "StoreFull", "message": "8 MiB free"}]}});
        assert_eq!(state(&full), "Store full: 8 MiB free");
        let failed = json!({"status": {"errors": ["Job web/a: wave 1 has failed"], "acceptedRevision": "r",
            "conditions": [{"type": "Ready", "reason": "WaveFailed"}]}});
        assert_eq!(state(&failed), "Failed: Job web/a: wave 1 has failed");
        let held = json!({"status": {"errors": ["Job web/a: no"], "acceptedRevision": "r",
            "conditions": [{"type": "Ready", "reason": "WebhookDenied"}]}});
        assert_eq!(state(&held), "Held back by a webhook: Job web/a: no");
        let stays = json!({"status": {"errors": ["Job web/a: no"], "acceptedRevision": "r",
            "conditions": [{"type": "Ready", "reason": "WebhookDenied", "message": format!("{STAYS}: Job web/a: no")}]}});
        assert_eq!(state(&stays), "Not removed, held back by a webhook: Job web/a: no");
        assert_eq!(state(&json!({"spec": {"suspend": true}})), "Suspended");
        let mut dropped = json!({"metadata": {"name": "old", "annotations": {DROPPED: "true"}}, "spec": {"suspend": true}});
        assert_eq!(state(&dropped), "Suspended: no longer in podbay.toml");
        assert!(suspension(&dropped).unwrap().contains("`podbay source remove old --prune` deletes it with what it made"));
        // A person has resumed it.
        dropped["spec"] = json!({});
        assert_eq!((state(&dropped).as_str(), suspension(&dropped)), ("Not fetched yet", None));
        assert_eq!(state(&json!({})), "Not fetched yet");
    }
}
