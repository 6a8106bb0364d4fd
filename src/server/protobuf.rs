//! Objects in Kubernetes' protobuf encoding, which kubectl's `create` and Go clients send. PURE.
//!
//! Bodies are read, answers are always JSON: every client takes it. The table says which number is
//! which field; what a value of Go's leaves empty is left out, as in its JSON.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::model::Timestamp;

/// Before every object.
const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages; no object of ours comes near.
const DEPTH: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Clone, Debug)]
struct Field {
    /// `~`: its fields are its parent's.
    name: &'static str,
    shape: Shape,
    /// A letter of the table, or `=` and a message.
    kind: &'static str,
}

type Message = BTreeMap<u64, Field>;

fn table() -> &'static BTreeMap<&'static str, Message> {
    static TABLE: OnceLock<BTreeMap<&'static str, Message>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("protobuf_fields.txt").lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once(' ')).map(|(name, fields)| (name, fields.split(' ').filter_map(field).collect())).collect()
    })
}

fn field(text: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = text.split_once(':')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    let (shape, kind) = match rest.as_bytes().first()? {
        b'*' => (Shape::List, &rest[1..]),
        b'@' => (Shape::Map, &rest[1..]),
        _ => (Shape::One, rest),
    };
    Some((number.parse().ok()?, Field { name, shape, kind }))
}

