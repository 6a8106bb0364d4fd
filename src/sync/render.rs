//! A tree's files to the objects it wants, or every error of the tree at once. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::desired::DesiredSet;
use super::hidden::{Documents, Hidden};
use super::identity::{self, Digest, Sum};
use super::refusal::{Refusal, exported, written};
use super::source::Tree;
use super::unsaid;
use crate::admit;
use crate::model::custom::{CustomResourceDefinition, Definition, Definitions};
use crate::model::manifest::{self, Manifest, Manifests, Places, Position, Problem, Skipped, Unsupported};
use crate::model::ownership::string_data_is_data;
use crate::model::{ErrorReason, FieldError, Key, Kind, Object, SourceSpec, validate};

const WAVE: &str = "argocd.argoproj.io/sync-wave";
/// Objects of one source: as many as one transaction is made for.
pub const OBJECTS: usize = 20_000;
const REPLACE: &str = "podbay.dev/replace";

/// How a source's manifests are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Namespace of objects that name none.
    pub namespace: String,
    /// Leave out kinds that are not served, loudly, instead of refusing the tree.
    pub skip_unsupported: bool,
}

impl Options {
    pub fn of(spec: &SourceSpec) -> Self {
        let namespace = spec.namespace.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        Self { namespace, skip_unsupported: spec.unsupported.as_deref() == Some("skip") }
    }
}

/// One object that a source wants.
#[derive(Clone, Debug)]
pub struct Desired {
    /// As it would be stored: defaults set, rules checked.
    pub object: Object,
    /// What the manifest says and nothing else, in canonical form: what the source owns.
    pub applied: Value,
    pub file: String,
    pub line: u32,
    /// Where its fields are written; not known of what was read back from the store.
    places: Places,
    /// Of `applied` and the file.
    pub digest: Digest,
    /// Neither Argo CD's nor Flux's annotation forbids pruning.
    pub prune: bool,
    /// A change that cannot be made in place deletes and creates it.
    pub replace: bool,
    pub wave: i32,
}

/// What a revision wants, whole.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    pub desired: Arc<DesiredSet>,
    /// The waves they are in.
    pub(super) waves: BTreeSet<i32>,
    /// Left out, each with its reason.
    pub skipped: Vec<String>,
    /// Kind, namespace and name of the documents that were left out.
    pub(super) left_out: BTreeSet<(String, String, String)>,
    /// Over the digests of all, in order.
    pub set_digest: String,
    /// What else there may be, of a tree that cannot be read as a whole.
    pub(super) hidden: Hidden,
}

/// What is wrong with a tree, and what of it can be read.
#[derive(Debug)]
pub struct Broken {
    /// Sorted.
    pub problems: Vec<Problem>,
    /// The documents with which nothing is wrong by themselves.
    pub rest: Rendered,
}

impl Rendered {
    pub(super) fn new(desired: Vec<Arc<Desired>>, left_out: BTreeSet<(String, String, String)>, skipped: Vec<String>) -> Self {
        let desired = DesiredSet::new(desired);
        let mut waves = BTreeSet::new();
        let mut sum = Sum::default();
        for one in desired.values() {
            sum.add(one.digest);
            if !waves.contains(&one.wave) {
                waves.insert(one.wave);
            }
        }
        Self { desired: Arc::new(desired), waves, skipped, left_out, set_digest: sum.finish(), hidden: Hidden::default() }
    }

    /// Whether a document that was left out has the kind and name of this object: nobody said that
    /// it shall go.
    pub fn leaves_out(&self, key: &Key) -> bool {
        !self.left_out.is_empty() && self.left_out.contains(&(key.kind.name().to_owned(), key.namespace.clone(), key.name.clone()))
    }
}

/// Files that were rendered before: an unchanged one is not read again.
#[derive(Default)]
pub struct Cache {
    options: Option<Options>,
    /// Of the kinds there were.
    served: String,
    files: BTreeMap<String, (Digest, File)>,
}

/// What one file holds.
#[derive(Clone, Default)]
struct File {
    desired: Vec<Arc<Desired>>,
    /// Every object, those with a problem too, and where its name is.
    named: Vec<(Key, u32, Position)>,
    skipped: Vec<Skipped>,
    notes: Vec<String>,
    /// Where something is wrong with it: the objects with which nothing is.
    good: Vec<Arc<Desired>>,
    /// What the others may be.
    hidden: Hidden,
    /// Where a kind is named that is not served.
    unserved: Vec<(Position, String)>,
}

