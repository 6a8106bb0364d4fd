//! TOML documents: one object a file. PURE.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::bound::crowded;
use super::position::{Field, Inside, Lines, Spot};
use super::{Document, Fault, NODES, Parsed, scalar};

/// The one object of a TOML text.
pub(super) fn parse(text: &str) -> Parsed {
    let lines = Lines::new(text);
    if let Some(at) = crowded(text, true) {
        return Parsed::failed(Fault::new(lines.at(at), format!("more than {NODES} values in one file")));
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|error| Fault::new(lines.at(error.span().map_or(0, |span| span.start)), format!("not TOML: {}", error.message())))
        .collect();
    let start = lines.at(0);
    let (value, inside) = read_table(table.get_ref(), &lines, &mut faults);
    let nothing = !faults.is_empty() || value.as_object().is_some_and(Map::is_empty);
    Parsed { documents: if nothing { Vec::new() } else { vec![Document { value, spot: Spot { at: start, inside } }] }, faults }
}

fn read_table(table: &DeTable<'_>, lines: &Lines<'_>, faults: &mut Vec<Fault>) -> (Value, Inside) {
    let mut values = Map::new();
    let mut fields = BTreeMap::new();
    for (name, value) in table {
        let key = lines.at(name.span().start);
        let name = name.get_ref().to_string();
        let (value, spot) = read(value, lines, faults);
        fields.insert(name.clone(), Field { key, value: spot });
        values.insert(name, value);
    }
    (Value::Object(values), Inside::Fields(fields))
}

fn read(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>, faults: &mut Vec<Fault>) -> (Value, Spot) {
    let at = lines.at(value.span().start);
    let mut bad = |message: &str| {
        faults.push(Fault::new(at, message.to_owned()));
        Value::Null
    };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(it) => match i64::from_str_radix(it.as_str(), it.radix()) {
            Ok(it) => Value::from(it),
            Err(_) => bad("this integer does not fit in 64 bits"),
        },
        DeValue::Float(it) => match it.as_str().parse().ok().and_then(scalar::float) {
            Some(it) => it,
            None => bad("infinity and not-a-number have no place in JSON"),
        },
        DeValue::Boolean(it) => Value::Bool(*it),
        DeValue::Datetime(it) => Value::String(it.to_string()),
        DeValue::Array(items) => {
            let (values, spots) = items.iter().map(|item| read(item, lines, faults)).unzip();
            return (Value::Array(values), Spot { at, inside: Inside::Items(spots) });
        }
        DeValue::Table(table) => {
            let (value, inside) = read_table(table, lines, faults);
            return (value, Spot { at, inside });
        }
    };
    (value, Spot::leaf(at))
}
