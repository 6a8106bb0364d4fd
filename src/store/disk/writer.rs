//! The one thread that writes: takes what has come in, applies it, makes it durable with one fsync,
//! publishes it, tells the writers.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::database::{Database, Fault};
use super::space::Reserve;
use super::{BLOCK, Shared};
use crate::clock::Clock;
use crate::model::Key;
use crate::store::{Applied, Batch, CommitError, Committed, Snapshot, Stamp, Transaction};

/// Transactions in one group: bounds how long the first of them waits.
const GROUP: usize = 512;
/// Writes in one group after which no more transactions are taken in.
const GROUP_WRITES: usize = 20_000;
/// How often a store that is short of space looks for more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Answer = Result<Committed, CommitError>;

/// A transaction, and who waits for it.
pub(super) struct Request {
    pub(super) transaction: Transaction,
    pub(super) reply: oneshot::Sender<Answer>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    database: Database,
    reserve: Reserve,
    clock: Arc<dyn Clock>,
    /// The last revision that may be handed out before more are reserved on disk.
    reserved: u64,
    /// Why only deletes and status are taken.
    short: Option<String>,
    /// A group whose write failed in a way that leaves open whether it is on disk.
    limbo: Option<Group>,
    _lock: File,
}

/// Transactions applied on top of each other, not yet durable.
#[derive(Default)]
struct Group {
    state: Snapshot,
    answers: Vec<Answer>,
    /// The state after each batch.
    batches: Vec<(Snapshot, Batch)>,
    /// What goes to disk: the newest JSON of each key, `None` for a removal.
    writes: BTreeMap<Key, Option<Bytes>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, database: Database, reserve: Reserve, clock: Arc<dyn Clock>, reserved: u64, lock: File) -> Self {
        let mut writer = Self { shared, database, reserve, clock, reserved, short: None, limbo: None, _lock: lock };
        writer.look_at_space();
        writer
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        loop {
            let next = match self.short {
                // Nothing has to happen for space to come back: look by oneself.
                Some(_) => inbox.recv_timeout(LOOK_AGAIN),
                None => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(first) => {
                    let group = gather(first, inbox);
                    self.serve(group);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // What was deleted is free in the file; only a smaller file gives it to the disk.
                    if self.database.compact_is_due(true) {
                        self.database.compact(true);
                    }
                    self.look_at_space();
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn serve(&mut self, requests: Vec<Request>) {
        let answers = match self.leave_limbo() {
            Ok(()) => self.commit(&requests),
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        };
        for (request, answer) in requests.into_iter().zip(answers) {
            // A writer that has gone away wants no answer.
            let _ = request.reply.send(answer);
        }
    }

    fn commit(&mut self, requests: &[Request]) -> Vec<Answer> {
        if self.short.is_some() || requests.iter().any(|request| !request.transaction.volatile) {
            self.look_at_space();
        }
        let mut group = self.apply_all(requests);
        let mut outcome = self.make_durable(&group);
        if matches!(outcome, Err(Fault::UnknownFull)) {
            self.hit_the_end();
            outcome = match self.database.settle() {
                Ok(true) => Ok(()),
                Ok(false) => Err(Fault::Full),
                Err(_) => Err(Fault::UnknownFull),
            };
        }
        if matches!(outcome, Err(Fault::Full)) {
            // Once more, with what the reserve gives, for those that may still write.
            self.hit_the_end();
            group = self.apply_all(requests);
            outcome = self.make_durable(&group);
        }
        let error = match outcome {
            Ok(()) => {
                self.publish(&mut group);
                if self.short.is_none() && self.database.compact_is_due(false) {
                    self.database.compact(false);
                }
                return group.answers;
            }
            Err(Fault::Full) => CommitError::Full(self.hit_the_end()),
            Err(Fault::UnknownFull) => {
                self.limbo = Some(group);
                CommitError::Full(self.hit_the_end())
            }
            Err(Fault::Unknown(message)) => {
                self.limbo = Some(group);
                CommitError::Io(message)
            }
            Err(Fault::Io(message) | Fault::Damaged(message) | Fault::Newer(message)) => CommitError::Io(message),
        };
        requests.iter().map(|_| Err(error.clone())).collect()
    }

    /// No space where there seemed to be some: gives up the reserve, tells why.
    fn hit_the_end(&mut self) -> String {
        let reason = self.reserve.hit();
        self.set_short(reason.clone(), true);
        reason
    }

    /// Finds out what became of a group whose outcome was open.
    fn leave_limbo(&mut self) -> Result<(), CommitError> {
        let Some(mut group) = self.limbo.take() else { return Ok(()) };
        let error = match self.database.settle() {
            Ok(there) => {
                if there {
                    self.publish(&mut group);
                }
                return Ok(());
            }
            Err(Fault::Full | Fault::UnknownFull) => CommitError::Full(self.hit_the_end()),
            Err(Fault::Io(message) | Fault::Unknown(message) | Fault::Damaged(message) | Fault::Newer(message)) => CommitError::Io(message),
        };
        self.limbo = Some(group);
        Err(error)
    }

    fn apply_all(&self, requests: &[Request]) -> Group {
        let mut group = Group { state: Snapshot::clone(&self.shared.current.load()), ..Group::default() };
        for request in requests {
            let answer = self.apply(&request.transaction, &mut group);
            group.answers.push(answer);
        }
        group
    }

    fn apply(&self, transaction: &Transaction, group: &mut Group) -> Answer {
        if let Some(reason) = &self.short
            && !transaction.volatile
            && !transaction.frees_space(&group.state)
        {
            return Err(CommitError::Full(reason.clone()));
        }
        let before = &group.state;
        let mut uid = || uuid::Uuid::new_v4().to_string();
        let mut stamp = Stamp { now: self.clock.now(), uid: &mut uid };
        // A rule that panics on some content must not end the store for everyone.
        let applied = panic::catch_unwind(AssertUnwindSafe(|| before.apply(transaction, before.revision() + 1, &mut stamp)));
        let applied = applied.unwrap_or_else(|_| Err(CommitError::Io("admission panicked on this transaction".to_owned())))?;
        let Applied { snapshot, changes, results } = applied;
        let revision = snapshot.revision();
        for change in &changes {
            match &change.after {
                // A volatile write of a stored object leaves its stored form alone.
                Some(_) if transaction.volatile => {}
                Some(after) => drop(group.writes.insert(change.key().clone(), Some(after.json()))),
                None => drop(group.writes.insert(change.key().clone(), None)),
            }
        }
        if !changes.is_empty() {
            group.state = snapshot.clone();
            group.batches.push((snapshot.clone(), Batch { revision, changes }));
        }
        Ok(Committed { revision, results, snapshot })
    }

    fn make_durable(&mut self, group: &Group) -> Result<(), Fault> {
        let more = (group.state.revision() > self.reserved).then(|| group.state.revision() + BLOCK);
        if group.writes.is_empty() && more.is_none() {
            return Ok(());
        }
        let writes: Vec<_> = group.writes.iter().map(|(key, json)| (key.clone(), json.clone())).collect();
        self.database.write(&writes, more)?;
        self.reserved = more.unwrap_or(self.reserved);
        Ok(())
    }

    fn publish(&self, group: &mut Group) {
        for (snapshot, batch) in group.batches.drain(..) {
            self.shared.current.store(Arc::new(snapshot));
            self.shared.history.publish(batch);
        }
    }

    fn look_at_space(&mut self) {
        match self.reserve.look(self.short.is_some()) {
            Some(reason) => self.set_short(reason, true),
            None => self.set_short(String::new(), false),
        }
    }

    fn set_short(&mut self, reason: String, short: bool) {
        match (self.short.is_some(), short) {
            (false, true) => tracing::warn!(%reason, "the store is short of space"),
            (true, false) => tracing::info!("the store has space again"),
            _ => {}
        }
        self.short = short.then_some(reason);
        self.shared.degraded.store(self.short.clone().map(Arc::new));
    }
}

fn gather(first: Request, inbox: &mpsc::Receiver<Request>) -> Vec<Request> {
    let mut writes = first.transaction.writes.len();
    let mut group = vec![first];
    while group.len() < GROUP
        && writes < GROUP_WRITES
        && let Ok(next) = inbox.try_recv()
    {
        writes += next.transaction.writes.len();
        group.push(next);
    }
    group
}
