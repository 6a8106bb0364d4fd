//! `podbay reconcile`: apply now, preview, approve.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use kube::Client;
use serde_json::{Value, json};

use super::args::{PreviewFormat, ReconcileArgs};
use super::client::{call, connect, get, items, path};
use super::error::{FAILED, Outcome};
use super::local::{Local, Previewed};
use super::{output, source};
use crate::config::name_of;
use crate::model::Kind;
use crate::sync::names::{APPROVE, REQUESTED_AT};
use crate::sync::select::is_manifest;

pub async fn run(args: &ReconcileArgs, local: &dyn Local) -> Outcome {
    match (args.dry_run, args.offline) {
        (true, true) => offline(args, local).await,
        (true, false) => preview(args, local).await,
        (false, _) => apply(args).await,
    }
}

/// The directory a target names, if it names one: with a slash or a leading dot it is never a source.
/// Nor is a manifest, whose reader says what to name instead.
fn directory(target: &str) -> Option<&Path> {
    let path = Path::new(target);
    let named = path.is_dir() || (path.is_file() && is_manifest(target));
    (target.contains('/') || target.starts_with('.') || named).then_some(path)
}

async fn offline(args: &ReconcileArgs, local: &dyn Local) -> Outcome {
    let Some(target) = &args.target else { bail!("an offline preview needs a directory: podbay reconcile --dry-run --offline PATH") };
    let name = args.as_source.clone().unwrap_or_else(|| name_of(target));
    let previewed = local.preview_offline(&name, Path::new(target), args.snapshot.as_deref()).await?;
    Ok(show(&[previewed], args.output))
}

async fn preview(args: &ReconcileArgs, local: &dyn Local) -> Outcome {
    let client = connect(&args.client).await?;
    let mut bodies = Vec::new();
    match args.target.as_deref().map(|target| (target, directory(target))) {
        Some((target, Some(dir))) => {
            let files = local.read_tree(dir).await.with_context(|| format!("read {target}"))?;
            bodies.push(json!({"source": args.as_source.clone().unwrap_or_else(|| name_of(target)), "files": encoded(&files)}));
        }
        Some((name, None)) => bodies.push(json!({"source": name})),
        None => bodies.extend(source_names(&client).await?.into_iter().map(|name| json!({"source": name}))),
    }
    let mut previews = Vec::new();
    for body in bodies {
        let answer = call(&client, "POST", "/apis/podbay.dev/v1/previews", Some(&body)).await?;
        previews.push(local.preview_text(&answer)?);
    }
    Ok(show(&previews, args.output))
}

fn encoded(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&str, String> {
    files.iter().map(|(path, bytes)| (path.as_str(), base64::engine::general_purpose::STANDARD.encode(bytes))).collect()
}

fn show(previews: &[Previewed], format: PreviewFormat) -> u8 {
    for preview in previews {
        match format {
            PreviewFormat::Text => output::print(&output::clean(&preview.text)),
            PreviewFormat::Json => output::print(&output::json(&preview.json)),
        }
    }
    previews.iter().map(|preview| preview.exit_code).max().unwrap_or(0)
}

async fn source_names(client: &Client) -> anyhow::Result<Vec<String>> {
    let sources = items(client, &path(Kind::Source, None, None)).await?;
    let names: Vec<String> = sources.iter().filter_map(|source| source["metadata"]["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        bail!("there is no source yet: `podbay source add NAME PATH|URL`");
    }
    Ok(names)
}

async fn apply(args: &ReconcileArgs) -> Outcome {
    let client = connect(&args.client).await?;
    let names = match &args.target {
        Some(name) => vec![name.clone()],
        None => match &args.approve {
            Some(plan) => vec![waiting_for(&client, plan).await?],
            None => source_names(&client).await?,
        },
    };
    let mut code = 0;
    for name in names {
        code = code.max(apply_one(&client, &name, args).await?);
    }
    Ok(code)
}

/// The source whose plan waits under this id.
async fn waiting_for(client: &Client, plan: &str) -> anyhow::Result<String> {
    let sources = items(client, &path(Kind::Source, None, None)).await?;
    let found = sources.iter().find(|source| source["status"]["pendingPlan"] == plan);
    let name = found.and_then(|source| source["metadata"]["name"].as_str());
    name.map(str::to_owned).with_context(|| format!("no source waits for the approval of plan {plan}: preview again with --dry-run"))
}

/// Asks the server to look now, waits until it has, prints what came of it.
async fn apply_one(client: &Client, name: &str, args: &ReconcileArgs) -> anyhow::Result<u8> {
    let at = path(Kind::Source, None, Some(name));
    let request = jiff::Timestamp::now().to_string();
    let mut annotations = json!({REQUESTED_AT: request});
    if let Some(plan) = &args.approve {
        annotations[APPROVE] = json!(plan);
    }
    let mut patch = json!({"metadata": {"annotations": annotations}});
    if args.adopt {
        patch["spec"] = json!({"adopt": true});
    }
    call(client, "PATCH", &at, Some(&patch)).await?;
    let started = Instant::now();
    loop {
        let source = get(client, &at).await?;
        if source["status"]["handledRequest"] == request.as_str() {
            return Ok(report(name, &source));
        }
        if started.elapsed() > Duration::from_secs(args.timeout) {
            bail!("source {name} was not looked at within {} s: {}", args.timeout, source::state(&source));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn report(name: &str, source: &Value) -> u8 {
    let status = &source["status"];
    let errors: Vec<&str> = status["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if errors.is_empty() && status["pendingPlan"].is_null() {
        let revision = source::short(status["acceptedRevision"].as_str().unwrap_or("nothing"));
        let sum = status["lastPlan"].as_str().unwrap_or("no change");
        output::print(&output::clean(&format!("{name}: {revision} accepted: {sum}\n")));
        return 0;
    }
    for error in errors {
        anstream::eprintln!("{}", output::clean(error));
    }
    anstream::eprintln!("{}", output::clean(&format!("{name}: {}", source::state(source))));
    FAILED
}
