//! YAML documents, read twice. PURE.
//!
//! `granit-parser` gives the shape: where each node stands, how each scalar is written, tags,
//! anchors, duplicate keys. `serde_yaml` (libyaml, from which kubectl's parser descends) gives the
//! text of each scalar, asked for exactly that shape. Where the two disagree about a document, it
//! is refused: text that two parsers read differently is not a manifest.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::bound::crowded;
use super::position::{Field, Inside, Position, Spot};
use super::scalar::{Scalar, Tag, resolve};
use super::{DEPTH, Document, Fault, NODES, Parsed, cut, json};

/// Nodes that aliases may add to a document.
const ALIASED_NODES: usize = 100_000;

/// Every document of a stream, split at `---` lines as kubectl does.
pub(super) fn parse(text: &str) -> Parsed {
    let mut all = Parsed::default();
    for chunk in split(text, &mut all.faults) {
        let mut parsed = parse_chunk(&chunk.text);
        parsed.documents.iter_mut().for_each(|document| document.spot.shift(chunk.line));
        all.documents.append(&mut parsed.documents);
        all.faults.extend(parsed.faults.into_iter().map(|fault| fault.shifted(chunk.line)));
    }
    all
}

struct Chunk {
    /// Lines above it in the file.
    line: u32,
    text: String,
}

fn split(text: &str, faults: &mut Vec<Fault>) -> Vec<Chunk> {
    let mut chunks = vec![Chunk { line: 0, text: String::new() }];
    for (number, line) in (1_u32..).zip(text.lines()) {
        match line.strip_prefix("---") {
            Some(rest) => {
                let rest = rest.trim();
                if !rest.is_empty() && !rest.starts_with('#') {
                    let at = Position { line: number, column: 4 };
                    faults.push(Fault::new(at, "only a comment may follow `---` on its line".to_owned()));
                }
                chunks.push(Chunk { line: number, text: String::new() });
            }
            None => {
                if let Some(chunk) = chunks.last_mut() {
                    chunk.text.push_str(line);
                    chunk.text.push('\n');
                }
            }
        }
    }
    chunks
}

fn parse_chunk(text: &str) -> Parsed {
    // Files with a mark at their start may have been joined.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') && crowded(text, false).is_none() {
        let parsed = json::parse(text);
        if parsed.is_json() {
            return parsed;
        }
    }
    let shapes = match shapes(text) {
        Ok(shapes) => shapes,
        Err(fault) => return Parsed::failed(fault),
    };
    let mut parsed = Parsed::default();
    if shapes.is_empty() && text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "...") {
        return parsed;
    }
    let mut stream = serde_yaml::Deserializer::from_str(text);
    for shape in &shapes {
        let Some(document) = stream.next() else {
            return parsed.and(Fault::new(shape.at, DISAGREE.to_owned()));
        };
        let reading = Reading::default();
        let read = Seed { shape, depth: 0, aliased: false, reading: &reading }.deserialize(document);
        let mut faults = reading.faults.take();
        match read {
            Ok((value, spot)) => parsed.documents.push(Document { value, spot }),
            Err(error) => {
                if faults.is_empty() {
                    let at = error.location().map_or(shape.at, |at| Position::new(at.line(), at.column()));
                    let message = cut(&error.to_string()).to_owned();
                    let message = if message.starts_with("invalid length") { DISAGREE.to_owned() } else { format!("not YAML: {message}") };
                    faults.push(Fault::new(at, message));
                }
                parsed.faults.append(&mut faults);
                return parsed;
            }
        }
        parsed.faults.append(&mut faults);
    }
    if stream.next().is_some() { parsed.and(Fault::new(Position::START, DISAGREE.to_owned())) } else { parsed }
}

const DISAGREE: &str = "not YAML: two readings of it disagree about where something ends";

/// A node as it is written.
struct Shape {
    at: Position,
    form: Form,
}

enum Form {
    Scalar { plain: bool, tag: Tag },
    Items(Vec<Rc<Shape>>),
    Fields(Vec<(Rc<Shape>, Rc<Shape>)>),
    Alias(Rc<Shape>),
}

/// A collection that is still open.
struct Open {
    at: Position,
    anchor: usize,
    fields: bool,
    parts: Vec<Rc<Shape>>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Shape>>,
    done: Vec<Rc<Shape>>,
    nodes: usize,
}

