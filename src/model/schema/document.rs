//! The document of all schemas that `build.rs` writes. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use flate2::read::ZlibDecoder;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::model::Kind;

/// Before a definition's name in a `$ref`: where OpenAPI 3.0 keeps schemas.
pub const REFERENCE: &str = "#/components/schemas/";

const WHOLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schemas.json.zlib"));
/// The same without descriptions.
const SHAPES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shapes.json.zlib"));

/// Every schema, as OpenAPI 3.0 has them. Some megabytes: made anew when it is asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Document {
    /// The name of each kind's definition, by its name; of a further version, by `group/version Name`.
    pub kinds: BTreeMap<String, String>,
    /// `io.k8s.api.core.v1.Pod` and so on, each a schema.
    pub definitions: Map<String, Value>,
}

/// The document, with its descriptions.
pub fn read() -> Document {
    unpack(WHOLE)
}

/// The document without what it says to persons: a quarter of it.
pub(super) fn shapes() -> Document {
    unpack(SHAPES)
}

/// What the build wrote is whole: this never fails on it, and a test reads each kind.
fn unpack(compressed: &[u8]) -> Document {
    let mut text = Vec::new();
    let read = ZlibDecoder::new(compressed).read_to_end(&mut text).ok();
    read.and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What changes when a document does, or `besides`.
pub fn digest(besides: &str) -> String {
    let mut sum = Sha256::new();
    sum.update(WHOLE);
    sum.update(besides.as_bytes());
    hex::encode(&sum.finalize()[..16]).to_uppercase()
}

impl Document {
    /// The name of a kind's definition, in the version that is meant.
    pub fn name_of(&self, kind: Kind) -> Option<&str> {
        let name = match kind.conversion() {
            None => self.kinds.get(kind.name()),
            Some(_) => self.kinds.get(&format!("{} {kind}", kind.api_version())),
        };
        name.map(String::as_str)
    }

    /// Takes these definitions and all that they refer to out of the document.
    pub fn take(mut self, names: &[&str]) -> Map<String, Value> {
        let mut wanted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut taken = Map::new();
        while let Some(name) = wanted.pop() {
            if let Some(schema) = self.definitions.remove(&name) {
                let mut names = BTreeSet::new();
                references(&schema, &mut names);
                wanted.extend(names.into_iter().map(str::to_owned));
                taken.insert(name, schema);
            }
        }
        taken
    }
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(REFERENCE)));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}
