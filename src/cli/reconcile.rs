//! `podbay reconcile`: apply now, preview, approve.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use kube::Client;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::args::{PreviewFormat, ReconcileArgs};
use super::client::{call, call_within, connect, get, items, path};
use super::error::{FAILED, Outcome};
use super::local::{Local, Previewed, Read};
use super::outcome::Progress;
use super::trouble::{self, Warnings};
use super::{outcome, output, source};
use crate::config::name_of;
use crate::model::{Kind, Source, SourceSpec};
use crate::sync::approval;
use crate::sync::names::{ADOPT, APPROVE, REQUESTED_AT};
use crate::sync::select::is_manifest;
use crate::sync::status::STORE_FULL;

/// How often the server is asked how far it is.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// For a preview: of the largest trees on a slow host it takes minutes.
pub(super) const PREVIEW: Duration = Duration::from_secs(600);

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
    (!is_word(target) || named).then_some(path)
}

/// It may name a source.
fn is_word(target: &str) -> bool {
    !target.contains('/') && !target.starts_with('.')
}

async fn offline(args: &ReconcileArgs, local: &dyn Local) -> Outcome {
    let Some(target) = &args.target else { bail!("an offline preview needs a directory: podbay reconcile --dry-run --offline PATH") };
    let name = args.as_source.clone().unwrap_or_else(|| name_of(&absolute(Path::new(target))));
    let previewed = local.preview_offline(&name, Path::new(target), args.snapshot.as_deref(), args.adopt).await?;
    Ok(show(&[previewed], args.output))
}

async fn preview(args: &ReconcileArgs, local: &dyn Local) -> Outcome {
    let client = connect(&args.client).await?;
    let mut bodies = Vec::new();
    match args.target.as_deref().map(|target| (target, directory(target))) {
        // A word is a source's name first: what lies about in this directory must not change its meaning.
        Some((name, Some(_))) if args.as_source.is_none() && is_word(name) && source_is_there(&client, name).await? => {
            bodies.push(json!({"source": name}));
        }
        Some((_, Some(dir))) => {
            let sources = items(&client, &path(Kind::Source, None, None)).await?;
            let name = args.as_source.clone().unwrap_or_else(|| source_of(&sources, &absolute(dir)));
            let tree = match local.read_tree(&name, dir, spec_of(&sources, &name)?.as_ref()).await? {
                Read::Tree(tree) => tree,
                Read::Refused(preview) => return Ok(show(&[preview], args.output)),
            };
            bodies.push(json!({"source": name, "files": encoded(&tree.files), "notes": tree.notes, "pathExists": tree.path_exists}));
        }
        Some((name, None)) if args.as_source.is_some() => bail!("--as says what a directory stands for, and {name} is none"),
        Some((name, None)) => bodies.push(json!({"source": name})),
        None => bodies.extend(source_names(&client).await?.into_iter().map(|name| json!({"source": name}))),
    }
    let mut previews = Vec::new();
    for mut body in bodies {
        body["adopt"] = json!(args.adopt);
        let answer = call_within(PREVIEW, &client, "POST", "/apis/podbay.dev/v1/previews", Some(&body)).await?;
        previews.push(local.preview_text(&answer)?);
    }
    Ok(show(&previews, args.output))
}

/// The directory as it is called from everywhere: `.` says nothing of a source.
fn absolute(directory: &Path) -> String {
    std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned()).to_string_lossy().into_owned()
}

/// The one source that reads this directory, or this repository; else a name from the directory's.
fn source_of(sources: &[Value], directory: &str) -> String {
    let reads = |source: &&Value| {
        let spec = &source["spec"];
        let below = |root: &str| absolute(&Path::new(root).join(spec["path"].as_str().unwrap_or_default().trim_matches('/'))) == directory;
        let repository = spec["git"]["url"].as_str().map(|url| url.strip_prefix("file://").unwrap_or(url));
        spec["directory"].as_str().is_some_and(below)
            || repository.filter(|url| url.starts_with('/')).is_some_and(|root| absolute(Path::new(root)) == directory || below(root))
    };
    let mut found = sources.iter().filter(reads).filter_map(|source| source["metadata"]["name"].as_str());
    match (found.next(), found.next()) {
        (Some(one), None) => one.to_owned(),
        _ => name_of(directory),
    }
}

