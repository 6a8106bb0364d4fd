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
    /// The place of a mapping's value.
    pub(super) fn field_mut(&mut self, name: &str) -> Option<&mut Spot> {
        match &mut self.inside {
            Inside::Fields(fields) => fields.get_mut(name).map(|field| &mut field.value),
            _ => None,
        }
    }

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

    /// Whether the whole of a path is written.
    pub(super) fn has(&self, path: &str) -> bool {
        path.is_empty() || self.step(path).is_some_and(|(next, _, rest)| next.has(rest))
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

/// Byte offsets to positions, in a time that does not grow with the length of a line.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// Characters before each block of the text.
    before: Vec<usize>,
}

/// Bytes whose characters are counted anew for each position.
const BLOCK: usize = 1024;

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        let blocks = text.as_bytes().chunks(BLOCK).scan(0, |sum, block| {
            let before = *sum;
            *sum += characters(block);
            Some(before)
        });
        Self { text, starts, before: blocks.collect() }
    }

    pub(super) fn at(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let column = self.characters_before(offset) - self.characters_before(self.starts[line - 1]);
        Position::new(line, column + 1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = (offset / BLOCK).min(self.before.len().saturating_sub(1));
        let before = self.before.get(block).copied().unwrap_or_default();
        before + characters(&self.text.as_bytes()[block * BLOCK..offset])
    }
}

/// Characters that begin in some bytes of a text.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
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

#[cfg(test)]
mod tests {
    use super::{BLOCK, Lines, Position};

    #[test]
    fn places_are_those_that_counting_gives() {
        let text = format!("{}\n\n{}\nx", "aé€".repeat(BLOCK), "é\n".repeat(BLOCK));
        let lines = Lines::new(&text);
        let mut at = Position::START;
        for (offset, c) in text.char_indices() {
            assert_eq!(lines.at(offset), at, "{offset}");
            at = if c == '\n' { Position { line: at.line + 1, column: 1 } } else { Position { column: at.column + 1, ..at } };
        }
        assert_eq!(lines.at(text.len()), at);
        assert_eq!(lines.at(usize::MAX), at);
        assert_eq!(Lines::new("").at(0), Position::START);
    }
}