fn shapes(text: &str) -> Result<Vec<Rc<Shape>>, Fault> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let at = Position::new(error.marker().line(), error.marker().col() + 1);
            Fault::new(at, format!("not YAML: {}", error.info()))
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.done)
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let at = place(&span);
        match event {
            Event::Scalar(_, style, anchor, tag) => {
                let tag = tag.as_deref().map_or(Tag::None, |tag| tag_of(&tag.to_string()));
                self.put(Shape { at, form: Form::Scalar { plain: style == ScalarStyle::Plain, tag } }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.enter(at, anchor, false),
            Event::MappingStart(_, anchor, _) => self.enter(at, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let form = if open.fields {
                    let mut parts = open.parts.into_iter();
                    Form::Fields(std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect())
                } else {
                    Form::Items(open.parts)
                };
                self.put(Shape { at: open.at, form }, open.anchor)
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(target) => self.put(Shape { at, form: Form::Alias(target) }, 0),
                None => Err(Fault::new(at, "this alias is inside the value it refers to".to_owned())),
            },
            _ => Ok(()),
        }
    }

    fn enter(&mut self, at: Position, anchor: usize, fields: bool) -> Result<(), Fault> {
        if self.open.len() >= DEPTH {
            return Err(Fault::new(at, format!("nested deeper than {DEPTH} levels")));
        }
        self.open.push(Open { at, anchor, fields, parts: Vec::new() });
        Ok(())
    }

    fn put(&mut self, shape: Shape, anchor: usize) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(Fault::new(shape.at, format!("more than {NODES} values in one document")));
        }
        let shape = Rc::new(shape);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&shape));
        }
        match self.open.last_mut() {
            Some(open) => open.parts.push(shape),
            None => self.done.push(shape),
        }
        Ok(())
    }
}

fn place(span: &Span) -> Position {
    Position::new(span.start.line(), span.start.col() + 1)
}

fn tag_of(tag: &str) -> Tag {
    match tag.strip_prefix("tag:yaml.org,2002:").unwrap_or_default() {
        "str" => Tag::Str,
        "int" => Tag::Int,
        "float" => Tag::Float,
        "bool" => Tag::Bool,
        "null" => Tag::Null,
        "binary" => Tag::Binary,
        "timestamp" => Tag::Timestamp,
        "merge" => Tag::Merge,
        _ => Tag::Other,
    }
}

/// What one document's reading has found and may still use up.
#[derive(Default)]
struct Reading {
    faults: RefCell<Vec<Fault>>,
    aliased: Cell<usize>,
}

impl Reading {
    fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes the fault and ends the reading.
    fn end<E: de::Error>(&self, fault: Fault) -> E {
        self.fault(fault);
        E::custom("refused")
    }
}

/// Reads one node of the text as the shape says.
#[derive(Clone, Copy)]
struct Seed<'a> {
    shape: &'a Shape,
    depth: usize,
    aliased: bool,
    reading: &'a Reading,
}

impl<'a> Seed<'a> {
    /// The node an alias stands for, or the node itself.
    fn followed(mut self) -> Self {
        while let Form::Alias(target) = &self.shape.form {
            self.shape = target;
            self.aliased = true;
        }
        self
    }

    fn inside(self, shape: &'a Shape) -> Self {
        Self { shape, depth: self.depth + 1, ..self }
    }

    fn check<E: de::Error>(&self) -> Result<(), E> {
        if self.depth > DEPTH {
            return Err(self.reading.end(Fault::new(self.shape.at, format!("nested deeper than {DEPTH} levels"))));
        }
        if self.aliased {
            self.reading.aliased.set(self.reading.aliased.get() + 1);
            if self.reading.aliased.get() > ALIASED_NODES {
                return Err(self.reading.end(Fault::new(self.shape.at, "aliases make this document too large".to_owned())));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = (Value, Spot);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let seed = self.followed();
        seed.check()?;
        match &seed.shape.form {
            Form::Scalar { plain, tag } => {
                let at = seed.shape.at;
                let text = deserializer.deserialize_str(Text)?;
                let value = resolve(&text, *plain, *tag).and_then(Scalar::json).unwrap_or_else(|message| {
                    seed.reading.fault(Fault::new(at, message));
                    Value::Null
                });
                Ok((value, Spot::leaf(at)))
            }
            Form::Items(items) => deserializer.deserialize_seq(Items { seed, items }),
            Form::Fields(fields) => deserializer.deserialize_map(Fields { seed, fields }),
            Form::Alias(_) => unreachable!("`followed` leaves no alias"),
        }
    }
}

/// The text of a scalar.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

struct Items<'a> {
    seed: Seed<'a>,
    items: &'a [Rc<Shape>],
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = (Value, Spot);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sequence of {}", self.items.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::with_capacity(self.items.len());
        let mut spots = Vec::with_capacity(self.items.len());
        for item in self.items {
            let Some((value, spot)) = access.next_element_seed(self.seed.inside(item))? else {
                return Err(de::Error::invalid_length(values.len(), &self));
            };
            values.push(value);
            spots.push(spot);
        }
        Ok((Value::Array(values), Spot { at: self.seed.shape.at, inside: Inside::Items(spots) }))
    }
}

