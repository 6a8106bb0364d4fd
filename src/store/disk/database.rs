//! The database file: each object's JSON by its key, and two counters.
//!
//! A write that fails leaves redb unusable and its own outcome open, so the file is opened again
//! and asked: each write carries a number, and the number found tells whether it is there.

use std::fmt::Debug;
use std::path::PathBuf;

use bytes::Bytes;
use redb::{Builder, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::model::custom::{CustomKind, Names};
use crate::model::{Key, Kind, Object};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
/// No revision above it was handed out.
const RESERVED: &str = "reserved";
/// How many writes there were.
const WRITES: &str = "writes";

/// The objects are in memory: the database needs only what a write touches.
const CACHE_BYTES: usize = 2 << 20;
/// A file below this is never compacted.
const COMPACT_BYTES: u64 = 32 << 20;
/// Writes between two looks at whether to compact.
const COMPACT_EVERY: u64 = 4096;

/// Where the database lives; opened again after a failed write.
pub(super) trait DataFile: Debug + Send {
    fn open(&self) -> Result<redb::Database, redb::DatabaseError>;
    /// Its length, free pages included.
    fn bytes(&self) -> u64;
}

impl DataFile for PathBuf {
    fn open(&self) -> Result<redb::Database, redb::DatabaseError> {
        builder().create(self)
    }
    fn bytes(&self) -> u64 {
        std::fs::metadata(self).map_or(0, |file| file.len())
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// What went wrong.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// No space; nothing was written.
    Full,
    /// Nothing was written.
    Io(String),
    /// The write may or may not be there: [`Database::settle`] finds out.
    Unknown(String),
    /// The same for want of space.
    UnknownFull,
    Damaged(String),
    /// It holds an object of a kind that this program does not know.
    Newer(String),
}

pub(super) struct Database {
    file: Box<dyn DataFile>,
    open: Option<redb::Database>,
    /// Writes that are there.
    writes: u64,
    /// How many there were at the last look at the file's size.
    looked_at: u64,
}

impl Database {
    pub(super) fn open(file: Box<dyn DataFile>) -> Result<Self, (Box<dyn DataFile>, Fault)> {
        let mut database = Self { file, open: None, writes: 0, looked_at: 0 };
        match database.reopen() {
            Ok(writes) => {
                database.writes = writes;
                Ok(database)
            }
            Err(fault) => Err((database.file, fault)),
        }
    }

    /// Opens the file anew; gives the number of writes in it.
    fn reopen(&mut self) -> Result<u64, Fault> {
        self.open = None;
        let open = self.file.open().map_err(|error| fault(&error.into()))?;
        let writes = counter(&open, WRITES).map_err(|error| fault(&error))?;
        self.open = Some(open);
        Ok(writes)
    }

    /// Everything stored, and the revision up to which all are used up.
    pub(super) fn load(&self) -> Result<(Vec<Object>, u64), Fault> {
        let open = self.open.as_ref().ok_or_else(closed)?;
        let read = || -> Result<(Vec<Result<Object, Fault>>, u64), redb::Error> {
            let transaction = open.begin_read()?;
            let mut objects = Vec::new();
            match transaction.open_table(OBJECTS) {
                Ok(table) => {
                    for row in table.iter()? {
                        let (key, json) = row?;
                        objects.push(decode(key.value(), json.value()));
                    }
                }
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
            Ok((objects, counter(open, RESERVED)?))
        };
        let (objects, reserved) = read().map_err(|error| fault(&error))?;
        Ok((objects.into_iter().collect::<Result<_, _>>()?, reserved))
    }

    /// Writes and removes (`None`), all of it or nothing, durable when it returns.
    pub(super) fn write(&mut self, changes: &[(Key, Option<Bytes>)], reserved: Option<u64>) -> Result<(), Fault> {
        let number = self.writes + 1;
        let Some(open) = &self.open else { return Err(closed()) };
        match attempt(open, changes, reserved, number) {
            Ok(()) => {
                self.writes = number;
                Ok(())
            }
            Err(error) => {
                let first = fault(&error);
                tracing::warn!(%error, "writing the store failed, opening it again");
                match self.settle() {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(first),
                    Err(Fault::Full) => Err(Fault::UnknownFull),
                    Err(_) => Err(Fault::Unknown(error.to_string())),
                }
            }
        }
    }

    /// Opens the file again after a failed write and tells whether that write is there.
    pub(super) fn settle(&mut self) -> Result<bool, Fault> {
        let found = self.reopen()?;
        let there = found == self.writes + 1;
        if !there && found != self.writes {
            self.open = None;
            return Err(Fault::Damaged(format!("the file holds {found} writes, {} are known", self.writes)));
        }
        self.writes = found;
        Ok(there)
    }

    /// Whether it is time to look at the file's size: now and then, and when space is short as soon
    /// as something was written.
    pub(super) fn compact_is_due(&self, short: bool) -> bool {
        let since = self.writes - self.looked_at;
        since >= COMPACT_EVERY || (short && since > 0)
    }

    /// Gives space back when most of a large file is free, or when space is short and the file has
    /// some. A failure is harmless: the file stays large.
    pub(super) fn compact(&mut self, short: bool) {
        self.looked_at = self.writes;
        let least = if short { 0 } else { COMPACT_BYTES };
        let bytes = self.file.bytes();
        let Some(open) = &mut self.open else { return };
        let worth = |open: &redb::Database| -> Result<bool, redb::Error> {
            let transaction = open.begin_write()?;
            let stats = transaction.stats()?;
            let used = stats.allocated_pages() * stats.page_size() as u64;
            transaction.abort()?;
            Ok(bytes > least && bytes / 2 > used)
        };
        match worth(open) {
            Ok(true) => match open.compact() {
                Ok(_) => tracing::info!(before = bytes, after = self.file.bytes(), "compacted the store"),
                Err(error) => tracing::warn!(%error, "compacting the store failed"),
            },
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "reading the store's statistics failed"),
        }
    }
}

fn attempt(open: &redb::Database, changes: &[(Key, Option<Bytes>)], reserved: Option<u64>, number: u64) -> Result<(), redb::Error> {
    let mut transaction = open.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, json) in changes {
            match json {
                Some(json) => drop(objects.insert(encode(key).as_str(), json.as_ref())?),
                None => drop(objects.remove(encode(key).as_str())?),
            }
        }
        let mut counters = transaction.open_table(COUNTERS)?;
        counters.insert(WRITES, number)?;
        if let Some(reserved) = reserved {
            counters.insert(RESERVED, reserved)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn counter(open: &redb::Database, name: &str) -> Result<u64, redb::Error> {
    match open.begin_read()?.open_table(COUNTERS) {
        Ok(table) => Ok(table.get(name)?.map_or(0, |found| found.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// `Pod/web/a`, and `widgets.example.com/web/a` for custom kinds: their names may be anybody's, and
/// none in the table has a dot.
fn encode(key: &Key) -> String {
    match key.kind {
        Kind::Custom(kind) => format!("{}.{}/{}/{}", kind.names().plural, kind.names().group, key.namespace, key.name),
        kind => format!("{kind}/{}/{}", key.namespace, key.name),
    }
}

fn decode(key: &str, json: &[u8]) -> Result<Object, Fault> {
    let word = key.split('/').next().unwrap_or_default();
    let object = match word.split_once('.') {
        Some((plural, group)) => custom(plural, group, key, json),
        None => match Kind::all().iter().find(|row| row.name == word) {
            Some(row) => Object::from_json(row.kind, json).ok(),
            None if is_kind(word) => return Err(Fault::Newer(key.to_owned())),
            None => None,
        },
    };
    object.filter(|object| encode(object.key()) == key).ok_or_else(|| Fault::Damaged(format!("the object {key}")))
}

/// Whether the word could be a kind of some version.
fn is_kind(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// An object of a custom kind says its kind itself: the definition may be read after it.
fn custom(plural: &str, group: &str, key: &str, json: &[u8]) -> Option<Object> {
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let text = |field: &str| value[field].as_str();
    let (_, version) = text("apiVersion")?.split_once('/').filter(|(of, _)| *of == group)?;
    let names = Names {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text("kind")?.to_owned(),
        plural: plural.to_owned(),
        namespaced: !key.contains("//"),
        ..Names::default()
    };
    let kind = CustomKind::intern(&names)?;
    Object::from_value(Kind::Custom(kind), value).ok()
}

fn closed() -> Fault {
    Fault::Io("the database could not be opened again".to_owned())
}

fn fault(error: &redb::Error) -> Fault {
    match error {
        redb::Error::Io(error) if is_full(error) => Fault::Full,
        redb::Error::Corrupted(what) => Fault::Damaged(what.clone()),
        other => Fault::Io(other.to_string()),
    }
}

pub(super) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge)
}
