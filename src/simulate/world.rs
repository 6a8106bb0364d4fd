//! A copy of the cluster's state with the controllers' work queues: the simulator's driver. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::admit::Refused;
use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Controller, Note, Plan, Wait, woken};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{CommitError, Stamp, Transaction};

/// State, queues and what was said so far.
pub struct World {
    pub state: Snapshot,
    pub now: Timestamp,
    works: Vec<Work>,
    pub notes: Vec<Note>,
    /// Pods that could have got another node: one as good, or one on which room was made earlier or later.
    pub tied: BTreeSet<Key>,
    /// All placed pods for which another node exists at all.
    pub movable: BTreeSet<Key>,
    /// A pod on a node has ended or is ending. When it makes room is the node's to decide.
    pub ended: bool,
    uids: u64,
    /// Plans made.
    pub passes: usize,
}

/// One controller, its keys, and what it last said of them.
struct Work {
    controller: Arc<dyn Controller>,
    queue: BTreeSet<Key>,
    waits: BTreeMap<Key, Vec<Wait>>,
    timers: BTreeMap<Key, Timestamp>,
    refused: BTreeMap<Key, Refused>,
}

impl Work {
    fn new(controller: &Arc<dyn Controller>) -> Self {
        Self {
            controller: Arc::clone(controller),
            queue: BTreeSet::new(),
            waits: BTreeMap::new(),
            timers: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }
}

impl World {
    /// A world in which every object has just been seen.
    pub fn new(state: Snapshot, controllers: &[Arc<dyn Controller>], now: Timestamp) -> Self {
        let uids = state.iter().filter_map(|object| object.uid().strip_prefix("sim-")?.parse().ok()).max().unwrap_or(0);
        let ended = state.list(Kind::Pod).any(|pod| pod.is_deleting() && is_placed(pod));
        let mut world = Self {
            state,
            now,
            works: controllers.iter().map(Work::new).collect(),
            notes: Vec::new(),
            tied: BTreeSet::new(),
            movable: BTreeSet::new(),
            ended,
            uids,
            passes: 0,
        };
        world.look_at_everything();
        world
    }

    /// Queues the keys of every object.
    pub fn look_at_everything(&mut self) {
        // Object by object: one that has just been read is at hand for all.
        for object in self.state.iter() {
            for Work { controller, queue, .. } in &mut self.works {
                queue.extend(controller.keys(&self.state, object));
            }
        }
    }

    pub fn controllers(&self) -> usize {
        self.works.len()
    }

    pub fn controller(&self, at: usize) -> &Arc<dyn Controller> {
        &self.works[at].controller
    }

    /// The controllers that have something to look at.
    pub fn busy(&self) -> Vec<usize> {
        (0..self.works.len()).filter(|at| !self.works[*at].queue.is_empty()).collect()
    }

    /// Takes a controller's first key.
    pub fn pop(&mut self, at: usize) -> Option<Key> {
        self.works[at].queue.pop_first()
    }

    /// Takes a controller's key number `index`.
    pub fn pop_nth(&mut self, at: usize, index: usize) -> Option<Key> {
        let queue = &mut self.works[at].queue;
        let key = queue.iter().nth(index % queue.len().max(1)).cloned()?;
        queue.take(&key)
    }

    pub fn push(&mut self, at: usize, key: Key) {
        self.works[at].queue.insert(key);
    }

    /// Plans for one key on a state that may be an older one.
    pub fn plan(&mut self, at: usize, key: &Key, state: &Snapshot) -> Plan {
        self.passes += 1;
        let work = &mut self.works[at];
        let plan = work.controller.plan(state, key, self.now);
        work.refused.remove(key);
        match plan.again_at {
            Some(time) => work.timers.insert(key.clone(), time),
            None => work.timers.remove(key),
        };
        if plan.waits.is_empty() {
            work.waits.remove(key);
        } else {
            work.waits.insert(key.clone(), plan.waits.clone());
        }
        plan
    }

    /// Plans for one key and carries it out. True when the state changed.
    pub fn step(&mut self, at: usize, key: &Key) -> bool {
        let state = self.state.clone();
        let plan = self.plan(at, key, &state);
        // What is held twice is copied before it is changed.
        drop(state);
        let (rests, was_queued) = (plan.rests, self.works[at].queue.contains(key));
        let changed = self.carry_out(at, key, plan);
        if changed && rests && !was_queued {
            self.works[at].queue.remove(key);
            debug_assert!(self.does_rest(at, key), "{} does not rest after {key}", self.works[at].controller.name());
        }
        changed
    }

    /// Whether another look at a key changes nothing, as its last plan has said.
    fn does_rest(&self, at: usize, key: &Key) -> bool {
        let Work { controller, waits, timers, .. } = &self.works[at];
        let plan = controller.plan(&self.state, key, self.now);
        let says_the_same = plan.waits == waits.get(key).cloned().unwrap_or_default() && plan.again_at.as_ref() == timers.get(key);
        plan.is_empty() && plan.notes.is_empty() && says_the_same
    }

    /// Commits a plan; a conflict queues the key again.
    pub fn carry_out(&mut self, at: usize, key: &Key, mut plan: Plan) -> bool {
        let changed = if plan.ops.is_empty() {
            Ok(false)
        } else {
            let writer = format!("controller:{}", self.works[at].controller.name());
            self.commit(plan.take_transaction(&writer))
        };
        match changed {
            Ok(changed) => {
                self.notes.extend(plan.notes);
                self.tied.extend(plan.tied);
                if self.ended {
                    self.tied.extend(plan.movable.iter().cloned());
                }
                self.movable.extend(plan.movable);
                changed
            }
            Err(CommitError::Refused(refused)) => {
                self.works[at].refused.insert(key.clone(), refused);
                false
            }
            Err(_) => {
                self.push(at, key.clone());
                false
            }
        }
    }

    /// Applies a transaction and queues what it concerns. True when the state changed.
    ///
    /// # Errors
    /// As [`Snapshot::apply`]; nothing is changed then.
    pub fn commit(&mut self, transaction: Transaction) -> Result<bool, CommitError> {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("sim-{uids}")
        };
        let mut stamp = Stamp { now: self.now, uid: &mut uid };
        let (changes, _) = self.state.advance(transaction, self.state.revision() + 1, &mut stamp)?;
        for change in &changes {
            let going = change.after.as_ref().is_none_or(Object::is_deleting);
            self.ended |= going && change.before.as_ref().is_some_and(is_placed);
            for Work { controller, queue, .. } in &mut self.works {
                queue.extend(woken(controller.as_ref(), &self.state, change));
            }
        }
        Ok(!changes.is_empty())
    }

    /// What the last plans wait for, by subject.
    pub fn waits(&self) -> Vec<Wait> {
        let mut waits: Vec<Wait> = self.works.iter().flat_map(|work| work.waits.values().flatten().cloned()).collect();
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    /// What admission refused and nothing has changed since.
    pub fn refused(&self) -> Vec<(Key, Refused)> {
        let refused = self.works.iter().flat_map(|work| &work.refused);
        refused.map(|(key, refused)| (key.clone(), refused.clone())).collect()
    }

    /// The earliest time somebody wants to look again.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.works.iter().filter_map(|work| work.timers.values().min()).min().copied()
    }

    /// Moves the clock and queues what is due.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        for work in &mut self.works {
            let due = work.timers.extract_if(.., |_, at| *at <= self.now);
            work.queue.extend(due.map(|(key, _)| key));
        }
    }
}

fn is_placed(object: &Object) -> bool {
    object.get::<Pod>().and_then(pod::node_name).is_some()
}