/// Renders a tree.
///
/// # Errors
/// Every error of every file, and the rest of it.
pub fn render(tree: &Tree, options: &Options, served: &Definitions, cache: &mut Cache) -> Result<Rendered, Box<Broken>> {
    let served = Arc::new(with_own(tree, options, served, cache));
    if cache.options.as_ref() != Some(options) || cache.served != served.hash() {
        *cache = Cache { options: Some(options.clone()), served: served.hash(), files: BTreeMap::new() };
    }
    let mut known = std::mem::take(&mut cache.files);
    let (mut bad, mut problems) = (BTreeMap::new(), Vec::new());
    let mut left = OBJECTS;
    for (path, content) in &tree.files {
        let digest: Digest = Sha256::digest(content).into();
        let (file, mut found) = match known.remove(path).filter(|(seen, _)| *seen == digest) {
            Some((_, file)) => (file, Vec::new()),
            None => read_file(path, content, options, &served),
        };
        if file.named.len() > left {
            return Err(Box::new(Broken { problems: vec![too_many(path, file.named[left].2)], rest: Rendered::default() }));
        }
        left -= file.named.len();
        if found.is_empty() {
            cache.files.insert(path.clone(), (digest, file));
        } else {
            problems.append(&mut found);
            bad.insert(path.clone(), file);
        }
    }
    if bad.is_empty() {
        let rendered = put_together(tree, options, cache);
        if rendered.desired.len() == OBJECTS - left {
            return Ok(rendered);
        }
    }
    Err(Box::new(broken(cache, &bad, problems)))
}

fn broken(cache: &Cache, bad: &BTreeMap<String, File>, mut problems: Vec<Problem>) -> Broken {
    let mut hidden = Hidden::default();
    bad.values().for_each(|file| hidden.extend(&file.hidden));
    // Whose definition cannot be read is served once it can.
    let unserved = bad.iter().flat_map(|(path, file)| file.unserved.iter().map(move |(at, kind)| (path, at, kind)));
    let unserved = unserved.filter(|(_, _, kind)| hidden.holds(Kind::CustomResourceDefinition, kind));
    let unserved: BTreeSet<(&String, u32, u32)> = unserved.map(|(path, at, _)| (path, at.line, at.column)).collect();
    problems.retain(|problem| !unserved.contains(&(&problem.file, problem.line, problem.column)));
    let whole = cache.files.iter().map(|(path, (_, file))| (path, file));
    refuse_twins(whole.clone().chain(bad), &mut problems);
    problems.sort_unstable();
    problems.dedup();
    let rest = whole.flat_map(|(_, file)| &file.desired).chain(bad.values().flat_map(|file| &file.good));
    let rest = Rendered { hidden, ..Rendered::new(rest.cloned().collect(), BTreeSet::new(), Vec::new()) };
    Broken { problems, rest }
}

/// The kinds that are served, and those that the tree itself defines in their place. What was read before is
/// not read again: a definition is the same whatever other kinds there are.
fn with_own(tree: &Tree, options: &Options, served: &Definitions, cache: &Cache) -> Definitions {
    const WORD: &[u8] = b"CustomResourceDefinition";
    let base = Arc::new(served.clone());
    let mut all = served.clone();
    for (path, content) in tree.files.iter().filter(|(_, content)| content.windows(WORD.len()).any(|part| part == WORD)) {
        let known = cache.files.get(path).filter(|_| cache.options.as_ref() == Some(options));
        let known = known.filter(|(seen, _)| *seen == Digest::from(Sha256::digest(content))).map(|(_, file)| file.desired.clone());
        let desired = known.unwrap_or_else(|| read_file(path, content, options, &base).0.desired);
        let defined = desired.iter().filter_map(|desired| desired.object.get::<CustomResourceDefinition>());
        defined.filter_map(Definition::of).for_each(|definition| all.put(definition));
    }
    all
}

/// The set of a tree's files, which have no problem by themselves.
fn put_together(tree: &Tree, options: &Options, cache: &Cache) -> Rendered {
    let (mut desired, mut left_out, mut skipped) = (Vec::new(), BTreeSet::new(), tree.notes.clone());
    for (_, file) in cache.files.values() {
        skipped.extend(file.skipped.iter().map(ToString::to_string).chain(file.notes.iter().cloned()));
        for document in &file.skipped {
            let cluster = Kind::all().iter().any(|row| row.name == document.kind && !row.namespaced);
            let namespace = match (cluster, document.namespace.as_str()) {
                (true, _) => "",
                (false, "") => options.namespace.as_str(),
                (false, named) => named,
            };
            left_out.insert((document.kind.clone(), namespace.to_owned(), document.name.clone()));
        }
        desired.extend(file.desired.iter().cloned());
    }
    Rendered::new(desired, left_out, skipped)
}

fn too_many(file: &str, at: Position) -> Problem {
    let message = format!("a source has at most {OBJECTS} objects: split it into several");
    Problem { file: file.to_owned(), line: at.line, column: at.column, message, hint: None }
}

