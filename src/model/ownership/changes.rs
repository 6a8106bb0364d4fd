//! What differs between two values, field by field, by the list types of their kind. PURE.

use serde_json::Value;

use super::fields::Element;
use super::shape::{Keys, Path, Shape, Shapes, shape};

/// One field that is there, gone or another.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// `spec.containers[name="a"].image`
    pub path: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Every field that differs, in the order of the paths. What is added or gone whole comes leaf by
/// leaf.
pub fn changes<'a>(kind: impl Into<Shapes<'a>>, before: &'a Value, after: &'a Value) -> Vec<FieldChange> {
    let mut walk = Walk { kind: kind.into(), path: Vec::new(), printed: String::new(), found: Vec::new() };
    walk.pair(Some(before), Some(after));
    walk.found
}

struct Walk<'a> {
    kind: Shapes<'a>,
    path: Path<'a>,
    printed: String,
    found: Vec<FieldChange>,
}

impl<'a> Walk<'a> {
    fn pair(&mut self, before: Option<&'a Value>, after: Option<&'a Value>) {
        if before == after {
            return;
        }
        let shape_of = |value: Option<&Value>| value.map(|value| shape(self.kind, &self.path, value));
        let (left, right) = (shape_of(before), shape_of(after));
        let together = left.or(right).filter(|one| left.is_none_or(|it| it == *one) && right.is_none_or(|it| it == *one));
        match together {
            Some(Shape::Map) => self.maps(before, after),
            Some(Shape::Keyed(keys)) => self.lists(keys, before, after),
            _ => self.leaf(before, after),
        }
    }

    fn leaf(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let path = self.printed.trim_start_matches('.').to_owned();
        self.found.push(FieldChange { path, before: before.cloned(), after: after.cloned() });
    }

    fn maps(&mut self, before: Option<&'a Value>, after: Option<&'a Value>) {
        let fields = |value: Option<&'a Value>| value.and_then(Value::as_object).into_iter().flatten();
        let mut names: Vec<&'a str> = fields(before).chain(fields(after)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return self.leaf(before, after);
        }
        for name in names {
            let member = |value: Option<&'a Value>| value.and_then(|value| value.get(name));
            self.path.push(name);
            self.below(&Element::Field(name.to_owned()), member(before), member(after));
            self.path.pop();
        }
    }

    fn lists(&mut self, keys: Keys<'_>, before: Option<&'a Value>, after: Option<&'a Value>) {
        let items = |value: Option<&'a Value>| value.and_then(Value::as_array).into_iter().flatten();
        let mut seen: Vec<Element> = Vec::new();
        for item in items(after).chain(items(before)) {
            let element = Element::of_item(keys, item);
            if seen.contains(&element) {
                continue;
            }
            let find = |value| items(value).find(|item| Element::of_item(keys, item) == element);
            let (left, right) = (find(before), find(after));
            let first = self.found.len();
            self.below(&element, left, right);
            if left.is_none() || right.is_none() {
                self.drop_keys(keys, &element, first, left.or(right), right.is_some());
            }
            seen.push(element);
        }
        if seen.is_empty() {
            self.leaf(before, after);
        }
    }

    /// The keys of an item that is new or gone are in its path already; an item of keys alone is said
    /// as a whole.
    fn drop_keys(&mut self, keys: Keys<'_>, element: &Element, first: usize, item: Option<&Value>, is_new: bool) {
        let prefix = format!("{}{element}", self.printed);
        let prefix = prefix.trim_start_matches('.');
        let fields = self.found.split_off(first);
        let rest: Vec<FieldChange> =
            fields.into_iter().filter(|change| !keys.iter().any(|key| change.path == format!("{prefix}.{key}"))).collect();
        if rest.is_empty() {
            let value = item.cloned();
            let (before, after) = if is_new { (None, value) } else { (value, None) };
            self.found.push(FieldChange { path: prefix.to_owned(), before, after });
        }
        self.found.extend(rest);
    }

    fn below(&mut self, element: &Element, before: Option<&'a Value>, after: Option<&'a Value>) {
        let length = self.printed.len();
        self.printed.push_str(&element.to_string());
        self.pair(before, after);
        self.printed.truncate(length);
    }
}
