//! JSON documents: the values from `serde_json`, the places from a second look. PURE.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bound::crowded;
use super::position::{Field, Inside, Lines, Position, Spot};
use super::{DEPTH, Document, Fault, NODES, NOT_JSON, Parsed, cut, scalar};

/// Every JSON value of a text, one after another.
pub(super) fn parse(text: &str) -> Parsed {
    let lines = Lines::new(text);
    if let Some(at) = crowded(text, false) {
        return Parsed::failed(Fault::new(lines.at(at), format!("more than {NODES} values in one file")));
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut parsed = Parsed::default();
    let mut start = 0;
    while let Some(next) = stream.next() {
        let mut value = match next {
            Ok(value) => value,
            Err(error) => {
                let at = Position::new(error.line(), error.column().max(1));
                parsed.documents.clear();
                return parsed.and(Fault::new(at, format!("{NOT_JSON}: {}", cut(&error.to_string()))));
            }
        };
        settle_numbers(&mut value);
        let mut look = Look { text, at: start, lines: &lines, faults: Vec::new() };
        let spot = look.value(0);
        start = stream.byte_offset();
        parsed.faults.append(&mut look.faults);
        parsed.documents.push(Document { value, spot });
    }
    parsed
}

/// Numbers as Go's JSON leaves them.
fn settle_numbers(value: &mut Value) {
    match value {
        Value::Number(it) if it.as_i64().is_none() => {
            if let Some(settled) = it.as_f64().and_then(scalar::float) {
                *value = settled;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle_numbers),
        Value::Object(fields) => fields.values_mut().for_each(settle_numbers),
        _ => {}
    }
}

/// Walks text that is known to be JSON.
struct Look<'a> {
    text: &'a str,
    at: usize,
    lines: &'a Lines<'a>,
    faults: Vec<Fault>,
}

impl Look<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or_default()
    }

    fn here(&self) -> Position {
        self.lines.at(self.at)
    }

    fn value(&mut self, depth: usize) -> Spot {
        let first = self.peek();
        let at = self.here();
        if depth > DEPTH {
            self.faults.push(Fault::new(at, format!("nested deeper than {DEPTH} levels")));
        }
        let inside = match first {
            b'{' => self.fields(depth),
            b'[' => self.items(depth),
            b'"' => {
                self.string();
                Inside::Nothing
            }
            _ => {
                let rest = &self.text[self.at..];
                self.at += rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(rest.len());
                Inside::Nothing
            }
        };
        Spot { at, inside }
    }

    fn fields(&mut self, depth: usize) -> Inside {
        let mut fields = BTreeMap::new();
        self.at += 1;
        loop {
            match self.peek() {
                b'"' => {
                    let key = self.here();
                    let name = self.string();
                    if self.peek() == b':' {
                        self.at += 1;
                    }
                    let value = self.value(depth + 1);
                    if let Some(first) = fields.get(&name).map(|field: &Field| field.key) {
                        self.faults.push(Fault::duplicate(key, &name, first));
                    }
                    fields.insert(name, Field { key, value });
                }
                b',' => self.at += 1,
                _ => break,
            }
        }
        self.at += 1;
        Inside::Fields(fields)
    }

    fn items(&mut self, depth: usize) -> Inside {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                b']' | 0 => break,
                b',' => self.at += 1,
                _ => items.push(self.value(depth + 1)),
            }
        }
        self.at += 1;
        Inside::Items(items)
    }

    fn string(&mut self) -> String {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        self.text.get(start..self.at).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}
