//! Sync and the simulator behind the server's and the CLI's previews: the same code for both.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use jiff::SignedDuration;

use crate::cli::local::{Local, Previewed, Read};
use crate::clock::{Clock, SystemClock};
use crate::control;
use crate::control::autoscaler::bounds::Bounds;
use crate::model::{Key, Kind, Object, Source, SourceSpec, Timestamp};
use crate::plan::{Controller, Heeds, Plan};
use crate::schedule::Scheduler;
use crate::server::Previews;
use crate::simulate::preview::{Preview, asked_preview, preview, printable, unasked};
use crate::simulate::saved;
use crate::store::{Snapshot, Store};
use crate::sync::asked::Answers;
use crate::sync::dir::Directory;
use crate::sync::look::{Look, Memory};
use crate::sync::select::digest;
use crate::sync::source::{Fetch as _, Fetched, OpenSource, Tree};
use crate::sync::webhooks::{AskWebhooks, ROUNDS, StillOpen};

/// The server's previews, on its store and its sources.
pub struct LivePreviews {
    store: Arc<dyn Store>,
    places: Arc<dyn OpenSource>,
    webhooks: Arc<dyn AskWebhooks>,
    controllers: Vec<Arc<dyn Controller>>,
    clock: Arc<dyn Clock>,
}

impl LivePreviews {
    pub fn new(
        store: Arc<dyn Store>,
        places: Arc<dyn OpenSource>,
        webhooks: Arc<dyn AskWebhooks>,
        mut controllers: Vec<Arc<dyn Controller>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        controllers.insert(0, Arc::new(Bounds));
        Self { store, places, webhooks, controllers, clock }
    }
}

/// The controllers for one virtual clock, which shows the wall's time.
fn on_one_clock(controllers: &[Arc<dyn Controller>], clock: &dyn Clock) -> Vec<Arc<dyn Controller>> {
    let ahead = clock.steady().duration_since(clock.now());
    let on_wall = |it: &Arc<dyn Controller>| -> Arc<dyn Controller> {
        if it.is_steady() { Arc::new(OnWallTime { steady: Arc::clone(it), ahead }) } else { Arc::clone(it) }
    };
    controllers.iter().map(on_wall).collect()
}

/// A controller of the steady clock where only the wall's time is told.
struct OnWallTime {
    steady: Arc<dyn Controller>,
    /// Steady time less the wall's.
    ahead: SignedDuration,
}

impl Controller for OnWallTime {
    fn name(&self) -> &'static str {
        self.steady.name()
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        self.steady.keys(state, object)
    }

    fn heeds(&self, state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        self.steady.heeds(state, before, after)
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let mut plan = self.steady.plan(state, key, now.saturating_add(self.ahead).unwrap_or(now));
        plan.again_at = plan.again_at.map(|at| at.saturating_sub(self.ahead).unwrap_or(at));
        plan
    }
}

#[async_trait]
impl Previews for LivePreviews {
    async fn preview(&self, source: Option<String>, tree: Option<Tree>, adopt: bool) -> Result<serde_json::Value, String> {
        let name = source.ok_or("say which source the preview is for")?;
        let stored = self.store.snapshot().get(&Key::cluster(Kind::Source, &name)).and_then(|object| object.get::<Source>().cloned());
        let served = self.store.snapshot().shared_definitions();
        let look = match (tree, &stored) {
            (Some(mut tree), stored) => {
                let spec = stored.as_ref().map(|source| source.spec.clone()).unwrap_or_default();
                tree.revision = digest(&tree);
                Look::of(tree, &spec, &served, &mut Memory::default())
            }
            (None, Some(source)) => match self.places.open(&name, &source.spec)?.fetch().await {
                Fetched::Tree(tree) => Look::of(tree, &source.spec, &served, &mut Memory::default()),
                Fetched::Refused { revision, why } => Look::refused(revision, why),
                Fetched::Unreachable(why) => Look::unreachable(why),
            },
            (None, None) => return Err(format!("there is no source {name:?}: `podbay source list`")),
        };
        let source = asked(stored.unwrap_or_else(|| Source::new(&name, SourceSpec::default())), adopt);
        let (state, controllers, now) = (self.store.snapshot(), on_one_clock(&self.controllers, self.clock.as_ref()), self.clock.now());
        let mut answers = Answers::default();
        for _ in 0..ROUNDS {
            let (state, source, look, controllers) = (state.clone(), source.clone(), look.clone(), controllers.clone());
            let made = tokio::task::spawn_blocking(move || (asked_preview(&state, &source, &look, &controllers, now, &answers), answers));
            let (made, known) = made.await.map_err(|error| format!("compute the preview: {error}"))?;
            match made {
                Ok(preview) => return serde_json::to_value(preview).map_err(|error| error.to_string()),
                Err(questions) => {
                    let said = self.webhooks.ask(&questions, true).await;
                    answers = known;
                    answers.take(&questions, said);
                }
            }
        }
        Err(StillOpen.to_string())
    }
}

