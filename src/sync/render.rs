//! A tree's files to the objects it wants, or every error of the tree at once. PURE.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::identity::{self, Digest, Sum};
use super::source::Tree;
use crate::admit;
use crate::model::manifest::{self, Manifest, Problem, Unsupported};
use crate::model::{Key, Object, SourceSpec};

const WAVE: &str = "argocd.argoproj.io/sync-wave";
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
    pub desired: BTreeMap<Key, Arc<Desired>>,
    /// Left out, each with its reason.
    pub skipped: Vec<String>,
    /// Over the digests of all.
    pub set_digest: String,
}

/// Files that were rendered before: an unchanged one is not read again.
#[derive(Default)]
pub struct Cache {
    options: Option<Options>,
    files: BTreeMap<String, (Digest, File)>,
}

#[derive(Clone, Default)]
struct File {
    desired: Vec<Arc<Desired>>,
    skipped: Vec<String>,
}

/// Renders a tree.
///
/// # Errors
/// Every error of every file, sorted.
pub fn render(tree: &Tree, options: &Options, cache: &mut Cache) -> Result<Rendered, Vec<Problem>> {
    if cache.options.as_ref() != Some(options) {
        *cache = Cache { options: Some(options.clone()), files: BTreeMap::new() };
    }
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    for (path, content) in &tree.files {
        let digest: Digest = Sha256::digest(content).into();
        let known = cache.files.remove(path).filter(|(seen, _)| *seen == digest);
        match known.map_or_else(|| read_file(path, content, options), |(_, file)| Ok(file)) {
            Ok(file) => {
                files.insert(path.clone(), (digest, file));
            }
            Err(mut found) => problems.append(&mut found),
        }
    }
    cache.files = files;
    let mut rendered = Rendered { skipped: tree.notes.clone(), ..Rendered::default() };
    for (_, file) in cache.files.values() {
        rendered.skipped.extend(file.skipped.iter().cloned());
        for desired in &file.desired {
            let key = desired.object.key();
            if let Some(other) = rendered.desired.insert(key.clone(), Arc::clone(desired)) {
                problems.push(twin(key, &other, desired));
            }
        }
    }
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(problems);
    }
    rendered.set_digest = set_digest(&rendered.desired);
    Ok(rendered)
}

fn twin(key: &Key, first: &Desired, second: &Desired) -> Problem {
    let message = format!("{key} is given twice, first in {}:{}", first.file, first.line);
    Problem { file: second.file.clone(), line: second.line, column: 1, message, hint: None }
}

fn set_digest(desired: &BTreeMap<Key, Arc<Desired>>) -> String {
    let mut sum = Sum::default();
    for one in desired.values() {
        sum.add(one.digest);
    }
    sum.finish()
}

fn read_file(path: &str, content: &[u8], options: &Options) -> Result<File, Vec<Problem>> {
    let files = BTreeMap::from([(path.to_owned(), content.to_vec())]);
    let unsupported = if options.skip_unsupported { Unsupported::Skip } else { Unsupported::Refuse };
    let found = manifest::read(&files, &manifest::Options { namespace: options.namespace.clone(), unsupported })?;
    let mut file = File { desired: Vec::new(), skipped: found.skipped.iter().map(ToString::to_string).collect() };
    let mut problems = Vec::new();
    for manifest in &found.objects {
        match desire(manifest) {
            Ok(desired) => file.desired.push(Arc::new(desired)),
            Err(mut found) => problems.append(&mut found),
        }
    }
    if problems.is_empty() { Ok(file) } else { Err(problems) }
}

fn desire(manifest: &Manifest) -> Result<Desired, Vec<Problem>> {
    let object =
        admit::normalise(&manifest.object).map_err(|errors| errors.iter().map(|error| manifest.broken(error)).collect::<Vec<_>>())?;
    let wave = match manifest.object.annotation(WAVE) {
        Some(text) => text.trim().parse().map_err(|_| {
            let path = format!("metadata.annotations[{WAVE}]");
            vec![manifest.problem(&path, format!("annotation {WAVE} is not a whole number"))]
        })?,
        None => 0,
    };
    let applied = applied(&manifest.object, &manifest.value);
    Ok(Desired {
        digest: digest(&applied, &manifest.file),
        applied,
        file: manifest.file.clone(),
        line: manifest.line,
        prune: may_prune(&object),
        replace: object.annotation(REPLACE) == Some("true"),
        wave,
        object,
    })
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
    let Some(map) = value.as_object_mut() else { return value };
    map.remove("status");
    let kept = ["name", "namespace", "labels", "annotations", "ownerReferences", "finalizers"];
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
