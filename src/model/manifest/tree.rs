//! The documents of a tree become objects, or every error of the tree. PURE.

use std::collections::BTreeMap;

use serde_json::Value;

use super::position::{Inside, Position, Spot};
use super::{Document, Fault, Problem, TREE_BYTES, parse_file};
use crate::admit::FieldError;
use crate::model::{Key, Kind, Object, schema};

/// How a tree is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of objects that name none.
    pub namespace: String,
    pub unsupported: Unsupported,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: "default".to_owned(), unsupported: Unsupported::Refuse }
    }
}

/// What to do about kinds that are not served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsupported {
    #[default]
    Refuse,
    /// Leave them out, and say so.
    Skip,
}

/// What a tree holds.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// By file, then in the order they are written.
    pub objects: Vec<Manifest>,
    /// Left out by [`Unsupported::Skip`]: everyone who shows the tree shows these.
    pub skipped: Vec<Skipped>,
}

/// One object of a tree.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Decoded, with its namespace; no defaults are set.
    pub object: Object,
    /// As written, after aliases and merges.
    pub value: Value,
    pub file: String,
    pub line: u32,
    spot: Spot,
}

/// A document of a kind that is not served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    pub file: String,
    pub line: u32,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// `CronJob is not served`.
    pub reason: String,
}

/// `cron.yaml:1: CronJob jobs/nightly: CronJob (batch/v1) is not served`
impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{}:{}: {} {}{slash}{}: {}", self.file, self.line, self.kind, self.namespace, self.name, self.reason)
    }
}

impl Manifest {
    pub fn key(&self) -> &Key {
        self.object.key()
    }

    /// Where the field of a path in Kubernetes' notation is written (`spec.containers[0].name`);
    /// for a field that is not, the innermost thing around it that is.
    pub fn position(&self, path: &str) -> Position {
        self.spot.find(path, true)
    }

    /// A problem at a field.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Fault::new(self.position(path), message.into()).in_file(&self.file)
    }

    /// A broken rule as a problem of this file: `web.yaml:9:5: Deployment.spec.replicas: must not be negative`.
    pub fn broken(&self, error: &FieldError) -> Problem {
        let place = if error.path.is_empty() { self.key().kind.to_string() } else { format!("{}.{}", self.key().kind, error.path) };
        self.problem(&error.path, format!("{place}: {}", error.message))
    }
}

/// Reads every file of a tree.
///
/// # Errors
/// Every problem of every file, sorted.
pub fn read(files: &BTreeMap<String, Vec<u8>>, options: &Options) -> Result<Manifests, Vec<Problem>> {
    let total: usize = files.values().map(Vec::len).sum();
    if total > TREE_BYTES {
        let message = format!("the manifests have {total} bytes together, at most {TREE_BYTES} are read");
        let file = files.keys().next().cloned().unwrap_or_default();
        return Err(vec![Fault::new(Position::START, message).in_file(&file)]);
    }
    let mut reader = Reader { options, found: Manifests::default(), problems: Vec::new() };
    for (file, bytes) in files {
        let (documents, mut problems) = parse_file(file, bytes);
        reader.problems.append(&mut problems);
        documents.into_iter().for_each(|document| reader.take(file, document, true));
    }
    reader.refuse_twins();
    if reader.problems.is_empty() {
        Ok(reader.found)
    } else {
        reader.problems.sort();
        Err(reader.problems)
    }
}

