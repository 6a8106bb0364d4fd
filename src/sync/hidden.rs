//! What the documents of a tree speak of that cannot be read: what seems to be missing may be in them. PURE.
//!
//! A document that cannot be read has no objects, but it has words. One that has `Namespace` and `web` among them may be
//! that of the Namespace web, and nobody is told that there is no such namespace.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Kind;
use crate::model::manifest::{Position, Problem};

/// Kinds without whose objects others are refused.
const NEEDED: [Kind; 4] = [Kind::Namespace, Kind::ServiceAccount, Kind::RuntimeClass, Kind::CustomResourceDefinition];

/// The words of documents that cannot be read, by the needed kinds that they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hidden(BTreeMap<Kind, BTreeSet<String>>);

impl Hidden {
    /// Whether a document that cannot be read may be that of an object.
    pub fn holds(&self, kind: Kind, name: &str) -> bool {
        self.0.get(&kind).is_some_and(|words| words.contains(name))
    }

    pub(super) fn extend(&mut self, more: &Self) {
        for (kind, words) in &more.0 {
            self.0.entry(*kind).or_default().extend(words.iter().cloned());
        }
    }
}

/// The documents of one file: where each begins, and whether anything is wrong with it.
pub(super) struct Documents(Vec<(Position, bool)>);

impl Documents {
    /// `starts`: where those begin that could be told apart.
    pub fn of(text: &str, starts: &[Position], problems: &[Problem]) -> Self {
        let after = |(number, line): (u32, &str)| line.starts_with("---").then_some(Position { line: number, column: 1 });
        let marks = (2_u32..).zip(text.lines()).filter_map(after);
        let mut starts: Vec<Position> = starts.iter().copied().chain(marks).chain([Position::START]).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut all: Vec<(Position, bool)> = starts.into_iter().map(|start| (start, false)).collect();
        for problem in problems {
            let at = Position { line: problem.line, column: problem.column };
            let index = all.partition_point(|(start, _)| *start <= at);
            all[index.saturating_sub(1)].1 = true;
        }
        Self(all)
    }

    /// Whether nothing is wrong with the document that has this place.
    pub fn is_good(&self, at: Position) -> bool {
        let index = self.0.partition_point(|(start, _)| *start <= at);
        !self.0[index.saturating_sub(1)].1
    }

    /// What those speak of with which something is wrong.
    pub fn hidden(&self, text: &str) -> Hidden {
        let lines: Vec<&str> = text.lines().collect();
        let mut hidden = Hidden::default();
        for (index, (start, is_bad)) in self.0.iter().enumerate() {
            if !is_bad {
                continue;
            }
            let first = start.line as usize - 1;
            // Several may stand on one line.
            let end = self.0.get(index + 1).map_or(lines.len(), |(next, _)| next.line as usize - usize::from(next.column == 1));
            let lines = lines.get(first..end.max(first + 1).min(lines.len())).unwrap_or_default();
            let words: BTreeSet<&str> = lines.iter().flat_map(|line| line.split(is_between)).filter(|word| !word.is_empty()).collect();
            for kind in NEEDED.into_iter().filter(|kind| words.contains(kind.name())) {
                hidden.0.entry(kind).or_default().extend(words.iter().map(|word| (*word).to_owned()));
            }
        }
        hidden
    }
}

fn is_between(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_with_a_problem_hide_what_they_speak_of() {
        let text = "kind: Namespace\nmetadata: {name: good}\n---\nkind: Namespace\nmetadata: {name: \"bad\"}\n--- # next\nkind: [Namespace\nname: worse\n---\nkind: ServiceAccount\nname: bot\n";
        let at = |line: u32, column: u32| Position { line, column };
        let problem = |line: u32| Problem { file: "a".to_owned(), line, column: 9, message: String::new(), hint: None };
        let starts = [at(1, 1), at(4, 1), at(10, 1)];
        let documents = Documents::of(text, &starts, &[problem(5), problem(8)]);
        assert_eq!([1, 4, 7, 10].map(|line| documents.is_good(at(line, 1))), [true, false, false, true]);
        let hidden = documents.hidden(text);
        for (kind, name, holds) in [
            (Kind::Namespace, "good", false),
            (Kind::Namespace, "bad", true),
            (Kind::Namespace, "worse", true),
            (Kind::Namespace, "bot", false),
            (Kind::ServiceAccount, "bot", false),
            (Kind::ServiceAccount, "bad", false),
        ] {
            assert_eq!(hidden.holds(kind, name), holds, "{kind} {name}");
        }
        // On one line, and in a text that is no manifest at all.
        let line = "{\"kind\": \"Namespace\", \"name\": \"a\"} {\"kind\": \"Namespace\", \"name\": \"b\"}";
        let documents = Documents::of(line, &[at(1, 1), at(1, 36)], &[Problem { column: 40, ..problem(1) }]);
        assert_eq!([1, 36].map(|column| documents.is_good(at(1, column))), [true, false]);
        assert!(documents.hidden(line).holds(Kind::Namespace, "b"));
        assert!(!Documents::of("", &[], &[problem(7)]).hidden("").holds(Kind::Namespace, ""));
    }
}
