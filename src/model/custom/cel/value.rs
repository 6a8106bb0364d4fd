//! What an expression comes to. PURE.

use std::cmp::Ordering;
use std::ops::Deref;
use std::rc::Rc;

use jiff::SignedDuration;
use serde_json::{Map, Value};

use crate::model::Timestamp;
use crate::model::custom::Schema;
use crate::model::custom::budget::{Budget, Spent};

/// Bytes of a text that may be a time or a span of it: longer ones are read anew at each look.
const READABLE: usize = 128;

/// A text that is cheap to hand on.
#[derive(Clone, Debug)]
pub enum Text<'v> {
    Lent(&'v str),
    Own(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Own(text) => text,
        }
    }
}

/// A value. What comes from an object is borrowed, with the schema that says what its texts are.
#[derive(Clone, Debug)]
pub enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'v>),
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
                "date-time" if text.len() <= READABLE => text.parse().map_or(Self::lent(text), Self::Time),
                "duration" => span(text).map_or(Self::lent(text), Self::Span),
                _ => Self::lent(text),
            },
            Value::Array(items) => Self::Items(items, schema.and_then(|schema| schema.items.as_deref())),
            Value::Object(fields) => Self::Fields(fields, schema),
        }
    }

    pub const fn lent(text: &'v str) -> Self {
        Self::Text(Text::Lent(text))
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

    /// The items of a list, or the keys of a map, one after the other; none of anything else.
    pub fn items(&self) -> Option<Box<dyn DoubleEndedIterator<Item = Self> + 'v>> {
        match self {
            Self::List(items) => {
                let items = Rc::clone(items);
                Some(Box::new((0..items.len()).map(move |at| items[at].clone())))
            }
            Self::Items(items, of) => {
                let of = *of;
                Some(Box::new(items.iter().map(move |item| Self::of(item, of))))
            }
            Self::Map(entries) => {
                let entries = Rc::clone(entries);
                Some(Box::new((0..entries.len()).map(move |at| entries[at].0.clone())))
            }
            Self::Fields(fields, _) => Some(Box::new(fields.keys().map(|key| Self::lent(key)))),
            _ => None,
        }
    }

    /// The item at a place of a list.
    pub fn item(&self, at: usize) -> Option<Self> {
        match self {
            Self::List(items) => items.get(at).cloned(),
            Self::Items(items, of) => items.get(at).map(|item| Self::of(item, *of)),
            _ => None,
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::Items(..))
    }

    /// How many characters, items or entries there are.
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
    pub fn get(&self, key: &Self, budget: &mut Budget) -> Result<Option<Self>, Spent> {
        match (self, key) {
            (Self::Fields(fields, schema), Val::Text(name)) => {
                budget.look(name.len())?;
                let value = fields.get(&**name);
                Ok(value.map(|value| Self::of(value, schema.and_then(|schema| schema.field(name)))))
            }
            (Self::Map(entries), key) => {
                for (there, value) in entries.iter() {
                    if there.same(key, budget)? {
                        return Ok(Some(value.clone()));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
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
    pub fn order(&self, other: &Self, budget: &mut Budget) -> Result<Option<Ordering>, Spent> {
        Ok(match (self, other) {
            (Self::Text(one), Self::Text(other)) => {
                budget.look(one.len().min(other.len()))?;
                Some((**one).cmp(&**other))
            }
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Time(one), Self::Time(other)) => Some(one.cmp(other)),
            (Self::Span(one), Self::Span(other)) => Some(one.cmp(other)),
            _ => match (self.whole(), other.whole(), self.number(), other.number()) {
                (Some(one), Some(other), ..) => Some(one.cmp(&other)),
                (.., Some(one), Some(other)) => one.partial_cmp(&other),
                _ => None,
            },
        })
    }

    /// Whether both are the same, however deep.
    pub fn same(&self, other: &Self, budget: &mut Budget) -> Result<bool, Spent> {
        budget.steps(1)?;
        match (self, other) {
            (Self::Null, Self::Null) => return Ok(true),
            (Self::Type(one), Self::Type(other)) => return Ok(one == other),
            (Self::Text(_), _) | (_, Self::Text(_)) => {}
            (one, other) if one.type_name() == other.type_name() && one.size().is_some() => {
                return Ok(one.size() == other.size() && one.same_within(other, budget)?);
            }
            _ => {}
        }
        Ok(self.order(other, budget)? == Some(Ordering::Equal))
    }

    /// Of two lists or two maps of one size.
    fn same_within(&self, other: &Self, budget: &mut Budget) -> Result<bool, Spent> {
        let (Some(ours), Some(mut theirs)) = (self.items(), other.items()) else { return Ok(false) };
        for one in ours {
            let (ours, theirs) =
                if self.is_list() { (Some(one), theirs.next()) } else { (self.get(&one, budget)?, other.get(&one, budget)?) };
            match (ours, theirs) {
                (Some(one), Some(other)) if one.same(&other, budget)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Go's notation of a duration: `1h30m`, `1.5s`, `-2ms`.
pub fn span(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if text.len() > READABLE {
        return None;
    }
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
