//! What every field of every served kind does here: acts, harmless, or refused with a reason. PURE.
//!
//! One table, so that nothing in a manifest is silently without effect. A test fails when a kind
//! has a field that the table lacks. A field that holds nothing (null, empty text, list or object)
//! counts as absent.

mod kinds;
mod persistent;
mod pod;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::Kind;
use super::rule::{ErrorReason, FieldError};

/// What a field does.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// It has the effect it has in Kubernetes.
    Acts,
    /// It may say anything: it is the system's own, or nothing here depends on it. Covers what is
    /// below it.
    Harmless,
    /// Only these values are served; else the reason.
    Only(&'static [&'static str], &'static str),
    /// Not served, and why. Covers what is below it.
    Refused(&'static str),
    /// Decided by the value and the whole object: the reason it is not served, if so.
    Check(fn(&Value, &Value) -> Option<String>),
}

/// Fields, separated by blanks, that share a rule. `[]` leads into a list, `*` is any key of a map, `*/*`
/// one with a prefix (`example.com/dongle`).
type Row = (&'static str, Rule);

/// The table of a kind as a tree.
#[derive(Debug, Default)]
struct Node {
    rule: Option<Rule>,
    children: BTreeMap<&'static str, Node>,
}

impl Node {
    fn add(&mut self, at: &'static str, rows: &'static [Row]) {
        for (fields, rule) in rows {
            for field in fields.split_whitespace() {
                self.reach(at).reach(field).rule = Some(*rule);
            }
        }
    }

    fn reach(&mut self, path: &'static str) -> &mut Node {
        steps(path).fold(self, |node, step| node.children.entry(step).or_default())
    }

    /// The rule for a path that the schema names.
    fn covers(&self, path: &str) -> Option<Rule> {
        let mut node = self;
        let mut covering = None;
        for step in steps(path) {
            let Some(next) = node.children.get(step).or_else(|| node.children.get("*")) else { return covering };
            node = next;
            // A rule on the way down covers what is below it, unless a leaf was meant.
            covering = node.rule.filter(|rule| !matches!(rule, Rule::Acts));
        }
        node.rule
    }
}

/// `containers[].name` is `containers`, `[]`, `name`.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|part| !part.is_empty()).flat_map(|part| {
        let name = part.trim_end_matches("[]");
        let lists = (part.len() - name.len()) / 2;
        std::iter::once(name).chain(std::iter::repeat_n("[]", lists))
    })
}

fn table(kind: Kind) -> &'static Node {
    static TABLES: OnceLock<Vec<Node>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| Kind::all().iter().map(|row| kinds::table(row.kind)).collect());
    static NOTHING: Node = Node { rule: None, children: BTreeMap::new() };
    kind.place().map_or(&NOTHING, |place| &tables[place])
}

/// What the field at this path does (`spec.template.spec.containers[].image`); `None` for a field
/// the kind does not have and for one that only holds others.
pub fn rule(kind: Kind, path: &str) -> Option<Rule> {
    table(kind).covers(path)
}

/// Every field of an object that says something this version does not do.
pub fn refusals(kind: Kind, object: &Value) -> Vec<FieldError> {
    let mut walk = Walk { object, path: String::new(), found: Vec::new() };
    walk.node(table(kind), object);
    walk.found
}

struct Walk<'a> {
    object: &'a Value,
    path: String,
    found: Vec<FieldError>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, value: &Value) {
        if is_nothing(value) {
            return;
        }
        match node.rule {
            Some(Rule::Harmless) => return,
            Some(Rule::Refused(reason)) => return self.refuse(reason),
            Some(Rule::Only(values, reason)) => {
                if !values.iter().any(|it| is(value, it)) {
                    self.refuse(reason);
                }
                return;
            }
            Some(Rule::Check(check)) => {
                if let Some(reason) = check(value, self.object) {
                    self.refuse(&reason);
                }
            }
            Some(Rule::Acts) | None => {}
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.field(node, name, value);
                }
            }
            Value::Array(list) => {
                let Some(element) = node.children.get("[]") else { return };
                for (index, value) in list.iter().enumerate() {
                    self.below(&format!("[{index}]"), element, value);
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, node: &Node, name: &str, value: &Value) {
        let any = node.children.get("*");
        let qualified = node.children.get("*/*").filter(|_| name.contains('/'));
        let Some(child) = node.children.get(name).or(qualified).or(any) else { return };
        let step = if any.is_some() {
            format!("[{name}]")
        } else if self.path.is_empty() {
            name.to_owned()
        } else {
            format!(".{name}")
        };
        self.below(&step, child, value);
    }

    fn below(&mut self, step: &str, node: &Node, value: &Value) {
        let length = self.path.len();
        self.path.push_str(step);
        self.node(node, value);
        self.path.truncate(length);
    }

    fn refuse(&mut self, reason: &str) {
        self.found.push(FieldError { path: self.path.clone(), reason: ErrorReason::Forbidden, message: format!("Forbidden: {reason}") });
    }
}

/// Whether a value says nothing at all.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
    }
}

fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Bool(found) => text == if *found { "true" } else { "false" },
        Value::Number(found) => found.to_string() == text,
        Value::Array(list) => list.iter().all(|it| is(it, text)),
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