/// As it would be applied once by `--adopt`.
fn asked(mut source: Source, adopt: bool) -> Source {
    if adopt {
        source.spec.adopt = Some(true);
    }
    source
}

/// This host, for the client verbs.
pub struct Host;

#[async_trait]
impl Local for Host {
    async fn read_tree(&self, name: &str, directory: &Path, source: Option<&SourceSpec>) -> anyhow::Result<Read> {
        Ok(match read_directory(directory, source).await? {
            Ok(tree) => Read::Tree(tree),
            Err(why) => {
                // Neither the state nor the rest of the source enters such a preview.
                let source = Source::new(name, SourceSpec::default());
                Read::Refused(previewed(preview(&Snapshot::default(), &source, &Look::refused(None, why), &[], SystemClock.now()))?)
            }
        })
    }

    async fn preview_offline(&self, name: &str, directory: &Path, snapshot: Option<&Path>, adopt: bool) -> anyhow::Result<Previewed> {
        let mut state = match snapshot {
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
                saved::read(&bytes).with_context(|| path.display().to_string())?
            }
            None => Snapshot::default(),
        };
        let stored = state.get(&Key::cluster(Kind::Source, name)).and_then(|object| object.get::<Source>().cloned());
        let read = read_directory(directory, stored.as_ref().map(|source| &source.spec)).await?;
        let source = asked(stored.unwrap_or_else(|| Source::new(name, SourceSpec::default())), adopt);
        let look = match read {
            Ok(tree) => Look::of(tree, &source.spec, state.definitions(), &mut Memory::default()),
            Err(why) => Look::refused(None, why),
        };
        let mut unknown = look.rendered().map(|rendered| saved::assume_values(&mut state, rendered)).unwrap_or_default();
        let unasked = unasked(&state, &source, &look, SystemClock.now());
        if !unasked.is_empty() {
            unknown.push(format!("webhooks are not asked offline: {}", unasked.join(", ")));
        }
        let mut preview = preview(&state, &source, &look, &default_controllers(), SystemClock.now());
        preview.unknown = unknown.iter().map(|line| printable(line)).collect();
        previewed(preview)
    }

    fn preview_text(&self, value: &serde_json::Value) -> anyhow::Result<Previewed> {
        previewed(serde_json::from_value(value.clone()).context("the server's preview has another form: is it of another version?")?)
    }

    fn waits(&self, snapshot: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
        let state = saved::read(snapshot)?;
        let now = SystemClock.now();
        let mut waits = BTreeSet::new();
        for controller in default_controllers() {
            let keys: BTreeSet<Key> = state.iter().flat_map(|object| controller.keys(&state, object)).collect();
            waits.extend(keys.iter().flat_map(|key| controller.plan(&state, key, now).waits));
        }
        Ok(waits.into_iter().map(|wait| (wait.subject.to_string(), wait.reason.to_string())).collect())
    }
}

fn previewed(preview: Preview) -> anyhow::Result<Previewed> {
    Ok(Previewed { text: preview.to_string(), exit_code: preview.exit_code(), json: serde_json::to_value(&preview)? })
}

fn default_controllers() -> Vec<Arc<dyn Controller>> {
    let mut all = control::all(control::Options::new(SystemClock.now()));
    all.push(Arc::new(Scheduler::new()));
    all.insert(0, Arc::new(Bounds));
    all
}

