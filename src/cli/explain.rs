//! `podbay explain`: why something is not as wanted. Every answer is a print of what the planners
//! decided and of what the node reported; nothing is guessed here.

use jiff::Timestamp;
use serde_json::Value;

use super::args::NamedArgs;
use super::client::{connect, items, named_target, path, within};
use super::error::Outcome;
use super::local::Local;
use super::trouble::{self, Warnings};
use super::{describe, drift, get, output, snapshot, source};
use crate::model::{Key, Kind};
use crate::sync::status::INVALID;

pub async fn run(args: &NamedArgs, local: &dyn Local) -> Outcome {
    let (kind, name) = subject(&args.what)?;
    let client = connect(&args.client).await?;
    let object = get::object(&client, kind, args.namespace.as_deref(), &name).await?;
    let mut lines = match kind {
        Kind::Source => source_lines(&object),
        Kind::Pod => trouble::reasons(&object),
        _ => conditions(&object),
    };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let snapshot = within(client.request_text(http::Request::get(snapshot::PATH).body(Vec::new())?)).await?;
    let subject = Key::new(kind, namespace, &name).to_string();
    lines.extend(local.waits(snapshot.as_bytes())?.into_iter().filter(|(about, _)| *about == subject).map(|(_, reason)| reason));
    if matches!(kind, Kind::Deployment | Kind::ReplicaSet | Kind::Job) {
        let pods = items(&client, &path(Kind::Pod, Some(namespace), None)).await?;
        lines.extend(trouble::of_workload(&object, &pods, &Warnings::read(&client, Some(namespace)).await?));
    }
    lines.extend(drift::pending(&client, kind, &object).await?);
    let mut seen = std::collections::BTreeSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    if lines.is_empty() {
        lines.push("nothing stands in its way: it is as wanted".to_owned());
    }
    let events = describe::events_of(&client, &object).await?;
    lines.extend(drift::put_back(&events, Timestamp::now()));
    let mut text = format!("{subject}\n");
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    let newest = &events[events.len().saturating_sub(5)..];
    if !newest.is_empty() {
        text.push_str(&describe::events_table(newest, Timestamp::now()));
    }
    output::print(&output::clean(&text));
    Ok(0)
}

/// A single word that is no kind is a source's name.
fn subject(words: &[String]) -> anyhow::Result<(Kind, String)> {
    match words {
        [one] if !one.contains('/') && Kind::of_word(one).is_none() => Ok((Kind::Source, one.clone())),
        _ => named_target(words),
    }
}

fn source_lines(object: &Value) -> Vec<String> {
    let status = &object["status"];
    let mut lines = vec![source::state(object)];
    lines.extend(source::suspension(object));
    lines.extend(not_accepted(status));
    lines.extend(status["errors"].as_array().into_iter().flatten().filter_map(|error| error.as_str().map(str::to_owned)));
    lines.extend(source::all_errors(object));
    lines.extend(status["skipped"].as_array().into_iter().flatten().filter_map(|it| it.as_str().map(|it| format!("left out: {it}"))));
    lines.extend(status["warnings"].as_array().into_iter().flatten().filter_map(|it| it.as_str().map(|it| format!("warning: {it}"))));
    lines.extend(conditions(object));
    if let Some(plan) = status["lastPlan"].as_str() {
        lines.push(format!("last plan: {plan}"));
    }
    lines
}

/// What was fetched last, where something else is in force.
fn not_accepted(status: &Value) -> Option<String> {
    let accepted = status["acceptedRevision"].as_str();
    let newest = match status["fetchedRevision"].as_str() {
        Some(fetched) if accepted == Some(fetched) => return None,
        Some(fetched) => format!("newest revision {}", source::short(fetched)),
        // A directory that is not read whole has no revision.
        None if source::ready(status)["reason"] == INVALID => "what it holds now".to_owned(),
        None => return None,
    };
    let in_force = accepted.map(|accepted| format!("{} is the one in force", source::short(accepted)));
    Some(format!("{newest} is not accepted; {}", in_force.unwrap_or_else(|| "none was before".to_owned())))
}

/// Conditions that carry a message and are not as they should be.
fn conditions(object: &Value) -> Vec<String> {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let troubled = conditions.filter(|condition| {
        let failed = matches!(
            condition["type"].as_str(),
            Some("Failed" | "ReplicaFailure" | "MemoryPressure" | "DiskPressure" | "PIDPressure" | "NetworkUnavailable" | "StoreFull")
        );
        (condition["status"] == "True") == failed
    });
    troubled
        .filter_map(|condition| {
            let message = condition["message"].as_str().filter(|message| !message.is_empty())?;
            Some(format!("{}: {}: {message}", condition["type"].as_str()?, condition["reason"].as_str().unwrap_or_default()))
        })
        .collect()
}
