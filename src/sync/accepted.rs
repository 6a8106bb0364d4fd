//! The accepted set of a source, whole, in the store: what is held in place when the source's place
//! cannot be read, or says something that is refused, and this process has never read it. PURE.
//!
//! The set is kept as Secrets in `kube-system`, written in the transaction that accepts it: it holds
//! what the source's own Secrets hold, and is guarded and left out of snapshot files as they are.
//!
//! - one Secret holds a run of objects by key, as compressed JSON, and is named after its content:
//!   a commit writes only the runs in which something changed, an unchanged set writes nothing
//! - where runs begin depends on what they hold, not on how many come before: a new object moves no
//!   other run
//! - a set is used only when it is exactly the one that was accepted (`status.acceptedSet`)

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identity::Sum;
use super::render::{Desired, Rendered};
use crate::model::custom::{CustomResourceDefinition, Definition};
use crate::model::{Kind, Object};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Write};

/// Label of the Secrets; its value is the source's name.
pub const LABEL: &str = "podbay.dev/accepted-of";
/// Type of the Secrets.
pub const TYPE: &str = "podbay.dev/accepted-set";
const NAMESPACE: &str = "kube-system";
const FIELD: &str = "objects";
/// Bytes of one Secret: below the bound of 1 MiB that a Secret has.
const PIECE_BYTES: usize = 768 << 10;
/// Bytes of one run before compression: a tree has less than 64 MiB, but YAML may repeat itself.
const RUN_BYTES: u64 = 512 << 20;
/// Written before the content, and hashed into the name. The first was compressed by zstd, whose compressor
/// nothing else needs; sets of it are read still.
const FORMAT: &str = "podbay accepted set 2";
/// How a zstd frame begins (RFC 8878, section 3.1.1); no zlib stream does.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a stored set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the accepted set is not in the store")]
    Missing,
    #[error("the accepted set in the store is damaged: {0}")]
    Damaged(String),
    #[error("the set in the store is not the accepted one")]
    Other,
}

/// What the pieces of one run hold together.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content<A> {
    objects: Vec<Record<A>>,
    /// Kind, namespace and name of what the tree says and Podbay leaves out: it is not to be pruned.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    left_out: BTreeSet<(String, String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Record<A> {
    file: String,
    line: u32,
    applied: A,
}

/// A run of objects by key, and its name. What is left out is a run of its own.
struct Run<'r> {
    id: String,
    objects: &'r [Arc<Desired>],
    left_out: BTreeSet<(String, String, String)>,
}

/// The writes that make the store hold this set and no other; none where it does already.
pub fn writes(state: &Snapshot, source: &str, rendered: &Rendered) -> Vec<Write> {
    let mut there = pieces(state, source);
    let mut writes = Vec::new();
    for run in runs(rendered) {
        match there.remove(&run.id) {
            Some(found) if found.complete().is_some() => {}
            // Somebody deleted a part of it: written anew.
            found => {
                writes.extend(found.iter().flat_map(Pieces::deletions));
                writes.extend(encode(source, &run).into_iter().map(Write::Create));
            }
        }
    }
    writes.extend(there.values().flat_map(Pieces::deletions));
    writes
}

/// The writes that remove a source's stored set.
pub fn removal(state: &Snapshot, source: &str) -> Vec<Write> {
    pieces(state, source).values().flat_map(Pieces::deletions).collect()
}

/// The stored set of a source, if it is the one that `digest` stands for.
///
/// # Errors
/// Why it cannot be used.
pub fn restore(state: &Snapshot, source: &str, digest: &str) -> Result<Rendered, Unusable> {
    let there = pieces(state, source);
    let (mut desired, mut left_out, mut records) = (Vec::new(), BTreeSet::new(), Vec::new());
    for run in there.values() {
        let damaged = |why: String| Unusable::Damaged(why);
        let pieces = run.complete().ok_or_else(|| damaged("a part of it is missing".to_owned()))?;
        let content = decode(&pieces).map_err(damaged)?;
        left_out.extend(content.left_out);
        records.extend(content.objects);
    }
    // Kinds that the set defines itself come first.
    let (kinds, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.applied["kind"] == "CustomResourceDefinition");
    let mut served = state.definitions().clone();
    for record in kinds.into_iter().chain(others) {
        let one = Desired::restore(record.applied, record.file, record.line, &served).map_err(Unusable::Damaged)?;
        if let Some(definition) = one.object.get::<CustomResourceDefinition>().and_then(Definition::of) {
            served.put(definition);
        }
        desired.push(Arc::new(one));
    }
    let rendered = Rendered::new(desired, left_out, Vec::new());
    match rendered.set_digest == digest {
        true => Ok(rendered),
        false if there.is_empty() => Err(Unusable::Missing),
        false => Err(Unusable::Other),
    }
}

