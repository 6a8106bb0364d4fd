//! Where each part of a document stands in its file. PURE.

use std::collections::BTreeMap;
use std::fmt;

/// A place in a file, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };

    pub(super) fn new(line: usize, column: usize) -> Self {
        Self { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The place of a value and of everything in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spot {
    pub at: Position,
    pub inside: Inside,
}

/// The places of a value's parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Inside {
    #[default]
    Nothing,
    Items(Vec<Spot>),
    Fields(BTreeMap<String, Field>),
}

/// The places of a mapping's key and of its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub key: Position,
    pub value: Spot,
}

impl Spot {
    pub(super) fn leaf(at: Position) -> Self {
        Self { at, inside: Inside::Nothing }
    }

    /// The place of a path in Kubernetes' notation (`spec.ports[0].port`, `data[a.b]`), or of the
    /// innermost thing above it that was written. A field is where its key is when `of_key`, else
    /// where its value is.
    pub fn find(&self, path: &str, of_key: bool) -> Position {
        let mut spot = self;
        let mut at = self.at;
        let mut rest = path;
        while !rest.is_empty() {
            let Some((next, field, after)) = spot.step(rest) else { return at };
            at = field.filter(|_| of_key).unwrap_or(next.at);
            spot = next;
            rest = after;
        }
        at
    }

    /// The part named by the beginning of the path: its spot, its key's place, the path's rest.
    fn step<'s, 'p>(&'s self, path: &'p str) -> Option<(&'s Spot, Option<Position>, &'p str)> {
        match &self.inside {
            Inside::Nothing => None,
            Inside::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, None, rest.strip_prefix('.').unwrap_or(rest)))
            }
            Inside::Fields(fields) => {
                if let Some(path) = path.strip_prefix('[') {
                    let (name, rest) = path.split_once(']')?;
                    let field = fields.get(name)?;
                    return Some((&field.value, Some(field.key), rest.strip_prefix('.').unwrap_or(rest)));
                }
                // The longest name that fits: keys of maps may contain dots themselves.
                let mut ends: Vec<usize> = path.match_indices(['.', '[']).map(|(index, _)| index).collect();
                ends.push(path.len());
                ends.into_iter().rev().find_map(|end| {
                    let field = fields.get(&path[..end])?;
                    let rest = &path[end..];
                    Some((&field.value, Some(field.key), rest.strip_prefix('.').unwrap_or(rest)))
                })
            }
        }
    }
}

/// Byte offsets to positions.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, starts }
    }

    pub(super) fn at(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count());
        Position::new(line, column + 1)
    }
}

impl Spot {
    /// Moves everything down by some lines.
    pub(super) fn shift(&mut self, lines: u32) {
        self.at.line += lines;
        match &mut self.inside {
            Inside::Nothing => {}
            Inside::Items(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Inside::Fields(fields) => fields.values_mut().for_each(|field| {
                field.key.line += lines;
                field.value.shift(lines);
            }),
        }
    }
}
