//! The documents of a file become objects, and everything that is wrong with them. PURE.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::foreign::is_foreign;
use super::position::{Inside, Position, Spot};
use super::{Document, Fault, Places, Problem, export, parse_file, repair};
use crate::admit::FieldError;
use crate::model::custom::Definitions;
use crate::model::{Key, Kind, Object, schema};

/// How manifests are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of objects that name none.
    pub namespace: String,
    pub unsupported: Unsupported,
    /// The kinds there are.
    pub served: Arc<Definitions>,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: "default".to_owned(), unsupported: Unsupported::Refuse, served: Arc::default() }
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

/// What a file holds, beside what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// In the order they are written. One with a problem is among them where it can be read
    /// without what is wrong, so that its other errors are found too.
    pub objects: Vec<Manifest>,
    /// Left out by [`Unsupported::Skip`]: everyone who shows the tree shows these.
    pub skipped: Vec<Skipped>,
    /// Fields that are left out because an exported object carries them, each with its reason.
    pub notes: Vec<String>,
    /// Where each document begins, and each item of a list.
    pub starts: Vec<Position>,
    /// Where a kind is named that is not served: its problem's place.
    pub unserved: Vec<(Position, String)>,
    /// Sorted. Where there is one, nothing of the file may be used.
    pub problems: Vec<Problem>,
}

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Decoded, with its namespace; no defaults are set.
    pub object: Object,
    /// As written, after aliases and merges, without status; in the version its kind is stored in.
    pub value: Value,
    pub file: String,
    pub line: u32,
    spot: Spot,
    /// Fields of which something is said already: rules about them would repeat it.
    faulty: Vec<String>,
    /// What is written, where that is another version than the stored one.
    written: Option<(Kind, Value)>,
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

    /// The same for whoever keeps the object.
    pub fn places(&self) -> Places {
        Places::of(&self.spot)
    }

    /// A problem at a field.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Fault::new(self.position(path), message.into()).in_file(&self.file)
    }

    /// A broken rule as a problem of this file: `web.yaml:9:5: Deployment.spec.replicas: must not be negative`.
    /// None where the field's own problem says it already.
    pub fn broken(&self, error: &FieldError) -> Option<Problem> {
        let written = self.written.as_ref().and_then(|(kind, written)| kind.conversion()?.place(&error.path, written));
        let path = written.as_ref().unwrap_or(&error.path);
        if self.faulty.iter().any(|faulty| is_within(path, faulty)) {
            return None;
        }
        Some(self.problem(path, told(self.key().kind, path, &error.message)))
    }
}

/// A broken rule of a field: `Deployment.spec.replicas: must not be negative`.
pub fn told(kind: Kind, path: &str, message: &str) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    format!("{kind}{dot}{path}: {message}")
}

fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Reads a file.
pub fn read(file: &str, bytes: &[u8], options: &Options) -> Manifests {
    let (documents, problems) = parse_file(file, bytes);
    let mut reader = Reader { file, options, found: Manifests { problems, ..Manifests::default() } };
    documents.into_iter().for_each(|document| reader.take(document));
    reader.found.problems.sort_unstable();
    reader.found
}

struct Reader<'a> {
    file: &'a str,
    options: &'a Options,
    found: Manifests,
}

