//! What a planner decides: a value that prints, diffs, applies and can be thrown away. PURE.

use std::fmt;

use crate::model::event::{Occurrence, reference};
use crate::model::{Key, Object, Timestamp};
use crate::store::snapshot::{Change, Snapshot};
use crate::store::transaction::{Precondition, Transaction, Write};

/// One change of one object, conditional on what was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Create(Object),
    Update { before: Object, after: Object },
    UpdateStatus { before: Object, after: Object },
    Delete { before: Object, grace_seconds: Option<i64> },
}

impl Op {
    pub fn key(&self) -> &Key {
        match self {
            Op::Create(object) => object.key(),
            Op::Update { before, .. } | Op::UpdateStatus { before, .. } | Op::Delete { before, .. } => before.key(),
        }
    }

    /// The write that carries it out, refused when the object is no longer the one seen.
    pub fn write(&self) -> Write {
        self.clone().into_write()
    }

    /// The same, without a copy of the object.
    pub fn into_write(self) -> Write {
        match self {
            Op::Create(object) => Write::Create(object),
            Op::Update { before, after } => Write::Update(after, Precondition::seen(&before)),
            Op::UpdateStatus { before, after } => Write::UpdateStatus(after, Precondition::seen(&before)),
            Op::Delete { before, grace_seconds } => {
                Write::Delete { key: before.key().clone(), precondition: Precondition::seen(&before), grace_seconds }
            }
        }
    }
}

/// `+ Pod web/a`, `~ Deployment web/a`, `- Pod web/a`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Create(object) => write!(f, "+ {}", object.key()),
            Op::Update { before, .. } => write!(f, "~ {}", before.key()),
            Op::UpdateStatus { before, .. } => write!(f, "~ {} status", before.key()),
            Op::Delete { before, .. } => write!(f, "- {}", before.key()),
        }
    }
}

/// Why something is not (yet) so, for a person and for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// CamelCase, as in conditions and events: `Unschedulable`, `ImagePullBackOff`.
    pub code: &'static str,
    pub message: String,
}

impl Reason {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// What a plan waits for before it goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    pub subject: Key,
    pub reason: Reason,
}

/// Something to tell people; becomes a Kubernetes Event about `subject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub subject: Key,
    pub warning: bool,
    pub reason: Reason,
}

/// A decision. The same input gives the same plan; planning again after it was applied gives an
/// empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub waits: Vec<Wait>,
    pub notes: Vec<Note>,
    /// Pods whose node another equally good one could have been: the tie was broken by name.
    pub tied: Vec<Key>,
    /// Pods whose node could have been another one, had room been made there at another time.
    pub movable: Vec<Key>,
    /// Look again at this time even if nothing changes.
    pub again_at: Option<Timestamp>,
    /// Once it is carried out, the next plan for this key is empty and waits for the same: nobody has to make it to know.
    pub rests: bool,
}

