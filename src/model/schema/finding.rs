//! What is wrong with the shape of a value, and where: what the walks over values have in common. PURE.

use std::borrow::Cow;

use crate::model::Kind;
use crate::model::rule::{MOST, NAME, cut};

/// One thing wrong with a value's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field: `spec.ports[0].port`.
    pub path: String,
    /// The same as a JSON pointer: `/spec/ports/0/port`.
    pub pointer: String,
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Unknown { field: String, container: String, suggestion: Option<String> },
    WrongType { wanted: &'static str, found: &'static str, hint: Option<&'static str> },
}

impl Finding {
    /// The message without the suggestion; `Deployment.spec` is how it names the place. Never
    /// shows a value: it may be secret.
    pub fn message(&self, kind: Kind) -> String {
        match &self.fault {
            Fault::Unknown { field, container, .. } => format!("unknown field `{field}` in {}", place(kind, container)),
            Fault::WrongType { wanted, found, .. } => format!("{} must be {wanted}, not {found}", place(kind, &self.path)),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match &self.fault {
            Fault::Unknown { suggestion, .. } => suggestion.as_ref().map(|name| format!("did you mean `{name}`?")),
            Fault::WrongType { hint, .. } => hint.map(str::to_owned),
        }
    }
}

fn place(kind: Kind, path: &str) -> String {
    if path.is_empty() { kind.to_string() } else { format!("{kind}.{path}") }
}

/// Where a walk is, and what it found on the way: the first of it, with names of bounded length.
#[derive(Default)]
pub struct Trail {
    path: String,
    pointer: String,
    found: Vec<Finding>,
}

impl Trail {
    pub fn found(self) -> Vec<Finding> {
        self.found
    }

    /// Whether nothing more will be told.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    /// Goes down to what is called `name` in paths and `key` in its object; what it gives leads back.
    pub fn enter(&mut self, name: &str, key: &str) -> (usize, usize) {
        let above = (self.path.len(), self.pointer.len());
        if above.0 > 0 && !name.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(cut(name, NAME));
        self.pointer.push('/');
        self.pointer.push_str(&cut(key, NAME).replace('~', "~0").replace('/', "~1"));
        above
    }

    pub fn leave(&mut self, above: (usize, usize)) {
        self.path.truncate(above.0);
        self.pointer.truncate(above.1);
    }

    pub fn find(&mut self, fault: Fault) {
        if !self.is_full() {
            self.found.push(Finding { path: self.path.clone(), pointer: self.pointer.clone(), fault });
        }
    }

    /// A field that is not among `known`.
    pub fn unknown<'a>(&mut self, name: &str, known: impl Iterator<Item = &'a str>) {
        if self.is_full() {
            return;
        }
        let suggestion = nearest(name, known).map(str::to_owned);
        let fault = Fault::Unknown { field: cut(name, NAME).to_owned(), container: self.path.clone(), suggestion };
        let above = self.enter(name, name);
        self.find(fault);
        self.leave(above);
    }
}

/// A key of a map in a path.
pub fn entry(key: &str) -> Cow<'_, str> {
    let key = cut(key, NAME);
    if key.contains(['.', '/', '[']) { Cow::Owned(format!("[{key}]")) } else { Cow::Borrowed(key) }
}

/// Bytes of a word that may be a slip: comparing two takes the product of their lengths.
const WORD: usize = 256;

/// The word among `words` that was probably meant by `written`.
pub fn nearest<'a>(written: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > WORD {
        return None;
    }
    let lower = written.to_lowercase();
    let length = lower.chars().count();
    words
        .filter(|word| word.len() <= WORD)
        .filter_map(|word| {
            let (other, most) = (word.to_lowercase(), 1 + word.len().min(written.len()) / 5);
            // What differs in length by more differs by more.
            let distance = (other.chars().count().abs_diff(length) <= most).then(|| strsim::damerau_levenshtein(&lower, &other))?;
            (distance <= most).then_some((word, distance))
        })
        .min_by_key(|(_, distance)| *distance)
        .map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_no_slip() {
        assert_eq!(nearest("replica", ["image", "replicas"].into_iter()), Some("replicas"));
        assert_eq!(nearest("zzzz", ["image", "replicas"].into_iter()), None);
        let long = "a".repeat(3_000_000);
        assert_eq!(nearest(&long, ["aaaaaaaaaa", &long].into_iter()), None);
        assert_eq!(nearest("aaaaaaaaaa", [long.as_str(), "aaaaaaaaab"].into_iter()), Some("aaaaaaaaab"));
    }

    #[test]
    fn a_trail_keeps_the_first_findings_and_cuts_long_names() {
        let mut trail = Trail::default();
        let above = trail.enter(&"k".repeat(1_000_000), &"k".repeat(1_000_000));
        (0..1000).for_each(|number| trail.unknown(&format!("{number}"), ["a"].into_iter()));
        trail.leave(above);
        let found = trail.found();
        assert_eq!(found.len(), MOST);
        assert!(found.iter().all(|it| it.path.len() < 2 * NAME && it.pointer.len() < 2 * NAME));
    }
}