/// The same object twice in a tree: both files are named.
fn refuse_twins<'a>(files: impl Iterator<Item = (&'a String, &'a File)>, problems: &mut Vec<Problem>) {
    let mut all: Vec<_> = files.flat_map(|(path, file)| file.named.iter().map(move |(key, line, at)| (key, path, line, at))).collect();
    all.sort_unstable();
    let mut first: Option<(&Key, &String, &u32)> = None;
    for (key, path, line, at) in all {
        match first.filter(|(other, ..)| *other == key) {
            Some((_, file, above)) => {
                let message = format!("{key} is given twice, first in {file}:{above}");
                problems.push(Problem { file: path.clone(), line: at.line, column: at.column, message, hint: None });
            }
            None => first = Some((key, path, line)),
        }
    }
}

fn read_file(path: &str, content: &[u8], options: &Options, served: &Arc<Definitions>) -> (File, Vec<Problem>) {
    let unsupported = if options.skip_unsupported { Unsupported::Skip } else { Unsupported::Refuse };
    let found =
        manifest::read(path, content, &manifest::Options { namespace: options.namespace.clone(), unsupported, served: Arc::clone(served) });
    let Manifests { objects, skipped, notes, starts, unserved, mut problems } = found;
    let mut file = File { skipped, notes, unserved, ..File::default() };
    for manifest in &objects {
        if unsaid::is_own(manifest.key()) {
            file.skipped.push(own(manifest));
            continue;
        }
        file.notes.extend(unsaid::told(&manifest.object));
        file.named.push((manifest.key().clone(), manifest.line, manifest.position("metadata.name")));
        match desire(manifest, served) {
            Ok(desired) => file.desired.push(Arc::new(desired)),
            Err(mut found) => problems.append(&mut found),
        }
    }
    if !problems.is_empty() {
        let text = String::from_utf8_lossy(content);
        // What is of a kind that nobody serves is no definition of one, whatever it speaks of.
        let foreign = |problem: &Problem| file.unserved.iter().any(|(at, _)| (at.line, at.column) == (problem.line, problem.column));
        let unread: Vec<Problem> = problems.iter().filter(|problem| !foreign(problem)).cloned().collect();
        let documents = Documents::of(&text, &starts, &unread);
        file.good = file.desired.iter().filter(|desired| documents.is_good(desired.place(&[""]))).cloned().collect();
        file.hidden = documents.hidden(&text);
    }
    (file, problems)
}

/// The document of an object that is the cluster's own.
fn own(manifest: &Manifest) -> Skipped {
    let key = manifest.key();
    Skipped {
        file: manifest.file.clone(),
        line: manifest.line,
        api_version: key.kind.api_version(),
        kind: key.kind.name().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        reason: "it is the cluster's own".to_owned(),
    }
}

fn desire(manifest: &Manifest, served: &Definitions) -> Result<Desired, Vec<Problem>> {
    let (normal, mut errors) = match admit::normalise(&manifest.object, served) {
        Ok(normal) => (Some(normal), Vec::new()),
        Err(errors) => (None, errors),
    };
    errors.extend(owned(&manifest.object).into_iter().chain(too_long(&manifest.object)));
    let of_pods = manifest.object.template().map(|template| validate::validate_pods(template, "spec.template")).unwrap_or_default();
    for error in of_pods {
        if errors.iter().all(|other| other.path != error.path) {
            errors.push(error);
        }
    }
    let told = |error| manifest.broken(error).map(|problem| Problem { hint: exported(&manifest.object, error), ..problem });
    let mut problems: Vec<Problem> = errors.iter().filter_map(told).collect();
    let wave = wave(&manifest.object);
    if wave.is_none() {
        problems.push(manifest.problem(&format!("metadata.annotations[{WAVE}]"), format!("annotation {WAVE} is not a whole number")));
    }
    // Where nothing is left to say of a rule, the file has its problem already.
    let (Some(object), Some(wave), true) = (normal, wave, problems.is_empty()) else { return Err(problems) };
    let applied = applied(&manifest.object, &manifest.value);
    let desired = Desired::new(object, applied, manifest.file.clone(), manifest.line, wave);
    Ok(Desired { places: manifest.places(), ..desired })
}

/// The wave an object is in; `None` where its annotation is no whole number.
fn wave(object: &Object) -> Option<i32> {
    object.annotation(WAVE).map_or(Some(0), |text| text.trim().parse().ok())
}

impl Desired {
    fn new(object: Object, applied: Value, file: String, line: u32, wave: i32) -> Self {
        Self {
            digest: digest(&applied, &file),
            applied,
            file,
            line,
            places: Places::default(),
            prune: may_prune(&object),
            replace: object.annotation(REPLACE) == Some("true"),
            wave,
            object,
        }
    }