struct Reader<'a> {
    options: &'a Options,
    found: Manifests,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn take(&mut self, file: &str, document: Document, may_be_list: bool) {
        let at = document.spot.at;
        let Value::Object(fields) = &document.value else {
            return self.refuse(file, at, "a manifest is a mapping with apiVersion and kind, not this", None);
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        match (api_version.is_empty(), kind.is_empty()) {
            (true, true) => return self.refuse(file, at, "this document has no apiVersion and no kind", None),
            (true, false) => {
                let hint =
                    Kind::all().iter().find(|row| row.name == kind).map(|row| format!("add `apiVersion: {}`", row.kind.api_version()));
                return self.refuse(file, at, format!("this {kind} has no apiVersion"), hint);
            }
            (false, true) => return self.refuse(file, at, "this document has no kind", None),
            (false, false) => {}
        }
        if may_be_list && api_version == "v1" && kind == "List" {
            return self.take_items(file, document);
        }
        match Kind::of(&api_version, &kind) {
            Some(kind) => self.take_object(file, kind, document),
            None => self.unserved(file, &api_version, &kind, &document),
        }
    }

    fn take_items(&mut self, file: &str, mut document: Document) {
        let items = document.value.get_mut("items").map(Value::take);
        let spots = match document.spot.inside {
            Inside::Fields(mut fields) => fields.remove("items").map(|field| field.value),
            _ => None,
        };
        match (items, spots.map(|spot| spot.inside)) {
            (Some(Value::Array(items)), Some(Inside::Items(spots))) => {
                for (value, spot) in items.into_iter().zip(spots) {
                    self.take(file, Document { value, spot }, false);
                }
            }
            (None | Some(Value::Null), _) => {}
            _ => self.refuse(file, document.spot.at, "`items` of a List is a list of objects", None),
        }
    }

    fn take_object(&mut self, file: &str, kind: Kind, document: Document) {
        let Document { value, spot } = document;
        let findings = schema::check(kind, &value);
        for finding in &findings {
            let of_key = matches!(finding.fault, schema::Fault::Unknown { .. });
            self.refuse(file, spot.find(&finding.path, of_key), finding.message(kind), finding.hint());
        }
        if !findings.is_empty() {
            return;
        }
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            let generated = value.pointer("/metadata/generateName").is_some_and(|it| !it.is_null());
            let hint = generated.then(|| "a generated name would make a new object at every look".to_owned());
            return self.refuse(file, spot.find("metadata.name", true), format!("this {kind} has no metadata.name"), hint);
        }
        match Object::from_value(kind, value.clone()) {
            Ok(object) => {
                let namespace = self.options.namespace.clone();
                let object = object.edit_meta(|meta| match kind.info().namespaced {
                    // As the API server does: a name that has no meaning is dropped.
                    false => meta.namespace = None,
                    true => {
                        if meta.namespace.as_deref().unwrap_or_default().is_empty() {
                            meta.namespace = Some(namespace);
                        }
                    }
                });
                self.found.objects.push(Manifest { object, value, file: file.to_owned(), line: spot.at.line, spot });
            }
            Err(error) => {
                let message = if kind == Kind::Secret { "this Secret does not decode".to_owned() } else { error.to_string() };
                self.refuse(file, spot.at, message, None);
            }
        }
    }

    fn unserved(&mut self, file: &str, api_version: &str, kind: &str, document: &Document) {
        let same_name = Kind::all().iter().find(|row| row.name == kind);
        let nearest = schema::nearest(kind, Kind::all().iter().map(|row| row.name));
        let (reason, hint) = match (same_name, nearest) {
            (Some(row), _) => {
                (format!("{kind} of {api_version} is not served"), Some(format!("{kind} is served as {}", row.kind.api_version())))
            }
            (None, Some(name)) => (format!("kind {kind} ({api_version}) is not served"), Some(format!("did you mean `{name}`?"))),
            (None, None) => (format!("kind {kind} ({api_version}) is not served"), None),
        };
        if self.options.unsupported == Unsupported::Refuse {
            let hint = hint.or_else(|| Some("`unsupported: skip` on the Source leaves such documents out".to_owned()));
            return self.refuse(file, document.spot.find("kind", true), reason, hint);
        }
        let text = |path: &str| document.value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.found.skipped.push(Skipped {
            file: file.to_owned(),
            line: document.spot.at.line,
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            reason,
        });
    }

    /// The same object twice in a tree: both files are named.
    fn refuse_twins(&mut self) {
        let mut first: BTreeMap<&Key, &Manifest> = BTreeMap::new();
        let mut twins = Vec::new();
        for manifest in &self.found.objects {
            match first.get(manifest.key()) {
                Some(other) => twins.push(
                    manifest.problem("metadata.name", format!("{} is given twice, first in {}:{}", manifest.key(), other.file, other.line)),
                ),
                None => {
                    first.insert(manifest.key(), manifest);
                }
            }
        }
        self.problems.append(&mut twins);
    }

    fn refuse(&mut self, file: &str, at: Position, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Fault { hint, ..Fault::new(at, message.into()) }.in_file(file));
    }
}
