//! An object of a custom kind: its metadata typed, the rest as its schema has it. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize as _, Serialize, Serializer};
use serde_json::{Map, Value};

use super::CustomKind;

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Custom {
    pub kind: CustomKind,
    /// `group/version` it was written in; as it is stored, the version that stores.
    pub api_version: String,
    pub metadata: ObjectMeta,
    /// Every other field, by name.
    pub content: Map<String, Value>,
}

impl Custom {
    /// Reads an object of a kind.
    ///
    /// # Errors
    /// What is no object, or has metadata of the wrong type.
    pub fn read(kind: CustomKind, value: Value) -> Result<Self, serde_json::Error> {
        let Value::Object(mut content) = value else { return Err(serde_json::Error::custom("an object is a mapping")) };
        content.remove("kind");
        let api_version = match content.remove("apiVersion") {
            Some(Value::String(text)) if !text.is_empty() => text,
            _ => format!("{}/{}", kind.names().group, kind.names().version),
        };
        let metadata = match content.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(value) => ObjectMeta::deserialize(value)?,
        };
        Ok(Self { kind, api_version, metadata, content })
    }

    /// Without what the `status` subresource writes.
    pub fn said(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.content.iter().filter(|(name, _)| *name != "status")
    }

    /// Gives it the status of another, or none.
    pub fn take_status(&mut self, from: Option<&Self>) {
        match from.and_then(|from| from.content.get("status")) {
            Some(status) => self.content.insert("status".to_owned(), status.clone()),
            None => self.content.remove("status"),
        };
    }

    /// The content with identity and metadata: the object as JSON.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        let mut fields = self.content.clone();
        fields.insert("apiVersion".to_owned(), self.api_version.clone().into());
        fields.insert("kind".to_owned(), self.kind.names().kind.clone().into());
        fields.insert("metadata".to_owned(), serde_json::to_value(&self.metadata)?);
        Ok(Value::Object(fields))
    }
}

/// apiVersion, kind and metadata first, as those who read along expect it.
impl Serialize for Custom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.content.len() + 3))?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind.names().kind)?;
        map.serialize_entry("metadata", &self.metadata)?;
        for (name, value) in &self.content {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::custom::Names;

    #[test]
    fn an_object_is_written_as_it_was_read() {
        let names = Names { group: "objects.example.com".into(), version: "v1".into(), kind: "Part".into(), ..Names::default() };
        let kind = CustomKind::intern(&names).unwrap();
        let value = json!({"apiVersion": "objects.example.com/v1", "kind": "Part", "metadata": {"name": "a"}, "spec": {"b": 1}});
        let part = Custom::read(kind, value.clone()).unwrap();
        assert_eq!(part.value().unwrap(), value);
        assert_eq!(serde_json::to_value(&part).unwrap(), value);
        assert!(serde_json::to_string(&part).unwrap().starts_with(r#"{"apiVersion":"objects.example.com/v1","kind":"Part","metadata""#));
        assert!(Custom::read(kind, json!([])).is_err());
        assert!(Custom::read(kind, json!({"metadata": {"labels": 1}})).is_err());
        assert_eq!(Custom::read(kind, json!({})).unwrap().api_version, "objects.example.com/v1");
    }
}