struct Fields<'a> {
    seed: Seed<'a>,
    fields: &'a [(Rc<Shape>, Rc<Shape>)],
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = (Value, Spot);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a mapping of {}", self.fields.len())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let reading = self.seed.reading;
        let mut made = Made::default();
        for (key, written) in self.fields {
            let place = key.at;
            let Some(name) = access.next_key_seed(Key(self.seed.inside(key)))? else {
                return Err(de::Error::invalid_length(made.values.len(), &self));
            };
            let (value, spot) = access.next_value_seed(self.seed.inside(written))?;
            match name {
                Name::Merge if mergeable(written) => made.merge(value, spot),
                Name::Merge => reading.fault(Fault::new(place, "`<<` takes a mapping or a list of mappings".to_owned())),
                Name::Field(name) => {
                    if let Some(first) = made.own.insert(name.clone(), place) {
                        reading.fault(Fault::duplicate(place, &name, first));
                    }
                    made.put(name, value, Field { key: place, value: spot });
                }
                Name::Bad(message) => reading.fault(Fault::new(place, message)),
            }
        }
        Ok((Value::Object(made.values), Spot { at: self.seed.shape.at, inside: Inside::Fields(made.fields) }))
    }
}

/// A mapping in the making. As in kubectl, the later of two entries wins, merged ones included.
#[derive(Default)]
struct Made {
    values: Map<String, Value>,
    fields: BTreeMap<String, Field>,
    /// Where each key is written in this very mapping.
    own: BTreeMap<String, Position>,
}

impl Made {
    fn put(&mut self, name: String, value: Value, field: Field) {
        self.values.insert(name.clone(), value);
        self.fields.insert(name, field);
    }

    fn merge(&mut self, value: Value, spot: Spot) {
        match (value, spot.inside) {
            (Value::Object(values), Inside::Fields(mut fields)) => {
                for (name, value) in values {
                    if let Some(field) = fields.remove(&name) {
                        self.put(name, value, field);
                    }
                }
            }
            // The first of a list wins.
            (Value::Array(values), Inside::Items(spots)) => {
                values.into_iter().zip(spots).rev().for_each(|(value, spot)| self.merge(value, spot));
            }
            _ => {}
        }
    }
}

/// What kubectl merges: a mapping, an alias of one, a list (written in place) of these.
fn mergeable(shape: &Shape) -> bool {
    let mapping = |shape: &Shape| match &shape.form {
        Form::Fields(_) => true,
        Form::Alias(target) => matches!(target.form, Form::Fields(_)),
        _ => false,
    };
    match &shape.form {
        Form::Items(items) => items.iter().all(|item| mapping(item)),
        _ => mapping(shape),
    }
}

/// The key of a mapping's entry.
enum Name {
    Field(String),
    Merge,
    Bad(String),
}

struct Key<'a>(Seed<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        let written_here = !matches!(self.0.shape.form, Form::Alias(_));
        let seed = self.0.followed();
        seed.check()?;
        match seed.shape.form {
            Form::Scalar { plain, tag } => {
                let text = deserializer.deserialize_str(Text)?;
                if written_here && text == "<<" && (tag == Tag::Merge || (plain && tag == Tag::None)) {
                    return Ok(Name::Merge);
                }
                Ok(resolve(&text, plain, tag).and_then(Scalar::key).map_or_else(Name::Bad, Name::Field))
            }
            _ => {
                let message = "a mapping or list cannot be the name of a field; text with `{{ }}` needs quotes".to_owned();
                Err(seed.reading.end(Fault::new(seed.shape.at, message)))
            }
        }
    }
}