impl Plan {
    /// Nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn wait(&mut self, subject: &Key, reason: Reason) {
        self.waits.push(Wait { subject: subject.clone(), reason });
    }

    pub fn note(&mut self, subject: &Key, warning: bool, reason: Reason) {
        self.notes.push(Note { subject: subject.clone(), warning, reason });
    }

    /// Waits, and notes why where no event of this writer says so yet.
    pub fn tell(&mut self, state: &Snapshot, writer: &str, subject: &Key, warning: bool, reason: Reason) {
        let about = reference(subject, state.get(subject).map(Object::uid));
        let said = Occurrence::new(about, warning, reason.code, &reason.message, writer).key();
        if state.get(&said).is_none() {
            self.note(subject, warning, reason.clone());
        }
        self.wait(subject, reason);
    }

    /// Keeps the earlier of two times to look again.
    pub fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// What every plan must satisfy, whoever made it; empty when it does. `state` is the one it was
    /// planned from.
    pub fn violations(&self, state: &Snapshot) -> Vec<String> {
        let mut found = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        for op in &self.ops {
            if !keys.insert(op.key()) {
                found.push(format!("{op}: a second op on one object, whose precondition cannot hold"));
            }
            match op {
                Op::Create(object) if state.get(object.key()).is_some() => found.push(format!("{op}: exists already")),
                Op::Create(object) if object.revision() != 0 => found.push(format!("{op}: has a revision before it is stored")),
                Op::Create(_) => {}
                Op::Update { before, after } | Op::UpdateStatus { before, after } => {
                    if before == after {
                        found.push(format!("{op}: changes nothing"));
                    }
                    if before.key() != after.key() {
                        found.push(format!("{op}: becomes {}", after.key()));
                    }
                }
                Op::Delete { before, .. } if before.key().name.is_empty() => found.push(format!("{op}: names nothing")),
                Op::Delete { .. } => {}
            }
            if let Op::Update { before, .. } | Op::UpdateStatus { before, .. } | Op::Delete { before, .. } = op
                && state.get(before.key()).is_none_or(|stored| stored.revision() != before.revision())
            {
                found.push(format!("{op}: is conditional on something that was not seen"));
            }
        }
        for wait in &self.waits {
            if wait.reason.message.is_empty() {
                found.push(format!("{}: waits without a reason", wait.subject));
            }
        }
        found
    }

    /// All ops as one transaction.
    pub fn transaction(&self, writer: &str) -> Transaction {
        Transaction { writes: self.ops.iter().map(Op::write).collect(), ..Transaction::new(writer) }
    }

    /// The same of the ops themselves: none is left.
    pub fn take_transaction(&mut self, writer: &str) -> Transaction {
        Transaction { writes: std::mem::take(&mut self.ops).into_iter().map(Op::into_write).collect(), ..Transaction::new(writer) }
    }
}

/// What a changed object is to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heeds {
    /// No plan is another one for it.
    Nothing,
    /// The keys of what it was are among those of what it is, or their plans are no other ones.
    After,
    Both,
}

/// The keys that a controller has to look at after a change (`state` is the state afterwards).
pub fn woken(controller: &dyn Controller, state: &Snapshot, change: &Change) -> Vec<Key> {
    let heeds = change.both().map_or(Heeds::Both, |(before, after)| controller.heeds(state, before, after));
    let keys = |object: &Option<Object>| object.as_ref().map(|object| controller.keys(state, object)).unwrap_or_default();
    match heeds {
        Heeds::Nothing => Vec::new(),
        Heeds::After => keys(&change.after),
        Heeds::Both => {
            let mut all = keys(&change.before);
            all.extend(keys(&change.after));
            all
        }
    }
}

/// A reconciler that decides from the store's state alone: every controller and the scheduler.
/// `driver` runs it against the store, `simulate` against a copy of a snapshot.
pub trait Controller: Send + Sync {
    /// The writer's name: `deployment`, `scheduler`.
    fn name(&self) -> &'static str;

    /// The keys to look at after this object changed (`state` is the state afterwards). `object` is
    /// what it is now, or last was.
    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key>;

    /// What it is to this controller that an object was changed (`state` is the state afterwards). All are asked about every
    /// change, and most say nothing new to most of them.
    fn heeds(&self, _state: &Snapshot, _before: &Object, _after: &Object) -> Heeds {
        Heeds::Both
    }

    /// Decides for one key. A key whose object is gone is a valid question.
    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan;

    /// What the key's object is to say of a refusal of what its plan creates, which only a commit found out (admission
    /// webhooks are asked then). Empty where it says so already. `plan` knows nothing of it: it would try again.
    fn refused(&self, _state: &Snapshot, _key: &Key, _why: &str, _now: Timestamp) -> Plan {
        Plan::default()
    }

    /// Whether its `now`, and so the times in its plans, are [`crate::clock::Clock::steady`]'s: for a controller that
    /// must not take a clock that was set for time that has passed.
    fn is_steady(&self) -> bool {
        false
    }
}