    /// The place of the first of these fields that is written, or of what is around the first.
    fn place(&self, paths: &[&str]) -> Position {
        self.places.find(paths).unwrap_or(Position { line: self.line, column: 1 })
    }

    /// What is refused of it, at its place in the file.
    pub(super) fn problem(&self, refusal: Refusal) -> Problem {
        let paths = written(&refusal.path);
        let Position { line, column } = self.place(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        Problem { file: self.file.clone(), line, column, message: refusal.message, hint: refusal.hint }
    }

    /// From what was kept of it.
    ///
    /// # Errors
    /// Why it is no longer an object that would be accepted.
    pub(super) fn restore(applied: Value, file: String, line: u32, served: &Definitions) -> Result<Self, String> {
        let text = |field: &str| applied[field].as_str().unwrap_or_default();
        let kind =
            served.kind_of(text("apiVersion"), text("kind")).ok_or_else(|| format!("{} is not served", text("kind").escape_debug()))?;
        let said = Object::from_value(kind, applied.clone()).map_err(|_| format!("{file}:{line} does not decode"))?;
        let object = admit::normalise(&said, served).map_err(|_| format!("{} of {file}:{line} is no longer valid", said.key()))?;
        let wave = wave(&said).unwrap_or(0);
        Ok(Self::new(object, applied, file, line, wave))
    }
}

/// A Deployment's ReplicaSets are called after it, which its own name must leave room for.
fn too_long(object: &Object) -> Option<FieldError> {
    const LONGEST: usize = 253 - "-".len() - 10;
    let long = object.kind() == Kind::Deployment && object.key().name.len() > LONGEST;
    let message = format!("Too long: may not be more than {LONGEST} bytes, since its ReplicaSets have the name and eleven more");
    long.then(|| FieldError { path: "metadata.name".to_owned(), reason: ErrorReason::TooLong, message })
}

/// An owner is known by the UID that a cluster gave it: whoever writes that down has exported the
/// object, and the owner makes it anew by itself.
fn owned(object: &Object) -> Option<FieldError> {
    let owner = object.meta().owner_references.iter().flatten().next()?;
    let message = format!(
        "Forbidden: it belongs to {} {} of the cluster it was exported from and would be deleted at once: commit the owner instead, or remove `ownerReferences`",
        owner.kind, owner.name
    );
    Some(FieldError { path: "metadata.ownerReferences".to_owned(), reason: ErrorReason::Forbidden, message })
}

fn digest(applied: &Value, file: &str) -> Digest {
    let hash = Sha256::new().chain_update(identity::of_value(applied)).chain_update(file);
    hash.finalize().into()
}

/// Whether neither Argo CD's nor Flux's annotation forbids pruning an object.
pub fn may_prune(object: &Object) -> bool {
    let argo = object.annotation("argocd.argoproj.io/sync-options").unwrap_or_default();
    let flux = object.annotation("kustomize.toolkit.fluxcd.io/prune").unwrap_or_default();
    !argo.split(',').any(|option| option.trim() == "Prune=false") && flux != "disabled"
}

/// What a manifest says in the canonical form of its type: decoded scalars, but no field that the
/// type would add.
pub fn applied(object: &Object, written: &Value) -> Value {
    let mut value = restrict(object.value(), written);
    if object.kind() == Kind::Secret {
        value = string_data_is_data(value);
    }
    unsaid::take_out(object, &mut value);
    let Some(map) = value.as_object_mut() else { return value };
    map.remove("status");
    let kept = ["name", "namespace", "labels", "annotations", "finalizers"];
    let mut meta =
        map.remove("metadata").and_then(|meta| if let Value::Object(meta) = meta { Some(meta) } else { None }).unwrap_or_default();
    meta.retain(|name, _| kept.contains(&name.as_str()));
    meta.insert("name".to_owned(), Value::from(object.key().name.clone()));
    if object.key().namespace.is_empty() {
        meta.remove("namespace");
    } else {
        meta.insert("namespace".to_owned(), Value::from(object.key().namespace.clone()));
    }
    map.insert("metadata".to_owned(), Value::Object(meta));
    value
}

fn restrict(typed: Value, written: &Value) -> Value {
    match (typed, written) {
        (Value::Object(typed), Value::Object(written)) => {
            let kept = typed.into_iter().filter_map(|(name, value)| {
                let said = written.get(&name).filter(|said| !said.is_null())?;
                Some((name, restrict(value, said)))
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        (Value::Array(typed), Value::Array(written)) if typed.len() == written.len() => {
            Value::Array(typed.into_iter().zip(written).map(|(value, said)| restrict(value, said)).collect())
        }
        (typed, _) => typed,
    }
}
