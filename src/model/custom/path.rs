//! The JSON paths of printer columns, scales and selectable fields. PURE.
//!
//! kubectl's notation without its outer braces: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`,
//! `.spec.containers[*].name`, `.metadata.labels['a/b']`, `.metadata.annotations.a\.b`, `.list[-1]`, `.list[-1:]`.

use serde_json::Value;

/// A path, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end where negative.
    Index(i64),
    /// From an index to before another one.
    Slice(Option<i64>, Option<i64>),
    All,
    /// Items whose value at the path is as wanted.
    Where {
        path: Vec<Step>,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// Reads a path; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
        rest = rest.strip_prefix('$').unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest)?;
            steps.push(step);
            rest = after;
        }
        (!steps.is_empty()).then_some(Self(steps))
    }

    /// The fields it leads through, if it only leads through fields.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// Every value it leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, value)
    }
}

fn follow<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    steps.iter().fold(vec![value], |found, step| found.into_iter().flat_map(|value| take(step, value)).collect())
}

fn take<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(items)) => place(*index, items.len()).and_then(|index| items.get(index)).into_iter().collect(),
        (Step::Slice(from, to), Value::Array(items)) => {
            let bound = |index: Option<i64>, or: usize| index.map_or(or, |index| place(index, items.len()).unwrap_or(0).min(items.len()));
            items.get(bound(*from, 0)..bound(*to, items.len())).into_iter().flatten().collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(fields)) => fields.values().collect(),
        (Step::Where { path, equal, value: wanted }, Value::Array(items)) => {
            items.iter().filter(|item| follow(path, item).contains(&wanted) == *equal).collect()
        }
        _ => Vec::new(),
    }
}

/// An index of a list of this length; none before its beginning.
fn place(index: i64, length: usize) -> Option<usize> {
    let back = || length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?);
    usize::try_from(index).ok().or_else(back)
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        return bracket(rest);
    }
    let mut rest = text.strip_prefix('.')?;
    if let Some(inside) = rest.strip_prefix('[') {
        return bracket(inside);
    }
    if let Some(after) = rest.strip_prefix('*') {
        return Some((Step::All, after));
    }
    let mut name = String::new();
    while let Some(c) = rest.chars().next() {
        match c {
            '.' | '[' => break,
            '\\' => {
                rest = &rest[1..];
                name.push(rest.chars().next()?);
            }
            c if c.is_whitespace() || matches!(c, '{' | '}' | ']' | '\'' | '"') => return None,
            c => name.push(c),
        }
        rest = &rest[rest.chars().next()?.len_utf8()..];
    }
    (!name.is_empty()).then_some((Step::Field(name), rest))
}

fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix("?(") {
        let (inside, after) = rest.split_once(")]")?;
        return Some((condition(inside)?, after));
    }
    if text.starts_with(['\'', '"']) {
        let quote = text.chars().next()?;
        let (name, after) = text[1..].split_once(quote)?;
        return Some((Step::Field(name.to_owned()), after.strip_prefix(']')?));
    }
    let (inside, after) = text.split_once(']')?;
    let bound = |text: &str| if text.trim().is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) };
    let step = match inside.split_once(':') {
        _ if inside.trim() == "*" => Step::All,
        Some((from, to)) => Step::Slice(bound(from)?, bound(to)?),
        None => Step::Index(inside.trim().parse().ok()?),
    };
    Some((step, after))
}

/// `@.type=="Ready"`
fn condition(text: &str) -> Option<Step> {
    let (left, equal, right) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => return None,
    };
    let path = JsonPath::parse(left.trim().strip_prefix('@')?)?.0;
    let right = right.trim();
    let quoted = right.strip_prefix(['"', '\'']).and_then(|right| right.strip_suffix(['"', '\'']));
    let value = quoted.map_or_else(|| serde_json::from_str(right).ok(), |text| Some(Value::from(text)))?;
    Some(Step::Where { path, equal, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_their_values() {
        let object = json!({
            "metadata": {"labels": {"a/b": "x", "c.d": "y"}},
            "spec": {"replicas": 3, "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "n": 2}]},
        });
        for (path, wanted) in [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            (".spec.containers[*].name", json!(["a", "b"])),
            (".spec.containers[0].name", json!(["a"])),
            (".spec.containers[-1].name", json!(["b"])),
            (".spec.containers[7].name", json!([])),
            (".spec.containers[-7].name", json!([])),
            (".spec.containers[-1:].name", json!(["b"])),
            (".spec.containers[:1].name", json!(["a"])),
            (".spec.containers[-9:9].name", json!(["a", "b"])),
            (".spec.containers[2:1].name", json!([])),
            (".spec.containers[-9223372036854775808].name", json!([])),
            (".metadata.labels['a/b']", json!(["x"])),
            (r".metadata.labels.c\.d", json!(["y"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (r#".status.conditions[?(@.type != 'Ready')].status"#, json!(["False"])),
            (".status.conditions[?(@.n==2)].type", json!(["Other"])),
            (".nothing.there", json!([])),
        ] {
            let path = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(path.find(&object)), wanted, "{path:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", "spec", ".", "..a", ".spec[", ".spec[x]", ".a[?(@.b)]", ".a b", ".a['b]", "{.a"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
        assert_eq!(JsonPath::parse(".spec.a").unwrap().fields(), Some(vec!["spec", "a"]));
        assert_eq!(JsonPath::parse(".spec[0]").unwrap().fields(), None);
    }
}
