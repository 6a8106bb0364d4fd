//! The durable store: a write-ahead database under the same snapshot.
//!
//! - `writer`: the one thread that applies transactions, writes a group of them with one fsync and
//!   only then publishes them and tells their writers
//! - `database`: the objects' JSON by key, and the two counters
//! - `space`: the reserve that keeps deletes possible on a full disk
//!
//! Invariants: what was acknowledged is on disk, whole; a reader never sees what is not on disk
//! (volatile writes excepted: they never are); a revision handed out once is never handed out
//! again, because they are reserved on disk in blocks and a start begins at the next block.

mod database;
mod space;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::sync::oneshot;

use self::database::{DataFile, Database, Fault};
use self::space::Reserve;
use self::writer::{Request, Writer};

use super::watch::{Bounds, Extent, History};
use super::{CommitError, Committed, Snapshot, Stamp, Store, TooOld, Transaction, Watch};
use crate::clock::Clock;

pub use self::space::{FreeSpace, HostSpace};

/// The format this program writes. Raise it with any change an older program would misread, a kind that it does not
/// know among them. 1: the first; 2: RuntimeClass and the kinds of rights; 3: webhooks; 4: persistent volumes;
/// 5: what kubelets and drivers say of volumes.
pub const FORMAT: u32 = 5;
/// Revisions reserved at a time: a write of its own once in so many, heartbeats included.
const BLOCK: u64 = 1_000_000;

/// How the store behaves when space is short.
#[derive(Clone)]
pub struct Options {
    /// Size of the reserve file.
    pub reserve_bytes: u64,
    /// Free space below which only deletes and status are taken.
    pub low_bytes: u64,
    pub space: Arc<dyn FreeSpace>,
}

impl Default for Options {
    fn default() -> Self {
        Self { reserve_bytes: 16 << 20, low_bytes: 64 << 20, space: Arc::new(HostSpace) }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open the store in {0}: another podbay server has it open")]
    Locked(PathBuf),
    #[error("open the store in {path}: it was written by a newer podbay (format {found}; this one knows up to {FORMAT})")]
    Newer { path: PathBuf, found: u32 },
    #[error("open the store in {path}: it was written by a newer podbay (this one does not know the object {key})")]
    NewerKind { path: PathBuf, key: String },
    #[error("open the store in {path}: {what} is damaged")]
    Damaged { path: PathBuf, what: String },
    #[error("open the store in {path}: {attempt}: {source}")]
    Io { path: PathBuf, attempt: &'static str, source: io::Error },
    #[error("open the store in {path}: {message}")]
    Database { path: PathBuf, message: String },
    #[error("open the store in {0}: the disk is full")]
    Full(PathBuf),
}

/// A store in a directory of its own.
pub struct DiskStore {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    file: PathBuf,
}

/// What the writer publishes.
struct Shared {
    current: ArcSwap<Snapshot>,
    history: Arc<History>,
    degraded: ArcSwapOption<String>,
}

impl DiskStore {
    /// Opens the store in the directory `path`, creating it where there is none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = path.join("objects.redb");
        Self::open_file(path, Box::new(file.clone()), file, options, clock)
    }

    fn open_file(path: &Path, data: Box<dyn DataFile>, file: PathBuf, options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let io = |attempt| io_error(path, attempt);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create the directory"))?;
        let lock = lock(path)?;
        check_format(path)?;
        let mut reserve = Reserve::new(path, &options);
        let (database, objects, reserved) = open_database(path, data, &mut reserve)?;
        File::open(path).and_then(|directory| directory.sync_all()).map_err(io("sync the directory"))?;
        let mut snapshot = Snapshot::default();
        objects.into_iter().for_each(|object| snapshot.insert(object));
        let snapshot = snapshot.at_revision(reserved);
        let shared = Arc::new(Shared {
            history: History::new(snapshot.revision(), Bounds::default()),
            current: ArcSwap::from_pointee(snapshot),
            degraded: ArcSwapOption::empty(),
        });
        let (requests, inbox) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&shared), database, reserve, Arc::clone(&clock), reserved + BLOCK, lock);
        let writer =
            std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&inbox)).map_err(io("start the writer"))?;
        Ok(Self { shared, requests: Some(requests), writer: Some(writer), clock, file })
    }
}

