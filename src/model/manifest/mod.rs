//! Manifest files to objects, and everything that is wrong with them at once. PURE.
//!
//! - `yaml`, `json`, `toml`: text to documents, each a value and the places of its parts
//! - `bound`: how many values a text may hold, before it is parsed
//! - `scalar`: what a YAML scalar means, as kubectl sees it
//! - `position`: from a field's path to its line and column; `places`: the same, packed
//! - `foreign`: kinds that exist and are not served, and those that do not exist
//! - `file`: documents to objects
//! - `repair`, `export`: what is taken out of a value first: what is wrong, what another cluster put in
//!
//! Nothing here shows a value in a message: it may be secret.

mod bound;
mod export;
mod file;
mod foreign;
mod json;
mod places;
mod position;
mod repair;
mod scalar;
mod toml;
mod yaml;

use std::fmt;

use serde_json::Value;

pub use file::{Manifest, Manifests, Options, Skipped, Unsupported, read, told};
pub use places::Places;
pub use position::{Field, Inside, Position, Spot};

/// Bytes of one file.
pub const FILE_BYTES: usize = 8 << 20;
/// Levels of nesting, aliases followed.
pub const DEPTH: usize = 100;
/// Values of one document.
pub const NODES: usize = 500_000;
/// Problems told of one file.
const FAULTS: usize = 100;

/// One object's text: its value as written and the places of its parts.
#[derive(Clone, Debug)]
pub struct Document {
    pub value: Value,
    pub spot: Spot,
}

/// One thing wrong with a file. Sorts by file, line, column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    /// What to do about it: "did you mean `replicas`?".
    pub hint: Option<String>,
}

/// `web.yaml:4:3: unknown field `replica` in Deployment.spec, did you mean `replicas`?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ", {hint}"),
            None => Ok(()),
        }
    }
}

/// A problem that does not know its file yet.
#[derive(Debug)]
struct Fault {
    at: Position,
    message: String,
    hint: Option<String>,
    /// The line of the other of two.
    first: Option<u32>,
}

impl Fault {
    fn new(at: Position, message: String) -> Self {
        Self { at, message, hint: None, first: None }
    }

    fn duplicate(at: Position, name: &str, first: Position) -> Self {
        Self { first: Some(first.line), ..Self::new(at, format!("`{name}` is given twice in one mapping")) }
    }

    fn shifted(mut self, lines: u32) -> Self {
        self.at.line += lines;
        self.first = self.first.map(|line| line + lines);
        self
    }

    fn in_file(self, file: &str) -> Problem {
        let message = match self.first {
            Some(line) => format!("{}, first on line {line}", self.message),
            None => self.message,
        };
        Problem { file: file.to_owned(), line: self.at.line, column: self.at.column, message, hint: self.hint }
    }
}

const NOT_JSON: &str = "not JSON";

/// What a text holds, and what is wrong with it. A document with a fault such as a duplicate key is
/// still among the documents, so that its other errors are found too.
#[derive(Debug, Default)]
struct Parsed {
    documents: Vec<Document>,
    faults: Vec<Fault>,
}

impl Parsed {
    fn failed(fault: Fault) -> Self {
        Self::default().and(fault)
    }

    fn and(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    fn is_json(&self) -> bool {
        !self.faults.iter().any(|fault| fault.message.starts_with(NOT_JSON))
    }
}

/// A parser's message without its own idea of the place.
fn cut(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or_default()
}

/// Reads the documents of one file, by the file's extension: `.json`, `.toml`, otherwise YAML.
/// Empty documents (nothing, comments, null) are left out.
///
/// # Errors
/// Everything wrong with the text: bounds, syntax, duplicate keys.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Document>, Vec<Problem>> {
    let (documents, problems) = parse_file(file, bytes);
    if problems.is_empty() { Ok(documents) } else { Err(problems) }
}

fn parse_file(file: &str, bytes: &[u8]) -> (Vec<Document>, Vec<Problem>) {
    let mut parsed = parse_bytes(file, bytes);
    parsed.faults.truncate(FAULTS);
    parsed.documents.retain(|document| !document.value.is_null());
    (parsed.documents, parsed.faults.into_iter().map(|fault| fault.in_file(file)).collect())
}

fn parse_bytes(file: &str, bytes: &[u8]) -> Parsed {
    if bytes.len() > FILE_BYTES {
        let message = format!("{} bytes: a manifest file has at most {FILE_BYTES}", bytes.len());
        return Parsed::failed(Fault::new(Position::START, message));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return Parsed::failed(Fault::new(Position::new(line + 1, 1), "not UTF-8 text".to_owned()));
        }
    };
    match file.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => json::parse(text),
        "toml" => self::toml::parse(text),
        _ => yaml::parse(text),
    }
}
