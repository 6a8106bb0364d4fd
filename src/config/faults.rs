//! What is wrong with the configuration: collected, so that all of it is told at once, in the order of the file. PURE.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Line and column, from 1.
pub(super) type Place = (usize, usize);

/// What was found so far.
#[derive(Debug, Default)]
pub struct Faults {
    file: PathBuf,
    /// Where the values stand, by their keys: `server.listen`, `source[0].name`.
    pub(super) places: BTreeMap<String, Place>,
    /// What could not be read: there is a value, but nothing can be said of it.
    unread: Vec<String>,
    told: Vec<(Option<Place>, String)>,
}

impl Faults {
    pub(super) fn of_file(file: &Path) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }

    /// Tells what is wrong with the value of a key.
    pub fn of(&mut self, key: &str, what: impl Display) {
        self.about(&[key], format!("{key}: {what}"));
    }

    /// Tells what is wrong with the values of these keys, the first of which is the one to look at. Not where one of them
    /// could not be read: that is told already, and this may be wrong only for that.
    pub fn about(&mut self, keys: &[&str], message: String) {
        if !keys.iter().any(|key| self.unread.iter().any(|unread| is_within(key, unread) || is_within(unread, key))) {
            let place = keys.iter().find_map(|key| self.places.get(*key).copied());
            self.told.push((place.or_else(|| keys.first().and_then(|key| self.nearest(key))), message));
        }
    }

    /// Tells why the value of a key cannot be read.
    pub(super) fn unread(&mut self, key: &str, why: impl Display) {
        self.of(key, why);
        self.unread.push(key.to_owned());
    }

    /// Tells what is at a place that lost its value to this key.
    pub(super) fn taken_out(&mut self, key: String, place: Place, message: String) {
        self.told.push((Some(place), message));
        self.unread.push(key);
    }

    /// Where what holds the key is.
    fn nearest(&self, key: &str) -> Option<Place> {
        let above = key.rfind(['.', '[']).map(|end| &key[..end])?;
        self.places.get(above).copied().or_else(|| self.nearest(above))
    }

    /// A line each.
    pub fn into_lines(mut self) -> Vec<String> {
        self.told.sort_by_key(|(place, _)| place.unwrap_or((usize::MAX, 0)));
        let file = self.file.display();
        let line = |(place, message): (Option<Place>, String)| match place {
            Some((line, column)) => format!("{file}: line {line}, column {column}: {message}"),
            None => message,
        };
        self.told.into_iter().map(line).collect()
    }
}

/// Whether a key is another one or below it.
fn is_within(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