/// A directory as the source it stands for reads it. A clone of a repository, whose root has a `.git`, is read below
/// the path of the source; for a git source as a commit of it will be, without submodules. Or why what it holds is not taken.
async fn read_directory(directory: &Path, source: Option<&SourceSpec>) -> anyhow::Result<Result<Tree, String>> {
    let root = std::fs::canonicalize(directory).with_context(|| format!("read {}", directory.display()))?;
    if !root.is_dir() {
        bail!("{} is a file, and a source is a directory: give the directory it is in", directory.display());
    }
    let is_clone = root.join(".git").symlink_metadata().is_ok();
    let is_git = source.map_or(is_clone, |spec| spec.git.is_some());
    let path = source.filter(|_| is_clone).and_then(|spec| spec.path.as_deref()).unwrap_or_default();
    let place = Directory::new(root, path);
    let place = if is_git { place.as_work_tree() } else { place };
    match place.fetch().await {
        Fetched::Tree(tree) => Ok(Ok(tree)),
        Fetched::Refused { why, .. } => Ok(Err(why)),
        Fetched::Unreachable(why) => bail!("read {}: {why}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::VirtualClock;
    use crate::model::GitSource;
    use crate::store::memory::MemoryStore;
    use crate::store::transaction::{Transaction, Write};

    #[tokio::test]
    async fn a_preview_after_the_clock_was_set_shows_no_node_as_lost() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock = Arc::new(VirtualClock::new(start));
        let store = MemoryStore::new(Arc::clone(&clock) as _);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let node = Object::from_value(Kind::Node, node).expect("a node");
        store.commit(Transaction::new("test").with(Write::Create(node.clone()))).await.expect("a commit");
        let all = control::all(control::Options::new(clock.steady()));
        for set_to in ["2026-01-01T01:00:00Z", "2025-12-31T23:00:00Z"] {
            clock.set(set_to.parse().expect("a time"));
            let health = on_one_clock(&all, clock.as_ref()).into_iter().find(|it| it.name() == "node-health").expect("it is one of them");
            let plan = health.plan(&store.snapshot(), node.key(), clock.now());
            assert!(plan.ops.is_empty(), "set to {set_to}: {:?}", plan.ops);
            assert_eq!(plan.again_at, clock.now().checked_add(SignedDuration::from_secs(40)).ok(), "set to {set_to}");
        }
    }

    /// The root of a clone is where people call the preview; the source reads less of it.
    #[tokio::test]
    async fn a_directory_is_read_as_the_source_it_stands_for_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for (path, text) in [
            ("prod/a.yaml", "1"),
            ("prod/old/b.yaml", "2"),
            ("prod/.podbayignore", "old/\n"),
            ("stage/c.yaml", "3"),
            ("module/d.yaml", "4"),
            ("module/.git", "gitdir: elsewhere"),
        ] {
            let at = root.join(path);
            std::fs::create_dir_all(at.parent().expect("a file is in a directory")).expect("made");
            std::fs::write(at, text).expect("written");
        }
        let git = |path: &str| SourceSpec { git: Some(GitSource::default()), path: Some(path.to_owned()), ..SourceSpec::default() };
        let directory = SourceSpec { directory: Some("/srv".to_owned()), path: Some("prod".to_owned()), ..SourceSpec::default() };
        let read = async |at: &Path, spec: Option<&SourceSpec>| {
            let tree = read_directory(at, spec).await.expect("it is read").expect("it is taken");
            (tree.files.into_keys().collect::<Vec<_>>().join(" "), tree.notes.len(), tree.path_exists)
        };
        let told = |files: &str, notes, path_exists| (files.to_owned(), notes, path_exists);
        let all = "prod/a.yaml prod/old/b.yaml stage/c.yaml";
        // No clone: this is the directory that is meant, whatever the source's path.
        assert_eq!(read(root, Some(&git("prod"))).await, told(all, 1, true));
        assert_eq!(read(root, None).await, told(&format!("module/d.yaml {all}"), 0, true));
        std::fs::create_dir(root.join(".git")).expect("made");
        assert_eq!(read(root, Some(&git("/prod/"))).await, told("a.yaml", 0, true));
        assert_eq!(read(&root.join("prod"), Some(&git("prod"))).await, told("a.yaml", 0, true));
        assert_eq!(read(root, Some(&git("none"))).await, told("", 0, false));
        assert_eq!(read(root, Some(&git(""))).await, told(all, 1, true));
        assert_eq!(read(root, None).await, told(all, 1, true));
        assert_eq!(read(root, Some(&directory)).await, told("a.yaml", 0, true));
    }

    #[tokio::test]
    async fn a_directory_that_is_refused_is_printed_as_a_source_that_is() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a\tb.yaml"), "").expect("written");
        let told = Host.preview_offline("shop", dir.path(), None, false).await.expect("it was read");
        let text = "shop\n\nErrors:\n  `a\\tb.yaml` is no name for a file or directory: it has control characters\n\nrefused: 1 error\n";
        assert_eq!((told.text.as_str(), told.exit_code), (text, 2));
        let Read::Refused(told) = Host.read_tree("shop", dir.path(), None).await.expect("it was read") else { panic!("it is taken") };
        assert_eq!((told.text.as_str(), told.exit_code), (text, 2));
        assert!(Host.preview_offline("shop", &dir.path().join("none"), None, false).await.is_err(), "nothing is known of it");
    }
}
