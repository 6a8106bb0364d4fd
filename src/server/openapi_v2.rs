//! OpenAPI 2 in protobuf, as kubectl asks for it: gnostic's `openapi.v2.Document`. PURE.
//!
//! The numbers are those of gnostic's `OpenAPIv2.proto`. Of a schema it has what tells of fields: what they are, what is below
//! them, and Kubernetes' own words (`x-kubernetes-…`). Which values are taken is the server's to say. Paths there are none.

use serde_json::{Map, Value};

use crate::model::schema::document::REFERENCE;

/// The types that clients know (`k8s.io/kube-openapi/pkg/util/proto`): one of another kind makes them refuse the whole document.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// `swagger` = 1, `info` = 2 {`title` = 1, `version` = 2}, `paths` = 8, `definitions` = 9.
pub fn encode(title: &str, version: &str, definitions: &Map<String, Value>) -> Vec<u8> {
    let info = of(|it| {
        it.text(1, title);
        it.text(2, version);
    });
    let document = of(|it| {
        it.text(1, "2.0");
        it.message(2, info);
        it.message(8, Message::default());
        it.message(9, named(definitions));
    });
    document.0
}

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: usize) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, number: usize, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: usize, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn message(&mut self, number: usize, message: Self) {
        self.bytes(number, &message.0);
    }
}

/// `Definitions` and `Properties`: `additional_properties` = 1 {`name` = 1, `value` = 2}.
fn named(schemas: &Map<String, Value>) -> Message {
    let mut all = Message::default();
    for (name, value) in schemas {
        let one = of(|it| {
            it.text(1, name);
            it.message(2, schema(value));
        });
        all.message(1, one);
    }
    all
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if let Some(description) = text("description") {
        out.text(4, description);
    }
    let reference = value.get("$ref").or_else(|| value.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    if let Some(name) = reference.and_then(|path| path.strip_prefix(REFERENCE)) {
        out.text(1, &format!("#/definitions/{name}"));
        return out;
    }
    let items = value.get("items").filter(|items| items.is_object());
    // A list of whatever is not said to be a list: clients want to know of what.
    let kind = text("type").filter(|kind| TYPES.contains(kind) && (*kind != "array" || items.is_some()));
    if let Some(format) = text("format") {
        out.text(2, format);
    }
    for required in value.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        out.text(19, required);
    }
    if let Some(below) = value.get("additionalProperties").filter(|below| below.is_object()) {
        out.message(21, of(|it| it.message(1, schema(below))));
    }
    if let Some(kind) = kind {
        out.message(22, of(|it| it.text(1, kind)));
    }
    if let Some(items) = items {
        out.message(23, of(|it| it.message(1, schema(items))));
    }
    if let Some(Value::Object(properties)) = value.get("properties") {
        out.message(25, named(properties));
    }
    for (name, said) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        // `NamedAny`: `name` = 1, `value` = 2 {`yaml` = 2}.
        let any = of(|it| it.text(2, &said.to_string()));
        let named = of(|it| {
            it.text(1, name);
            it.message(2, any);
        });
        out.message(31, named);
    }
    out
}

fn of(fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::default();
    fill(&mut message);
    message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_has_gnostics_numbers() {
        let told = |value: &Value| hex::encode(schema(value).0);
        for (value, expected) in [
            (json!({"type": "string", "format": "date", "maxLength": 3}), "120464617465b201080a06737472696e67"),
            (json!({"description": "d", "allOf": [{"$ref": "#/components/schemas/A"}]}), "2201640a0f232f646566696e6974696f6e732f41"),
            (json!({"type": "array", "items": {"type": "string"}}), "b201070a056172726179ba010d0a0bb201080a06737472696e67"),
            (json!({"type": "array"}), ""),
            (json!({"type": "null"}), ""),
            (json!({"additionalProperties": {}, "required": ["a"]}), "9a010161aa01020a00"),
            (json!({"properties": {"a": {}}}), "ca01070a050a01611200"),
            (json!({"x-a": [1]}), "fa010c0a03782d61120512035b315d"),
        ] {
            assert_eq!(told(&value), expected, "{value}");
        }
        assert_eq!(hex::encode(encode("t", "v", &Map::new())), "0a03322e3012060a017412017642004a00");
        let mut long = Message::default();
        long.bytes(1, &[7; 300]);
        assert_eq!(long.0[..4], [0x0a, 0xac, 0x02, 7]);
    }
}