impl Reader<'_> {
    fn take(&mut self, document: Document) {
        let at = document.spot.at;
        self.found.starts.push(at);
        let Value::Object(fields) = &document.value else {
            return self.refuse(at, "a manifest is a mapping with apiVersion and kind, not this", None);
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        match (api_version.is_empty(), kind.is_empty()) {
            (true, true) => return self.refuse(at, "this document has no apiVersion and no kind", None),
            (true, false) => {
                let row = self.options.served.rows().find(|row| row.name == kind);
                let hint = row.map(|row| format!("add `apiVersion: {}`", row.kind.api_version()));
                return self.refuse(at, format!("this {kind} has no apiVersion"), hint);
            }
            (false, true) => return self.refuse(at, "this document has no kind", None),
            (false, false) => {}
        }
        if let Some(of) = kind.strip_suffix("List")
            && self.is_list(&api_version, of, fields)
        {
            return self.take_items(&api_version, &kind, of, document);
        }
        match self.options.served.kind_of(&api_version, &kind) {
            Some(kind) => self.take_object(kind, document),
            None => self.unserved(&api_version, &kind, &document),
        }
    }

    /// The items of a list. Those of a list of one kind need not say the kind.
    fn take_items(&mut self, api_version: &str, kind: &str, of: &str, mut document: Document) {
        const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];
        let at = document.spot.at;
        let mut mistyped = false;
        for name in document.value.as_object().into_iter().flat_map(Map::keys).filter(|name| !FIELDS.contains(&name.as_str())) {
            let meant = schema::nearest(name, FIELDS.into_iter());
            mistyped |= meant == Some("items");
            let place = document.spot.find(name, true);
            self.refuse(place, format!("unknown field `{name}` in {kind}"), meant.map(|meant| format!("did you mean `{meant}`?")));
        }
        let Some(items) = document.value.get_mut("items").map(Value::take) else {
            if !mistyped {
                self.refuse(at, format!("this {kind} has no `items`"), None);
            }
            return;
        };
        let place = document.spot.find("items", true);
        let spots = match document.spot.inside {
            Inside::Fields(mut fields) => fields.remove("items").map(|field| field.value.inside),
            _ => None,
        };
        let (Value::Array(items), Some(Inside::Items(spots))) = (items, spots) else {
            return self.refuse(place, format!("`items` of a {kind} is a list of objects"), Some("`items: []` is an empty one".to_owned()));
        };
        for (mut value, spot) in items.into_iter().zip(spots) {
            if let Some(fields) = value.as_object_mut().filter(|fields| !of.is_empty() && !fields.contains_key("kind")) {
                fields.insert("kind".to_owned(), Value::from(of));
                fields.entry("apiVersion").or_insert_with(|| Value::from(api_version));
            }
            self.take(Document { value, spot });
        }
    }

    fn take_object(&mut self, kind: Kind, document: Document) {
        let Document { mut value, mut spot } = document;
        if kind.info().has_status {
            // Not the manifest's to say, and an export may be from a newer version.
            value.as_object_mut().map(|fields| fields.remove("status"));
        }
        schema::fill_nulls(kind, &mut value);
        let findings = self.options.served.check(kind, &value);
        for finding in &findings {
            let of_key = matches!(finding.fault, schema::Fault::Unknown { .. });
            self.refuse(spot.find(&finding.path, of_key), finding.message(kind), finding.hint());
        }
        let faulty = repair::without(&mut value, &findings);
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            if faulty.iter().any(|path| is_within("metadata.name", path)) {
                return;
            }
            let generated = value.pointer("/metadata/generateName").is_some_and(|it| !it.is_null());
            let hint = generated.then(|| "a generated name would make a new object at every look".to_owned());
            return self.refuse(spot.find("metadata.name", true), format!("this {kind} has no metadata.name"), hint);
        }
        let written = kind.conversion().map(|_| (kind, value.clone()));
        let (kind, mut value) = (kind.stored(), self.stored(kind, value, &spot));
        if kind == Kind::Pod {
            let (file, notes) = (self.file, &mut self.found.notes);
            export::strip_pod(&mut value, &mut spot, |at, what| notes.push(format!("{file}:{}: {what}", at.line)));
        }
        match Object::from_value(kind, value.clone()) {
            Ok(object) => {
                let object = self.at_home(object);
                self.found.objects.push(Manifest { object, value, file: self.file.to_owned(), line: spot.at.line, spot, faulty, written });
            }
            // Something that is said already is missing.
            Err(_) if !findings.is_empty() => {}
            Err(error) => {
                let message = if kind == Kind::Secret { "this Secret does not decode".to_owned() } else { error.to_string() };
                self.refuse(spot.at, message, None);
            }
        }
    }

    /// The value in the version its kind is stored in. Annotations may have brought a status.
    fn stored(&mut self, kind: Kind, value: Value, spot: &Spot) -> Value {
        let Some(conversion) = kind.conversion() else { return value };
        let (mut value, unread) = conversion.stored(value, kind);
        for it in unread {
            self.refuse(spot.find(&it.path, true), format!("{kind}.{}: {}", it.path, it.message), None);
        }
        value.as_object_mut().map(|fields| fields.remove("status"));
        value
    }

    /// The object in its namespace.
    fn at_home(&self, object: Object) -> Object {
        let namespaced = object.kind().info().namespaced;
        object.edit_meta(|meta| {
            if !namespaced {
                // As the API server does: a name that has no meaning is dropped.
                meta.namespace = None;
            } else if meta.namespace.as_deref().unwrap_or_default().is_empty() {
                meta.namespace = Some(self.options.namespace.clone());
            }
        })
    }

    fn unserved(&mut self, api_version: &str, kind: &str, document: &Document) {
        let foreign = is_foreign(api_version, kind);
        let served = &self.options.served;
        let same_name = served.rows().find(|row| row.name == kind);
        let nearest = schema::nearest(kind, served.rows().map(|row| row.name).chain(std::iter::once("List")))
            .or_else(|| Kind::of_word(kind).filter(|_| !foreign).map(Kind::name));
        let (reason, hint) = match (same_name, nearest) {
            (Some(row), _) => {
                (format!("{kind} of {api_version} is not served"), Some(format!("{kind} is served as {}", row.kind.api_version())))
            }
            (None, Some(name)) => (format!("kind {kind} ({api_version}) is not served"), Some(format!("did you mean `{name}`?"))),
            (None, None) => (format!("kind {kind} ({api_version}) is not served"), None),
        };
        if self.options.unsupported == Unsupported::Refuse || !foreign {
            let skip =
                if foreign { "`unsupported: skip` on the Source leaves such documents out" } else { "Kubernetes has no such kind either" };
            let (hint, at) = (hint.or_else(|| Some(skip.to_owned())), document.spot.find("kind", true));
            self.found.unserved.push((at, kind.to_owned()));
            return self.refuse(at, reason, hint);
        }
        let text = |path: &str| document.value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.found.skipped.push(Skipped {
            file: self.file.to_owned(),
            line: document.spot.at.line,
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            reason,
        });
    }

    /// `List`, the list of a served kind, and, as to kubectl, whatever else is called so and has items.
    fn is_list(&self, api_version: &str, of: &str, fields: &Map<String, Value>) -> bool {
        let served = || self.options.served.kind_of(api_version, of).is_some();
        (of.is_empty() && api_version == "v1") || served() || fields.get("items").is_some_and(Value::is_array)
    }

    fn refuse(&mut self, at: Position, message: impl Into<String>, hint: Option<String>) {
        self.found.problems.push(Fault { hint, ..Fault::new(at, message.into()) }.in_file(self.file));
    }
}
