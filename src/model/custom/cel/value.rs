//! What an expression comes to. PURE.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use jiff::SignedDuration;
use serde_json::{Map, Value};

use crate::model::Timestamp;
use crate::model::custom::Schema;

/// A value. What comes from an object is borrowed, with the schema that says what its texts are.
#[derive(Clone, Debug)]
pub enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'v, str>),
    Time(Timestamp),
    Span(SignedDuration),
    Type(&'static str),
    List(Rc<Vec<Val<'v>>>),
    Map(Rc<Vec<(Val<'v>, Val<'v>)>>),
    Items(&'v [Value], Option<&'v Schema>),
    Fields(&'v Map<String, Value>, Option<&'v Schema>),
}

impl<'v> Val<'v> {
    /// A value of an object.
    pub fn of(value: &'v Value, schema: Option<&'v Schema>) -> Self {
        let format = schema.map_or("", |schema| schema.bounds.format.as_str());
        match value {
            Value::Null => Self::Null,
            Value::Bool(it) => Self::Bool(*it),
            Value::Number(it) => match it.as_i64().filter(|_| schema.is_none_or(|schema| schema.kind != "number")) {
                Some(whole) => Self::Int(whole),
                None => Self::Double(it.as_f64().unwrap_or_default()),
            },
            Value::String(text) => match format {
                "date-time" => text.parse().map_or(Self::Text(Cow::Borrowed(text)), Self::Time),
                "duration" => span(text).map_or(Self::Text(Cow::Borrowed(text)), Self::Span),
                _ => Self::Text(Cow::Borrowed(text)),
            },
            Value::Array(items) => Self::Items(items, schema.and_then(|schema| schema.items.as_deref())),
            Value::Object(fields) => Self::Fields(fields, schema),
        }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Span(_) => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::List(_) | Self::Items(..) => "list",
            Self::Map(_) | Self::Fields(..) => "map",
        }
    }

    /// The items of a list, or the keys of a map; none of anything else.
    pub fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.to_vec()),
            Self::Items(items, of) => Some(items.iter().map(|item| Self::of(item, *of)).collect()),
            Self::Map(entries) => Some(entries.iter().map(|(key, _)| key.clone()).collect()),
            Self::Fields(fields, _) => Some(fields.keys().map(|key| Self::Text(Cow::Borrowed(key))).collect()),
            _ => None,
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::Items(..))
    }

    /// How much there is to look at.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::List(items) => Some(items.len()),
            Self::Items(items, _) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::Fields(fields, _) => Some(fields.len()),
            _ => None,
        }
    }

    /// Takes from `left` how much there is to look at, all the way down; false where it is more.
    pub fn weigh(&self, left: &mut u64) -> bool {
        fn take(left: &mut u64, steps: usize) -> bool {
            let rest = left.checked_sub(steps as u64);
            *left = rest.unwrap_or(0);
            rest.is_some()
        }
        fn below(value: &Value, left: &mut u64) -> bool {
            match value {
                Value::String(text) => take(left, 1 + text.len() / 64),
                Value::Array(items) => take(left, 1) && items.iter().all(|item| below(item, left)),
                Value::Object(fields) => take(left, 1) && fields.values().all(|value| below(value, left)),
                _ => take(left, 1),
            }
        }
        match self {
            Self::Text(text) => take(left, 1 + text.len() / 64),
            Self::List(items) => take(left, 1) && items.iter().all(|item| item.weigh(left)),
            Self::Map(entries) => take(left, 1) && entries.iter().all(|(key, value)| key.weigh(left) && value.weigh(left)),
            Self::Items(items, _) => take(left, 1) && items.iter().all(|item| below(item, left)),
            Self::Fields(fields, _) => take(left, 1) && fields.values().all(|value| below(value, left)),
            _ => take(left, 1),
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &Val<'v>) -> Option<Self> {
        match (self, key) {
            (Self::Fields(fields, schema), Val::Text(name)) => {
                let value = fields.get(name.as_ref())?;
                Some(Self::of(value, schema.and_then(|schema| schema.field(name))))
            }
            (Self::Map(entries), key) => entries.iter().find(|(there, _)| there == key).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// As a number, to compare numbers of any type.
    fn number(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)] // whole numbers are compared as such first
            Self::Int(it) => Some(*it as f64),
            #[allow(clippy::cast_precision_loss)]
            Self::Uint(it) => Some(*it as f64),
            Self::Double(it) => Some(*it),
            _ => None,
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(it) => Some(i128::from(*it)),
            Self::Uint(it) => Some(i128::from(*it)),
            _ => None,
        }
    }

    /// Which comes first; none where the two have no order.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Time(one), Self::Time(other)) => Some(one.cmp(other)),
            (Self::Span(one), Self::Span(other)) => Some(one.cmp(other)),
            _ => match (self.whole(), other.whole()) {
                (Some(one), Some(other)) => Some(one.cmp(&other)),
                _ => self.number()?.partial_cmp(&other.number()?),
            },
        }
    }
}

impl PartialEq for Val<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Type(one), Self::Type(other)) => one == other,
            (one, other) if one.is_list() && other.is_list() => one.size() == other.size() && one.items() == other.items(),
            (Self::Map(_) | Self::Fields(..), Self::Map(_) | Self::Fields(..)) => {
                let same = |key: &Val<'_>| {
                    // A key of one map looks up the other: its lifetime is no matter there.
                    let key = match key {
                        Val::Text(text) => Val::text(text.as_ref()),
                        Val::Int(it) => Val::Int(*it),
                        Val::Uint(it) => Val::Uint(*it),
                        Val::Bool(it) => Val::Bool(*it),
                        _ => return false,
                    };
                    match (self.get(&key), other.get(&key)) {
                        (Some(one), Some(other)) => one == other,
                        _ => false,
                    }
                };
                self.size() == other.size() && self.items().unwrap_or_default().iter().all(same)
            }
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }
}

/// Go's notation of a duration: `1h30m`, `1.5s`, `-2ms`.
pub fn span(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: f64 = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        nanos += number
            * match &rest[end..unit] {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    if nanos > 9.2e18 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // bounded above
    let nanos = nanos as i64;
    Some(SignedDuration::from_nanos(if negative { -nanos } else { nanos }))
}