/// What is known of a source; `None` where there is none of this name.
fn spec_of(sources: &[Value], name: &str) -> anyhow::Result<Option<SourceSpec>> {
    let found = sources.iter().find(|source| source["metadata"]["name"] == name);
    found.map(|source| SourceSpec::deserialize(&source["spec"])).transpose().with_context(|| format!("the spec of source {name}"))
}

fn encoded(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&str, String> {
    files.iter().map(|(path, bytes)| (path.as_str(), base64::engine::general_purpose::STANDARD.encode(bytes))).collect()
}

/// On stderr, as kubectl says the warnings that the API sends it.
fn warn(warnings: &Value) {
    for warning in warnings.as_array().into_iter().flatten().filter_map(Value::as_str) {
        anstream::eprintln!("Warning: {}", output::clean(warning));
    }
}

fn show(previews: &[Previewed], format: PreviewFormat) -> u8 {
    previews.iter().for_each(|preview| warn(&preview.json["warnings"]));
    match (format, previews) {
        (PreviewFormat::Text, _) => previews.iter().for_each(|preview| output::print(&output::clean(&preview.text))),
        (PreviewFormat::Json, [one]) => output::print(&output::json(&one.json)),
        // One value, as kubectl prints a list.
        (PreviewFormat::Json, all) => {
            let items: Vec<&Value> = all.iter().map(|preview| &preview.json).collect();
            output::print(&output::json(&json!({"kind": "PreviewList", "items": items})));
        }
    }
    previews.iter().map(|preview| preview.exit_code).max().unwrap_or(0)
}

async fn source_is_there(client: &Client, name: &str) -> anyhow::Result<bool> {
    let sources = items(client, &path(Kind::Source, None, None)).await?;
    Ok(sources.iter().any(|source| source["metadata"]["name"] == name))
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
    let (mut names, mut approve) = (args.target.iter().cloned().collect::<Vec<_>>(), args.approve.clone());
    if let Some(said) = &args.approve {
        let sources = items(&client, &path(Kind::Source, None, None)).await?;
        let (name, plan) = approval(&sources, args.target.as_deref(), said)?;
        (names, approve) = (vec![name], Some(plan));
    } else if names.is_empty() {
        names = active(&client).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut code = 0;
    for name in &names {
        let end = Applying { client: &client, name, approve: approve.as_deref(), args, deadline }.run().await?;
        code = code.max(end.show(name, args.output));
    }
    Ok(code)
}

/// Every source that is not suspended; the others are named.
async fn active(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut names = source_names(client).await?;
    for source in items(client, &path(Kind::Source, None, None)).await? {
        if let (Some(name), true) = (source["metadata"]["name"].as_str(), source["spec"]["suspend"] == true) {
            names.retain(|other| other != name);
            anstream::eprintln!("{}", output::clean(&format!("{name}: suspended, left alone")));
        }
    }
    Ok(names)
}

/// Digits of a plan's id: SHA-256 in hexadecimal.
const ID: usize = 64;
/// Digits of it that messages show, and that are taken for it.
const SHORT_ID: usize = 12;

/// The source and the plan that are approved by an id, or by the beginning of one that waits.
fn approval(sources: &[Value], target: Option<&str>, said: &str) -> anyhow::Result<(String, String)> {
    if said.len() < SHORT_ID {
        bail!("{said} is too short for the id of a plan: say {SHORT_ID} digits of it or all {ID}");
    }
    let waiting =
        sources.iter().filter_map(|source| Some((source["metadata"]["name"].as_str()?, source["status"]["pendingPlan"].as_str()?)));
    let mut found = waiting.filter(|(name, plan)| target.is_none_or(|target| target == *name) && plan.starts_with(said));
    match (found.next(), found.next(), target) {
        (Some((name, plan)), None, _) => Ok((name.to_owned(), plan.to_owned())),
        (Some((one, _)), Some((other, _)), _) => bail!("plans of {one} and of {other} begin with {said}: say which source"),
        // Previewed, and not looked at since: it waits as soon as it is.
        (None, _, Some(target)) if said.len() >= ID => Ok((target.to_owned(), said.to_owned())),
        (None, ..) => bail!("{}", no_longer(sources, target, said)),
    }
}

/// Why a plan cannot be approved that waits nowhere.
fn no_longer(sources: &[Value], target: Option<&str>, said: &str) -> String {
    let typed = sources.iter().filter_map(|source| Source::deserialize(source).ok().map(|typed| (source, typed)));
    let is_meant = |typed: &Source| target.is_none_or(|target| typed.metadata.name.as_deref() == Some(target));
    let found = typed.filter(|(_, typed)| is_meant(typed)).find(|(_, typed)| approval::known(typed, said).is_some());
    let Some((value, source)) = found else {
        return match target {
            Some(target) => format!(
                "source {target} waits for no plan {said}, nor is that plan known: preview again with --dry-run, and say its whole id"
            ),
            None => format!("no source waits for the approval of plan {said}, nor is that plan known: preview again with --dry-run"),
        };
    };
    let (name, status) = (source.metadata.name.as_deref().unwrap_or_default(), source.status.clone().unwrap_or_default());
    let (sum, asked) = (status.last_plan.unwrap_or_default(), approval::known(&source, said));
    match (&status.pending_plan, status.approved_plan) {
        (Some(now), _) => {
            let how = approval::difference(asked, approval::known(&source, now));
            format!(
                "plan {said} of source {name} is not the one that waits: it has moved on to plan {now}: {sum}; {how}; see it with --dry-run"
            )
        }
        (None, Some(approved)) if approved.starts_with(said) => format!("plan {said} of source {name} was approved already"),
        (None, _) => {
            // While it is refused the sum is that of an earlier plan.
            let sum = if status.errors.is_empty() { format!(": {sum}") } else { String::new() };
            format!("plan {said} of source {name} waits no more, it has moved on: {}{sum}", source::state(value))
        }
    }
}

/// One source that is looked at now, and what comes of it.
struct Applying<'a> {
    client: &'a Client,
    name: &'a str,
    /// The whole id of the plan that is approved.
    approve: Option<&'a str>,
    args: &'a ReconcileArgs,
    deadline: Instant,
}

/// That the store is too full may have been said of an earlier try: after this long there was another.
const TRIES_AGAIN: Duration = Duration::from_secs(3);

/// How it ended.
enum End {
    /// Nothing was accepted: all the reasons.
    Refused(Value, Vec<String>),
    /// Accepted; with `--no-wait` that is all there is to know.
    Accepted(Value),
    Healthy(Value),
    Failed(Value, String),
    /// What for, and what stands in the way of its pods.
    TimedOut(Value, Vec<String>),
}

impl Applying<'_> {
    async fn run(&self) -> anyhow::Result<End> {
        let at = path(Kind::Source, None, Some(self.name));
        let found = get(self.client, &at).await?;
        if found["spec"]["suspend"] == true {
            bail!("source {0} is suspended: `podbay source resume {0}`", self.name);
        }
        let request = jiff::Timestamp::now().to_string();
        call(self.client, "PATCH", &at, Some(&self.patch(&request))).await?;
        let believed = Instant::now() + TRIES_AGAIN;
        loop {
            let source = get(self.client, &at).await?;
            if source["status"]["handledRequest"] == request.as_str() {
                if is_refused(&source) || ready(&source) == "Unreachable" {
                    let errors = errors(&source);
                    return Ok(End::Refused(source, errors));
                }
                return self.follow(&at, source).await;
            }
            if ready(&source) == STORE_FULL && Instant::now() >= believed {
                bail!("source {}: {}", self.name, source::state(&source));
            }
            if Instant::now() >= self.deadline {
                bail!("source {} was not looked at within {} s: {}", self.name, self.args.timeout, source::state(&source));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn patch(&self, request: &str) -> Value {
        let mut annotations = json!({REQUESTED_AT: request});
        if let Some(plan) = self.approve {
            annotations[APPROVE] = json!(plan);
        }
        if self.args.adopt {
            annotations[ADOPT] = json!(request);
        }
        json!({"metadata": {"annotations": annotations}})
    }

    /// The revision is accepted: waits until all its waves are applied and all of it is healthy.
    async fn follow(&self, at: &str, mut source: Value) -> anyhow::Result<End> {
        if self.args.output == PreviewFormat::Text {
            let revision = source::short(source["status"]["acceptedRevision"].as_str().unwrap_or("nothing"));
            let sum = source["status"]["lastPlan"].as_str().unwrap_or("no change");
            let left = match source::counted(&source["status"]["skipped"]) {
                0 => String::new(),
                count => format!("; {count} left out or left alone: podbay explain {}", self.name),
            };
            output::print(&output::clean(&format!("{}: {revision} accepted: {sum}{left}\n", self.name)));
        }
        if self.args.no_wait {
            return Ok(End::Accepted(source));
        }
        loop {
            let typed: Source = serde_json::from_value(source.clone()).context("the server's Source has another form")?;
            let mut live = Vec::new();
            for kind in outcome::kinds(&typed) {
                live.extend(items(self.client, &path(kind, None, None)).await?);
            }
            match outcome::progress(&typed, &live) {
                Progress::Healthy => return Ok(End::Healthy(source)),
                Progress::Failed(why) => return Ok(End::Failed(source, why)),
                Progress::Waits(why) if Instant::now() >= self.deadline => {
                    let pods = self.troubled(&outcome::unhealthy(&typed, &live)).await?;
                    return Ok(End::TimedOut(source, [vec![why], pods].concat()));
                }
                Progress::Waits(_) => tokio::time::sleep(POLL).await,
            }
            source = get(self.client, at).await?;
            if is_refused(&source) {
                // A newer revision, while this one was on its way.
                let errors = errors(&source);
                return Ok(End::Refused(source, errors));
            }
        }
    }

    /// What stands in the way of the pods of these objects.
    async fn troubled(&self, waiting: &[&Value]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        let namespaces: BTreeSet<&str> = waiting.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
        for namespace in namespaces {
            let pods = items(self.client, &path(Kind::Pod, Some(namespace), None)).await?;
            let warnings = Warnings::read(self.client, Some(namespace)).await?;
            let here = waiting.iter().filter(|object| object["metadata"]["namespace"] == namespace);
            lines.extend(here.flat_map(|object| trouble::of_workload(object, &pods, &warnings)));
        }
        Ok(lines)
    }
}

fn errors(source: &Value) -> Vec<String> {
    source["status"]["errors"].as_array().into_iter().flatten().filter_map(|error| error.as_str().map(str::to_owned)).collect()
}

/// Why a source is ready or not, in a word.
fn ready(source: &Value) -> &str {
    let mut conditions = source["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["reason"].as_str()).unwrap_or_default()
}

/// The newest revision is not the accepted one.
pub(super) fn is_refused(source: &Value) -> bool {
    matches!(ready(source), "Invalid" | "Refused" | "NeedsApproval")
}

impl End {
    /// Prints it and returns the exit code.
    fn show(&self, name: &str, format: PreviewFormat) -> u8 {
        warn(&self.source()["status"]["warnings"]);
        match format {
            PreviewFormat::Text => self.tell(name),
            PreviewFormat::Json => output::print(&output::json(&self.json(name))),
        }
        match self {
            End::Accepted(_) | End::Healthy(_) => 0,
            End::Refused(..) | End::Failed(..) | End::TimedOut(..) => FAILED,
        }
    }

    fn source(&self) -> &Value {
        match self {
            End::Accepted(source) | End::Healthy(source) => source,
            End::Refused(source, _) | End::TimedOut(source, _) => source,
            End::Failed(source, _) => source,
        }
    }

    fn tell(&self, name: &str) {
        let complain = |text: String| anstream::eprintln!("{}", output::clean(&text));
        match self {
            End::Accepted(_) => {}
            End::Healthy(_) => output::print(&output::clean(&format!("{name}: applied and healthy\n"))),
            End::Refused(source, errors) => {
                errors.iter().for_each(|error| complain(error.clone()));
                complain(format!("{name}: {}", source::state(source)));
                source::all_errors(source).into_iter().for_each(complain);
            }
            End::Failed(_, why) => complain(format!("{name}: failed: {why}")),
            End::TimedOut(_, why) => complain(format!("{name}: accepted, but still waits: {}", why.join("\n  "))),
        }
    }

    fn json(&self, name: &str) -> Value {
        let (outcome, source, messages) = match self {
            End::Accepted(source) => ("accepted", source, Vec::new()),
            End::Healthy(source) => ("healthy", source, Vec::new()),
            End::Refused(source, errors) => ("refused", source, errors.clone()),
            End::Failed(source, why) => ("failed", source, vec![why.clone()]),
            End::TimedOut(source, why) => ("timedOut", source, why.clone()),
        };
        let status = &source["status"];
        json!({"source": name, "outcome": outcome, "messages": messages, "fetchedRevision": status["fetchedRevision"],
            "acceptedRevision": status["acceptedRevision"], "pendingPlan": status["pendingPlan"], "sum": status["lastPlan"],
            "leftOut": status["skipped"], "warnings": status["warnings"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_previewed_as_the_source_that_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let below = place.path().join("manifests");
        std::fs::create_dir(&below).unwrap();
        let source = |name: &str, path: &str| json!({"metadata": {"name": name}, "spec": {"directory": place.path(), "path": path}});
        let directory = absolute(&below.join("."));
        assert_eq!(source_of(&[source("shop", "manifests"), source("other", "")], &directory), "shop");
        assert_eq!(source_of(&[source("a", "manifests"), source("b", "manifests")], &directory), "manifests", "two: it cannot be said");
        assert_eq!(source_of(&[], &directory), "manifests");
        let git = |name: &str, url: &str, path: &str| json!({"metadata": {"name": name}, "spec": {"git": {"url": url}, "path": path}});
        let url = place.path().display().to_string();
        for url in [&url, &format!("file://{url}")] {
            assert_eq!(source_of(&[git("shop", url, "manifests")], &absolute(place.path())), "shop", "as its clone");
            assert_eq!(source_of(&[git("shop", url, "/manifests")], &absolute(place.path())), "shop");
            assert_eq!(source_of(&[git("shop", url, "manifests")], &directory), "shop", "as what it reads");
        }
        assert_eq!(source_of(&[git("shop", "https://example.org/manifests", "")], &directory), "manifests");
    }

    #[test]
    fn a_plan_is_approved_by_its_id_or_the_beginning_of_one_that_waits() {
        let plan = |first: &str| format!("{first:0<64}");
        let source = |name: &str, plan: &str| json!({"metadata": {"name": name}, "status": {"pendingPlan": plan}});
        let waited = |first: &str, revision: &str, ops: Value| json!({"id": plan(first), "revision": revision, "ops": ops});
        let moved = json!({"metadata": {"name": "e"}, "status": {"pendingPlan": plan("111111111111e"), "lastPlan": "2 to delete", "waitingPlans": [
            waited("111111111111e", "r6", json!([])), waited("555555555555", "r5", json!(["- ConfigMap web/a #01"]))]}});
        let done = json!({"metadata": {"name": "d"}, "status": {"approvedPlan": plan("333333333333"), "acceptedRevision": "r", "lastPlan": "1 to create",
            "waitingPlans": [waited("333333333333", "r", json!([])), waited("444444444444", "r", json!([]))]}});
        let sources =
            [source("a", &plan("111111111111a")), source("b", &plan("111111111111b")), json!({"metadata": {"name": "c"}}), done, moved];
        let is = |name: &str, first: &str| Ok((name.to_owned(), plan(first)));
        let rows = [
            (None, plan("111111111111a"), is("a", "111111111111a")),
            (None, "111111111111b".to_owned(), is("b", "111111111111b")),
            (Some("b"), "111111111111".to_owned(), is("b", "111111111111b")),
            (None, "111111111111".to_owned(), Err("plans of a and of b")),
            (None, "222222222222".to_owned(), Err("no source waits")),
            (None, "333333333333".to_owned(), Err("plan 333333333333 of source d was approved already")),
            (Some("d"), "444444444444".to_owned(), Err("of source d waits no more, it has moved on: Accepted: 1 to create")),
            (Some("a"), "444444444444".to_owned(), Err("nor is that plan known")),
            (None, plan("555555555555"), Err("not the one that waits: it has moved on to plan 111111111111e")),
            (None, "555555555555".to_owned(), Err(": 2 to delete; no longer in it: - ConfigMap web/a; it is of revision r6, not r5;")),
            (None, plan("2"), Err("no source waits")),
            (Some("c"), "222222222222".to_owned(), Err("say its whole id")),
            (Some("c"), plan("2"), is("c", "2")),
            (Some("a"), plan("2"), is("a", "2")),
            (Some("b"), "1".to_owned(), Err("too short")),
        ];
        for (target, said, wanted) in rows {
            match (approval(&sources, target, &said), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{said}: {error}"),
                (found, _) => panic!("{target:?} {said}: {found:?}"),
            }
        }
    }
}
