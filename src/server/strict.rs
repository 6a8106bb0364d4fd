//! Fields that no schema has or that are there twice, in the words of Kubernetes' strict decoder. PURE.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::model::Kind;
use crate::model::custom::Definitions;
use crate::model::schema::{Fault, Finding};

/// One sentence a field: `unknown field "spec.replica", did you mean "replicas"?`
pub fn unknown_fields(served: &Definitions, kind: Kind, value: &Value) -> Vec<String> {
    let sentence = |finding: Finding| match finding.fault {
        Fault::Unknown { suggestion: Some(meant), .. } => Some(format!("unknown field \"{}\", did you mean \"{meant}\"?", finding.path)),
        Fault::Unknown { suggestion: None, .. } => Some(format!("unknown field \"{}\"", finding.path)),
        Fault::WrongType { .. } => None,
    };
    served.check(kind, value).into_iter().filter_map(sentence).collect()
}

/// The first field of a wrong type, as long as there is one: `spec.replicas must be an integer, not a string, remove the quotes`.
pub fn wrong_type(served: &Definitions, kind: Kind, value: &Value) -> Option<String> {
    let finding = served.check(kind, value).into_iter().find(|finding| matches!(finding.fault, Fault::WrongType { .. }))?;
    let Fault::WrongType { wanted, found, hint } = finding.fault else { return None };
    let hint = hint.map(|hint| format!(", {hint}")).unwrap_or_default();
    Some(format!("{} must be {wanted}, not {found}{hint}", finding.path))
}

/// How many are told of; Kubernetes stops counting as well.
pub const MOST: usize = 100;

/// One sentence a field that a JSON text has twice: `duplicate field "spec.replicas"`. None for other text.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut look = Look { path: String::new(), found: Vec::new() };
    // What is no JSON is told by the parser that reads it.
    let _ = Seed(&mut look).deserialize(&mut serde_json::Deserializer::from_slice(json));
    look.found
}

/// The way down to where it looks, and what was found.
struct Look {
    path: String,
    found: Vec<String>,
}

impl Look {
    fn below<E>(&mut self, step: fmt::Arguments<'_>, walk: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let length = self.path.len();
        // Writing to a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.path, step);
        let walked = walk(self);
        self.path.truncate(length);
        walked
    }
}

struct Seed<'a>(&'a mut Look);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let dot = if self.0.path.is_empty() { "" } else { "." };
            self.0.below(format_args!("{dot}{name}"), |look| {
                if !seen.insert(name.clone()) && look.found.len() < MOST {
                    look.found.push(format!("duplicate field \"{}\"", look.path));
                }
                map.next_value_seed(Seed(look))
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let mut more = false;
            self.0.below(format_args!("[{index}]"), |look| {
                more = items.next_element_seed(Seed(look))?.is_some();
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_is_told_with_its_place() {
        let text = br#"{"a": 1, "b": [{"c": {}, "d": null, "c": 2.5}], "a": {"e": true, "e": "x"}}"#;
        assert_eq!(duplicate_fields(text), ["duplicate field \"b[0].c\"", "duplicate field \"a\"", "duplicate field \"a.e\""]);
        assert_eq!(duplicate_fields(b"a: 1\na: 2"), [""; 0]);
        assert_eq!(duplicate_fields("{\"a\":0,".repeat(200).as_bytes()), [""; 0], "what is not whole is the parser's");
    }
}