/// Cut where an object's digest says so: on average after 64 objects, so that a small change packs little.
fn runs(rendered: &Rendered) -> Vec<Run<'_>> {
    let objects = rendered.desired.as_slice();
    let mut runs: Vec<Run<'_>> = objects.split_inclusive(|one| one.digest[0] < 4).map(|objects| run(objects, BTreeSet::new())).collect();
    if !rendered.left_out.is_empty() {
        runs.push(run(&[], rendered.left_out.clone()));
    }
    runs
}

fn run(objects: &[Arc<Desired>], left_out: BTreeSet<(String, String, String)>) -> Run<'_> {
    let mut sum = Sum::default();
    sum.add(FORMAT);
    for one in objects {
        sum.add(one.digest);
    }
    for (kind, namespace, name) in &left_out {
        sum.add(kind).add(namespace).add(name);
    }
    Run { id: sum.finish()[..20].to_owned(), objects, left_out }
}

/// The Secrets of one run, by index.
#[derive(Default)]
struct Pieces<'s> {
    count: usize,
    found: BTreeMap<usize, &'s Object>,
}

impl<'s> Pieces<'s> {
    /// All of them in order, or nothing where one is missing.
    fn complete(&self) -> Option<Vec<&'s Object>> {
        let whole = self.count > 0 && (1..=self.count).eq(self.found.keys().copied());
        whole.then(|| self.found.values().copied().collect())
    }

    fn deletions(&self) -> Vec<Write> {
        let delete =
            |object: &&Object| Write::Delete { key: object.key().clone(), precondition: Precondition::seen(object), grace_seconds: None };
        self.found.values().map(delete).collect()
    }
}

/// What there is of a source's set, by the id of the run.
fn pieces<'s>(state: &'s Snapshot, source: &str) -> BTreeMap<String, Pieces<'s>> {
    let mut all: BTreeMap<String, Pieces<'s>> = BTreeMap::new();
    let label = format!("{LABEL}={source}");
    for object in state.labelled_in(Kind::Secret, NAMESPACE, &label) {
        if let Some((id, index, count)) = parse(source, &object.key().name) {
            let run = all.entry(id.to_owned()).or_default();
            run.count = count;
            run.found.insert(index, object);
        }
    }
    all
}

fn name(source: &str, id: &str, index: usize, count: usize) -> String {
    format!("podbay-source.{source}.{id}.{index}of{count}")
}

fn parse<'n>(source: &str, name: &'n str) -> Option<(&'n str, usize, usize)> {
    let rest = name.strip_prefix("podbay-source.")?.strip_prefix(source)?.strip_prefix('.')?;
    let (id, of) = rest.split_once('.')?;
    let (index, count) = of.split_once("of")?;
    Some((id, index.parse().ok()?, count.parse().ok()?))
}

fn encode(source: &str, run: &Run<'_>) -> Vec<Object> {
    let records = run.objects.iter().map(|one| Record { file: one.file.clone(), line: one.line, applied: &one.applied });
    let content = Content { objects: records.collect(), left_out: run.left_out.clone() };
    // A value always encodes, and memory takes everything.
    let json = serde_json::to_vec(&content).unwrap_or_default();
    let mut compressed = ZlibEncoder::new(Vec::new(), Compression::fast());
    let bytes = compressed.write_all(&json).and_then(|()| compressed.finish()).unwrap_or_default();
    let count = bytes.chunks(PIECE_BYTES).len();
    let secret = |(index, piece): (usize, &[u8])| {
        Object::new(Secret {
            metadata: ObjectMeta {
                name: Some(name(source, &run.id, index + 1, count)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), source.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            immutable: Some(true),
            data: Some(BTreeMap::from([(FIELD.to_owned(), ByteString(piece.to_vec()))])),
            ..Secret::default()
        })
    };
    bytes.chunks(PIECE_BYTES).enumerate().map(secret).collect()
}

fn decode(pieces: &[&Object]) -> Result<Content<Value>, String> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let data = piece.get::<Secret>().and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(FIELD));
        bytes.extend_from_slice(&data.ok_or_else(|| format!("{} has no {FIELD}", piece.key()))?.0);
    }
    if bytes.starts_with(&ZSTD_MAGIC) {
        return zstd::stream::read::Decoder::new(bytes.as_slice()).map_err(|error| error.to_string()).and_then(content);
    }
    content(ZlibDecoder::new(bytes.as_slice()))
}

fn content(decompressed: impl Read) -> Result<Content<Value>, String> {
    serde_json::from_reader(BufReader::new(decompressed.take(RUN_BYTES))).map_err(|error| error.to_string())
}