/// A full disk is a case of its own: it passes.
fn io_error(path: &Path, attempt: &'static str) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match database::is_full(&source) {
        true => OpenError::Full(path.clone()),
        false => OpenError::Io { path: path.clone(), attempt, source },
    }
}

/// Held for as long as the file is open.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = io_error(path, "lock it");
    let file = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(&io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// The format is a file of its own, so that it can be read whatever becomes of the database.
fn check_format(path: &Path) -> Result<(), OpenError> {
    match fs::read_to_string(path.join("format")) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
            Ok(FORMAT) => Ok(()),
            Ok(_) => match write_format(path) {
                // It passes, and until then there is nothing new in it.
                Err(OpenError::Full(_)) => Ok(()),
                other => other,
            },
            Err(_) => Err(OpenError::Damaged { path: path.to_owned(), what: "the file `format`".to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(path),
        Err(error) => Err(io_error(path, "read its format")(error)),
    }
}

fn write_format(path: &Path) -> Result<(), OpenError> {
    let io = io_error(path, "write its format");
    let draft = path.join("format.new");
    fs::write(&draft, format!("{FORMAT}\n")).map_err(&io)?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(&io)?;
    fs::rename(&draft, path.join("format")).map_err(&io)
}

/// Opens and loads, and reserves the next block of revisions. On a full disk the reserve gives way.
fn open_database(
    path: &Path,
    data: Box<dyn DataFile>,
    reserve: &mut Reserve,
) -> Result<(Database, Vec<crate::model::Object>, u64), OpenError> {
    let failed = |fault: Fault| match fault {
        Fault::Full | Fault::UnknownFull => OpenError::Full(path.to_owned()),
        Fault::Damaged(what) => OpenError::Damaged { path: path.to_owned(), what },
        Fault::Newer(key) => OpenError::NewerKind { path: path.to_owned(), key },
        Fault::Io(message) | Fault::Unknown(message) => OpenError::Database { path: path.to_owned(), message },
    };
    let mut database = match Database::open(data) {
        Err((data, Fault::Full)) => {
            reserve.release();
            Database::open(data)
        }
        other => other,
    }
    .map_err(|(_, fault)| failed(fault))?;
    let (objects, reserved) = database.load().map_err(failed)?;
    database.compact(false);
    let mut outcome = database.write(&[], Some(reserved + BLOCK));
    if matches!(outcome, Err(Fault::Full | Fault::UnknownFull)) {
        reserve.release();
        outcome = database.write(&[], Some(reserved + BLOCK));
    }
    outcome.map_err(failed)?;
    reserve.take();
    Ok((database, objects, reserved))
}

#[async_trait]
impl Store for DiskStore {
    fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.shared.current.load())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        if transaction.dry_run {
            let before = self.snapshot();
            let mut uid = || uuid::Uuid::new_v4().to_string();
            let mut stamp = Stamp { now: self.clock.now(), uid: &mut uid };
            let applied = before.apply(&transaction, before.revision() + 1, &mut stamp)?;
            return Ok(Committed { revision: applied.snapshot.revision(), results: applied.results, snapshot: applied.snapshot });
        }
        let gone = || CommitError::Io("the store's writer has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.requests.as_ref().ok_or_else(gone)?.send(Request { transaction, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn watch(&self, from: u64) -> Result<Watch, TooOld> {
        self.shared.history.watch(from)
    }

    fn size_bytes(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.blocks() * 512)
    }

    fn history(&self) -> Extent {
        self.shared.history.extent()
    }

    fn degraded(&self) -> Option<String> {
        self.shared.degraded.load_full().map(|reason| reason.as_ref().clone())
    }
}

/// Waits for what was asked for, and closes the database.
impl Drop for DiskStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}