/// One field on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A reader of one message's bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("a number is cut off")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long".to_owned())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).ok().filter(|&count| count <= self.0.len()).ok_or("a field is cut off")?;
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(little(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(little(self.take(4)?)),
            other => return Err(format!("wire type {other} is not known")),
        };
        Ok(Some((tag >> 3, wire)))
    }

    /// Every field of a small message.
    fn all(bytes: &'a [u8]) -> Result<Vec<(u64, Wire<'a>)>, String> {
        let mut reader = Self(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.next()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

/// Decodes an object: the envelope says what it is.
///
/// # Errors
/// Bytes that are no such object, in a sentence.
pub fn decode(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes.strip_prefix(MAGIC).ok_or("it does not begin as Kubernetes' protobuf does")?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, wire) in Reader::all(body)? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                for (number, wire) in Reader::all(meta)? {
                    match (number, wire) {
                        (1, Wire::Bytes(bytes)) => version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_of(&version, &kind);
    let known = table().contains_key(name.as_str());
    let mut object = if known { message(&name, raw, 0)? } else { return Err(format!("{kind} of {version} is not known")) };
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn message_of(version: &str, kind: &str) -> String {
    match (version, kind) {
        (_, "DeleteOptions") => "meta.v1.DeleteOptions".to_owned(),
        ("v1", kind) => format!("core.v1.{kind}"),
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or((version, "v1"));
            format!("{}.{version}.{kind}", group.split('.').next().unwrap_or_default())
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    if depth > DEPTH {
        return Err("it is nested too deeply".to_owned());
    }
    let fields = table().get(name).ok_or_else(|| format!("{name} is not known"))?;
    let mut out = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields.get(&number) else { continue };
        match (field.shape, wire) {
            (Shape::One, Wire::Bytes(bytes)) if field.name == "~" => {
                out.extend(message(field.kind.trim_start_matches('='), bytes, depth + 1)?);
            }
            (Shape::One, wire) => {
                if let Some(value) = value(field.kind, &wire, depth)?.filter(|value| !is_absent(field.kind, value)) {
                    out.insert(field.name.to_owned(), value);
                }
            }
            (Shape::List, wire) => {
                let item = value(field.kind, &wire, depth)?.unwrap_or(Value::Null);
                if let Value::Array(items) = out.entry(field.name).or_insert_with(|| json!([])) {
                    items.push(item);
                }
            }
            (Shape::Map, Wire::Bytes(bytes)) => {
                let (key, value) = entry(field.kind, bytes, depth)?;
                if let Value::Object(entries) = out.entry(field.name).or_insert_with(|| json!({})) {
                    entries.insert(key, value);
                }
            }
            (Shape::Map, Wire::Number(_)) => return Err(format!("{}: not a map", field.name)),
        }
    }
    Ok(out)
}

fn entry(kind: &str, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut found = match kind {
        "s" | "b" => json!(""),
        "L" => json!([]),
        _ => json!({}),
    };
    for (number, wire) in Reader::all(bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => found = value(kind, &wire, depth)?.unwrap_or(Value::Null),
            _ => {}
        }
    }
    Ok((key, found))
}

/// What Go's `omitempty` leaves out.
fn is_absent(kind: &str, value: &Value) -> bool {
    match kind {
        "s" | "b" | "Q" => *value == json!(""),
        "z" => *value == json!(0),
        "t" => *value == json!(false),
        _ => false,
    }
}

#[allow(clippy::cast_possible_wrap)] // protobuf's integers are two's complement
fn value(kind: &str, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, String> {
    Ok(Some(match (kind, wire) {
        ("s", Wire::Bytes(bytes)) => text(bytes)?.into(),
        ("b", Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        ("i" | "z", Wire::Number(number)) => (*number as i64).into(),
        ("t" | "f", Wire::Number(number)) => (*number != 0).into(),
        ("d", Wire::Number(number)) => f64::from_bits(*number).into(),
        ("T" | "U", Wire::Bytes(bytes)) => return time(bytes, kind == "U"),
        ("Q", Wire::Bytes(bytes)) => first_text(bytes)?.into(),
        ("X", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("L", Wire::Bytes(bytes)) => texts(bytes)?,
        ("F", Wire::Bytes(bytes)) => serde_json::from_str(&first_text(bytes)?).unwrap_or(Value::Null),
        (kind, Wire::Bytes(bytes)) if kind.starts_with('=') => Value::Object(message(&kind[1..], bytes, depth + 1)?),
        _ => return Err("a field is of the wrong type".to_owned()),
    }))
}

fn texts(bytes: &[u8]) -> Result<Value, String> {
    let mut found = Vec::new();
    for (number, wire) in Reader::all(bytes)? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            found.push(Value::String(text(bytes)?));
        }
    }
    Ok(found.into())
}

fn first_text(bytes: &[u8]) -> Result<String, String> {
    for (number, wire) in Reader::all(bytes)? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            return text(bytes);
        }
    }
    Ok(String::new())
}

#[allow(clippy::cast_possible_wrap)]
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut word) = (false, 0i64, String::new());
    for (tag, wire) in Reader::all(bytes)? {
        match (tag, wire) {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value as i64,
            (3, Wire::Bytes(bytes)) => word = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { word.into() } else { number.into() })
}

/// The zero time is no time.
#[allow(clippy::cast_possible_wrap)]
fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, String> {
    let (mut seconds, mut nanos) = (None, 0);
    for (tag, wire) in Reader::all(bytes)? {
        match (tag, wire) {
            (1, Wire::Number(value)) => seconds = Some(value as i64),
            (2, Wire::Number(value)) => nanos = i32::try_from(value as i64).unwrap_or(0),
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let time = Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|error| error.to_string())?;
    Ok(Some(if micro { format!("{time:.6}").into() } else { time.to_string().into() }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A field with bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [bytes(1, b"made"), bytes(3, b""), bytes(8, b""), bytes(11, &[bytes(1, b"app"), bytes(2, b"x")].concat())].concat();
        let data = [bytes(1, b"a"), bytes(2, b"1")].concat();
        let raw = [bytes(1, &metadata), bytes(2, &data)].concat();
        let value = decode(&envelope("v1", "ConfigMap", &raw)).unwrap();
        let wanted = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "made", "labels": {"app": "x"}}, "data": {"a": "1"},
        });
        assert_eq!(value, wanted, "what Go leaves empty is left out");
    }

    #[test]
    fn inlined_messages_numbers_and_unions_are_read() {
        let port = [vec![1 << 3, 0, 2 << 3, 80], bytes(3, b"")].concat();
        let http = [bytes(1, b"/x"), bytes(2, &port)].concat();
        let probe = [bytes(1, &bytes(2, &http)), vec![2 << 3, 0, 4 << 3, 5]].concat();
        let container = [bytes(1, b"c"), bytes(10, &probe)].concat();
        let spec = [bytes(2, &container), vec![4 << 3, 0]].concat();
        let value = decode(&envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
        let wanted = json!({"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "livenessProbe": {"httpGet": {"path": "/x", "port": 80}, "periodSeconds": 5}}]});
        assert_eq!(value["spec"], wanted);
    }

    #[test]
    fn every_message_of_the_table_is_there() {
        for (name, fields) in table() {
            for field in fields.values().filter(|field| field.kind.starts_with('=')) {
                assert!(table().contains_key(&field.kind[1..]), "{name}.{}: {}", field.name, field.kind);
            }
        }
    }

    /// Our own group, and one whose clients speak JSON.
    const JSON_ONLY: [&str; 2] = ["podbay.dev", "apiextensions.k8s.io"];

    /// The paths of a message's fields as `field_paths` has them.
    fn paths(name: &str, path: &str, found: &mut BTreeSet<String>) {
        for field in table()[name].values() {
            let of = field.kind.strip_prefix('=');
            if field.name == "~" {
                paths(of.unwrap(), path, found);
                continue;
            }
            let mut path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            found.insert(path.clone());
            match field.shape {
                Shape::One => {}
                Shape::List => path += "[]",
                Shape::Map => {
                    path += ".*";
                    found.insert(path.clone());
                }
            }
            if let Some(of) = of {
                paths(of, &path, found);
            }
        }
    }

    /// Fields of the types (1.36, 1.37) whose numbers no source at hand has: like any field that is not in the table, they are
    /// passed over, as by a server that does not know them.
    const UNNUMBERED: [&str; 19] = [
        "bindMountOptions",
        "clusterTrustBundle.user",
        "defaultUser",
        "emptyDir.mode",
        "evictionResponders",
        "grpc.mode",
        "healthStatus",
        "httpGet.protocol",
        "items[].user",
        "nodeAllocatableResourceClaimStatuses",
        "podCertificate.user",
        "podPreemptionPolicy",
        "resources[].message",
        "runningInUserNamespace",
        "serviceAccountToken.user",
        "spec.scheduling.",
        "spec.schedulingGroup",
        "volumeHealth",
        "volumeStatus",
    ];

    #[test]
    fn the_table_has_the_fields_of_each_kind_and_no_others() {
        for info in crate::model::Kind::all().iter().chain(crate::model::Kind::editions()).filter(|info| !JSON_ONLY.contains(&info.group)) {
            let name = message_of(&info.kind.api_version(), info.name);
            assert!(table().contains_key(name.as_str()), "{name}");
            let mut ours = BTreeSet::new();
            paths(&name, "", &mut ours);
            let theirs: BTreeSet<String> = crate::model::schema::field_paths(info.kind).into_iter().collect();
            assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), [""; 0], "{name}");
            let is_apart = |path: &&String| {
                *path == "apiVersion" || *path == "kind" || UNNUMBERED.iter().any(|part| format!("{path}.").contains(part))
            };
            let lacking: Vec<_> = theirs.difference(&ours).filter(|path| !is_apart(path)).collect();
            assert_eq!(lacking, [""; 0], "{name}");
        }
    }

    /// Objects as Kubernetes' own messages have them: `tests/corpus/protobuf.txt` says how they were made.
    #[test]
    fn objects_that_others_encoded_are_read() {
        let lines = include_str!("../../tests/corpus/protobuf.txt").lines().filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for line in lines {
            let (bytes, object) = line.split_once(' ').unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
            assert_eq!(decode(&bytes).unwrap(), serde_json::from_str::<Value>(object).unwrap());
            seen += 1;
        }
        assert_eq!(seen, 11);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read_but_never_fatal(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            let envelope = [MAGIC.to_vec(), bytes(1, &[bytes(1, b"v1"), bytes(2, b"Pod")].concat()), vec![2 << 3 | 2, 0xac, 0x02], raw].concat();
            let _ = decode(&envelope);
        }
    }
}
