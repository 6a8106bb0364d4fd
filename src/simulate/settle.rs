//! What becomes of a state when only time or a process exit can change it any more. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kubelet::Kubelet;
use super::world::World;
use crate::admit::Refused;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Note, Wait};
use crate::store::snapshot::Snapshot;

/// Plans after which a simulation counts as stuck: a base and a share for each object.
const PASSES: usize = 100_000;
const PASSES_PER_OBJECT: usize = 200;
/// Objects that a simulation makes before it gives up: what it says must not cost all memory.
pub const MADE: usize = 20_000;

/// The end of a simulation.
#[derive(Debug, Clone)]
pub struct Settled {
    pub state: Snapshot,
    /// What is still waited for: time, a process's exit, room on a node.
    pub waits: Vec<Wait>,
    /// What controllers wanted to write and admission refused.
    pub refused: Vec<(Key, Refused)>,
    pub notes: Vec<Note>,
    /// Pods that another node could have got: one as good, or one where room is made at another time.
    pub tied: BTreeSet<Key>,
    /// All placed pods for which another node exists at all.
    pub movable: BTreeSet<Key>,
    /// A pod on a node has ended or is ending.
    pub ended: bool,
    /// When somebody would look again although nothing changed.
    pub again_at: Option<Timestamp>,
    /// Plans made.
    pub passes: usize,
    /// The controllers did not come to rest: a fault of theirs, and the state is not the end.
    pub stuck: bool,
    /// More than [`MADE`] objects came to be: the state is not the end.
    pub too_many: bool,
}

impl Settled {
    /// Pods that are there and were not before.
    pub fn starts<'a>(&'a self, before: &'a Snapshot) -> impl Iterator<Item = &'a Object> {
        self.state.list(Kind::Pod).filter(|pod| before.get(pod.key()).is_none_or(|old| old.uid() != pod.uid()))
    }

    /// Pods that were there and are gone, or were told to go.
    pub fn stops<'a>(&'a self, before: &'a Snapshot) -> impl Iterator<Item = &'a Object> {
        before.list(Kind::Pod).filter(|pod| {
            let now = self.state.get(pod.key()).filter(|now| now.uid() == pod.uid());
            !pod.is_deleting() && now.is_none_or(Object::is_deleting)
        })
    }
}

/// Runs the controllers on a copy of the state, with ideal nodes and a clock that stands still,
/// until nothing is left to do.
pub fn settle(state: Snapshot, controllers: &[Arc<dyn Controller>], now: Timestamp) -> Settled {
    let most = state.len().saturating_add(MADE);
    settle_within(state, controllers, now, most)
}

/// The same with at most so many objects in the end.
pub fn settle_within(state: Snapshot, controllers: &[Arc<dyn Controller>], now: Timestamp, most: usize) -> Settled {
    let mut ordered = controllers.to_vec();
    ordered.push(Arc::new(Kubelet));
    ordered.sort_by_key(|controller| turn(controller.name()));
    let mut world = World::new(state, &ordered, now);
    let too_many = !rest_within(&mut world, most) && world.state.len() > most;
    let stuck = !too_many && !world.busy().is_empty();
    Settled {
        waits: world.waits(),
        refused: world.refused(),
        again_at: world.next_timer(),
        state: world.state,
        notes: world.notes,
        tied: world.tied,
        movable: world.movable,
        ended: world.ended,
        passes: world.passes,
        stuck,
        too_many,
    }
}

/// When a controller acts: only while those before it rest. The scheduler and the nodes come after who makes pods, so that pods
/// made together are placed together; last comes what nobody here looks at, which would be written anew at each step.
fn turn(name: &str) -> u8 {
    match name {
        "scheduler" => 1,
        "kubelet" => 2,
        "endpoints" => 3,
        _ => 0,
    }
}

/// Runs the first busy controller's keys until none is busy. False when the bound was reached.
pub fn rest(world: &mut World) -> bool {
    rest_within(world, usize::MAX)
}

fn rest_within(world: &mut World, most: usize) -> bool {
    let start = world.passes;
    while let Some(at) = world.busy().first().copied() {
        while let Some(key) = world.pop(at) {
            world.step(at, &key);
            if world.passes - start > PASSES + PASSES_PER_OBJECT * world.state.len() || world.state.len() > most {
                return false;
            }
        }
    }
    true
}
