//! A broken rule and the place of it, in Kubernetes' words. PURE.

use std::fmt;

use serde::Serialize;

/// Of one object no more than this is told: what is wrong in one place is often wrong in each like it.
pub const MOST: usize = 100;
/// Bytes of one name in a path.
pub const NAME: usize = 512;
/// Bytes of one message.
const MESSAGE: usize = 8 << 10;

/// The beginning of a text, of this many bytes at most.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Path as Kubernetes prints it: `spec.template.spec.containers[0].name`.
    pub path: String,
    pub reason: ErrorReason,
    /// What follows the path: `Invalid value: "a_b": a lowercase RFC 1123 label must …`.
    pub message: String,
}

/// The causes of Kubernetes' `Status.details.causes[].reason` that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorReason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    Unknown,
}

impl ErrorReason {
    /// The machine-readable cause: `FieldValueRequired`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::Unknown => "UnknownField",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A place in an object, as a chain to its root: made on the way down for nothing, printed only
/// when a rule is broken.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself; `Path::root("spec")` is its field `spec`.
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name) }
    }
    /// A field; dots in `name` lead further down.
    pub const fn child(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Name(name) }
    }
    /// An element of a list.
    pub const fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }
    /// An entry of a map.
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Name(name) if self.parent.is_some_and(|parent| !parent.is_nothing()) => write!(f, ".{}", cut(name, NAME)),
            Step::Name(name) => f.write_str(cut(name, NAME)),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{}]", cut(key, NAME)),
        }
    }
}

impl Path<'_> {
    fn is_nothing(&self) -> bool {
        self.parent.is_none() && matches!(self.step, Step::Name(""))
    }
}

/// Collects the broken rules of an object: the first of them.
#[derive(Debug)]
pub struct Errors {
    found: Vec<FieldError>,
    most: usize,
}

impl Default for Errors {
    fn default() -> Self {
        Self { found: Vec::new(), most: MOST }
    }
}

impl Errors {
    /// For whoever asks only whether there is one.
    pub fn first() -> Self {
        Self { found: Vec::new(), most: 1 }
    }
    pub fn into_vec(self) -> Vec<FieldError> {
        self.found
    }
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
    /// Whether nothing more will be told.
    pub fn is_full(&self) -> bool {
        self.found.len() >= self.most
    }
    pub fn append(&mut self, more: Self) {
        let left = self.most - self.found.len();
        self.found.extend(more.found.into_iter().take(left));
    }

    fn add(&mut self, path: &Path<'_>, reason: ErrorReason, message: impl FnOnce() -> String) {
        if self.is_full() {
            return;
        }
        let mut message = message();
        if message.len() > MESSAGE {
            message.truncate(message.floor_char_boundary(MESSAGE));
            message.push('…');
        }
        self.found.push(FieldError { path: path.to_string(), reason, message });
    }

    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(path, ErrorReason::Required, || with_detail("Required value", detail));
    }
    pub fn invalid(&mut self, path: &Path<'_>, value: &(impl Serialize + ?Sized), detail: &str) {
        self.add(path, ErrorReason::Invalid, || with_detail(&format!("Invalid value: {}", shown(value)), detail));
    }
    /// `supported` in the order to print it.
    pub fn unsupported(&mut self, path: &Path<'_>, value: &(impl Serialize + ?Sized), supported: &[&str]) {
        self.add(path, ErrorReason::NotSupported, || {
            let values: Vec<String> = supported.iter().map(|it| format!("\"{it}\"")).collect();
            let detail = if values.is_empty() { String::new() } else { format!("supported values: {}", values.join(", ")) };
            with_detail(&format!("Unsupported value: {}", shown(value)), &detail)
        });
    }
    pub fn duplicate(&mut self, path: &Path<'_>, value: &(impl Serialize + ?Sized)) {
        self.add(path, ErrorReason::Duplicate, || format!("Duplicate value: {}", shown(value)));
    }
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add(path, ErrorReason::Forbidden, || with_detail("Forbidden", detail));
    }
    pub fn not_found(&mut self, path: &Path<'_>, value: &(impl Serialize + ?Sized)) {
        self.add(path, ErrorReason::NotFound, || format!("Not found: {}", shown(value)));
    }
    pub fn too_long(&mut self, path: &Path<'_>, bytes: usize) {
        self.add(path, ErrorReason::TooLong, || format!("Too long: may not be more than {bytes} bytes"));
    }
    pub fn too_many(&mut self, path: &Path<'_>, found: usize, most: usize) {
        self.add(path, ErrorReason::TooMany, || format!("Too many: {found}: must have at most {most} items"));
    }
    /// One `Invalid value` for each message.
    pub fn all(&mut self, path: &Path<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, &message);
        }
    }
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") }
}

/// A value as JSON; what does not fit a line is cut.
fn shown(value: &(impl Serialize + ?Sized)) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_kubernetes_does() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let limits = first.child("resources.limits");
        assert_eq!(limits.key("cpu").to_string(), "spec.containers[0].resources.limits[cpu]");
        let nothing = Path::root("");
        assert_eq!(nothing.child("data").key("a.b").to_string(), "data[a.b]");
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut errors = Errors::default();
        let (root, long) = (Path::root("spec"), "é".repeat(1_000_000));
        let at = root.key(&long);
        for _ in 0..1000 {
            errors.invalid(&at.child(&long), &long, &long);
            errors.unsupported(&at, &long, &[&long]);
        }
        assert!(errors.is_full());
        let found = errors.into_vec();
        assert_eq!(found.len(), MOST);
        assert!(found.iter().all(|it| it.path.len() < 3 * NAME && it.message.len() < 2 * MESSAGE));

        let (mut first, mut more) = (Errors::first(), Errors::default());
        (0..3).for_each(|_| more.required(&root, ""));
        first.append(more);
        assert_eq!(first.into_vec().len(), 1);
    }

    #[test]
    fn messages_read_as_kubernetes_does() {
        let mut errors = Errors::default();
        let path = Path::root("spec.type");
        errors.required(&path, "");
        errors.invalid(&path, "a\"b", "no quotes");
        errors.invalid(&path, &7, "too big");
        errors.unsupported(&path, "x", &["A", "B"]);
        let printed: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            [
                "spec.type: Required value",
                "spec.type: Invalid value: \"a\\\"b\": no quotes",
                "spec.type: Invalid value: 7: too big",
                "spec.type: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ]
        );
    }
}
