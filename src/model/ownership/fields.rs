//! A set of field paths in the form Kubernetes writes to `managedFields[].fieldsV1`. PURE.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::shape::{Keys, Path, Shape, Shapes, shape};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// `f:name`: a field or map key.
    Field(String),
    /// `k:{"name":"x"}`: an item of a list with merge keys, as canonical JSON.
    Key(String),
    /// `v:"x"`: an item of a set, as JSON.
    Value(String),
    /// `i:3`: an item by its index; read, never made.
    Index(u64),
}

/// Field paths, as a tree. A path is in the set where `here` is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// The field at this node itself: a leaf, or an item of a list (`.`).
    pub here: bool,
    pub children: BTreeMap<Element, FieldSet>,
}

/// Text that is not a field set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read field set: `{0}` is not a path element")]
pub struct FieldsError(pub String);

impl FieldSet {
    /// The set with this one node.
    pub(super) fn leaf() -> Self {
        Self { here: true, children: BTreeMap::new() }
    }

    /// Every field that a value says, by the list types of its kind.
    ///
    /// `apiVersion`, `kind` and what identifies an object or is the system's are nobody's.
    pub fn of<'s>(kind: impl Into<Shapes<'s>>, value: &Value) -> Self {
        let kind = kind.into();
        let mut set = Self::default();
        let Some(map) = value.as_object() else { return set };
        for (name, child) in map {
            match name.as_str() {
                "apiVersion" | "kind" => {}
                "metadata" => set.put(Element::Field(name.clone()), of_metadata(kind, child)),
                _ => set.put(Element::Field(name.clone()), of_node(kind, &mut vec![name], child)),
            }
        }
        set
    }

    fn put(&mut self, element: Element, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    /// Whether the field at this path of names is in the set.
    pub fn has(&self, path: &[&str]) -> bool {
        let below = path.iter().try_fold(self, |set, name| set.children.get(&Element::Field((*name).to_owned())));
        below.is_some_and(|set| set.here)
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.children.values().all(FieldSet::is_empty)
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut children = self.children.clone();
        for (element, child) in &other.children {
            let merged = children.get(element).map_or_else(|| child.clone(), |mine| mine.union(child));
            children.insert(element.clone(), merged);
        }
        Self { here: self.here || other.here, children }
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut set = Self { here: self.here && other.here, children: BTreeMap::new() };
        for (element, child) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                set.put(element.clone(), child.intersection(theirs));
            }
        }
        set
    }

    pub fn difference(&self, other: &Self) -> Self {
        let mut set = Self { here: self.here && !other.here, children: BTreeMap::new() };
        for (element, child) in &self.children {
            let rest = other.children.get(element).map_or_else(|| child.clone(), |theirs| child.difference(theirs));
            set.put(element.clone(), rest);
        }
        set
    }

    /// Moves what is owned below one field to another.
    pub(super) fn rename(&mut self, field: &str, other: &str) {
        if let Some(child) = self.children.remove(&Element::Field(field.to_owned())).filter(|child| !child.children.is_empty()) {
            let there = self.children.entry(Element::Field(other.to_owned())).or_default();
            *there = there.union(&Self { here: there.here, ..child });
        }
    }

    /// Every path of the set, printed: `.spec.replicas`, `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        if self.here {
            paths.push(prefix.clone());
        }
        for (element, child) in &self.children {
            let length = prefix.len();
            prefix.push_str(&element.to_string());
            child.collect(prefix, paths);
            prefix.truncate(length);
        }
    }

    /// The JSON of `fieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            map.insert(element.encode(), child.to_json());
        }
        Value::Object(map)
    }

    /// Reads the JSON of `fieldsV1`.
    ///
    /// # Errors
    /// When a key is not `.`, `f:…`, `k:{…}`, `v:…` or `i:…`.
    pub fn from_json(value: &Value) -> Result<Self, FieldsError> {
        let map = value.as_object().ok_or_else(|| FieldsError(value.to_string()))?;
        let mut set = Self::default();
        for (name, child) in map {
            if name == "." {
                set.here = true;
                continue;
            }
            let mut below = Self::from_json(child)?;
            below.here |= below.children.is_empty();
            set.children.insert(Element::decode(name)?, below);
        }
        Ok(set)
    }
}

/// What a person may say in metadata; the rest is the system's.
fn of_metadata(kind: Shapes<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    for (name, child) in value.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "labels" | "annotations" | "ownerReferences" | "finalizers") {
            set.put(Element::Field(name.clone()), of_node(kind, &mut vec!["metadata", name], child));
        }
    }
    set
}

fn of_node<'a>(kind: Shapes<'_>, path: &mut Path<'a>, value: &'a Value) -> FieldSet {
    match (shape(kind, path, value), value) {
        (Shape::Map, Value::Object(map)) if !map.is_empty() => {
            let mut set = FieldSet::default();
            for (name, child) in map {
                path.push(name);
                set.put(Element::Field(name.clone()), of_node(kind, path, child));
                path.pop();
            }
            set
        }
        (Shape::Keyed(keys), Value::Array(items)) if !items.is_empty() => {
            let mut set = FieldSet::default();
            for item in items {
                let mut below = of_node(kind, path, item);
                below.here = true;
                set.children.insert(Element::of_item(keys, item), below);
            }
            set
        }
        (Shape::Set, Value::Array(items)) if !items.is_empty() => {
            let children = items.iter().map(|item| (Element::Value(item.to_string()), FieldSet::leaf())).collect();
            FieldSet { here: false, children }
        }
        _ => FieldSet::leaf(),
    }
}

impl Element {
    /// The element of an item of a list with these merge keys.
    pub(super) fn of_item(keys: Keys<'_>, item: &Value) -> Self {
        let mut sorted: Vec<&str> = keys.iter().collect();
        sorted.sort_unstable();
        let fields: Vec<String> = sorted
            .iter()
            .filter_map(|key| {
                let value = item.get(*key).cloned().or_else(|| keys.default_of(key))?;
                Some(format!("{}:{value}", Value::from(*key)))
            })
            .collect();
        Element::Key(format!("{{{}}}", fields.join(",")))
    }

    fn encode(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(json) => format!("k:{json}"),
            Element::Value(json) => format!("v:{json}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Result<Self, FieldsError> {
        let wrong = || FieldsError(text.to_owned());
        match text.split_once(':').ok_or_else(wrong)? {
            ("f", name) => Ok(Element::Field(name.to_owned())),
            ("k", json) => {
                let map: BTreeMap<String, Value> = serde_json::from_str(json).map_err(|_| wrong())?;
                Ok(Element::Key(serde_json::to_string(&map).map_err(|_| wrong())?))
            }
            ("v", json) => Ok(Element::Value(serde_json::from_str::<Value>(json).map_err(|_| wrong())?.to_string())),
            ("i", index) => index.parse().map(Element::Index).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

/// Kubernetes' default of a merge key that an item may leave out.
pub(super) fn default_of(key: &str) -> Option<Value> {
    (key == "protocol").then(|| Value::from("TCP"))
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(json) => {
                let map: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let keys: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Element::Value(json) => write!(f, "[={json}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}
