//! All pending pods at once, in order of priority, age and name.
//!
//! Pods that ask the same share one heap of the nodes that fit, best first. Placing a pod only
//! ever makes its node worse, so an entry is evaluated anew when it comes to the top, and no pod scans
//! all nodes. Pods that differ only in amounts share the list of nodes that suit them. Those with persistent volumes are
//! looked at one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};

use super::filter::{self, Asked};
use super::score;
use super::storage::{self, Asks, Chosen, Got, Storage};
use super::table::{Demand, Row, Table};
use crate::model::{Key, Object, Timestamp, pod};
use crate::plan::{Op, Plan, Reason};

/// Every node with the pods bound to it, and the pods that wait for a node.
pub struct Observed {
    pub nodes: Vec<(Object, Vec<Object>)>,
    pub pending: Vec<Object>,
    pub storage: Storage,
}

/// What became of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub pod: Key,
    /// The node, or why there is none.
    pub node: Result<String, Reason>,
    /// Another node was as good: the name decided.
    pub tied: bool,
    /// Another node could have had it at another time.
    pub movable: bool,
    /// It is kept a place on the node, and waits there for a volume that is made first.
    pub held: bool,
}

/// Waits for a node, and for this scheduler.
pub fn is_pending(pod: &Pod) -> bool {
    let ours = |spec: &PodSpec| other_scheduler(spec).is_none() && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty);
    awaits_node(pod) && pod.spec.as_ref().is_some_and(ours)
}

/// Waits for a node, and for whom it asks: somebody else's scheduler, who binds it by `pods/binding`.
pub fn awaited_scheduler(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().filter(|_| awaits_node(pod)).and_then(other_scheduler)
}

/// Says of a pod for whom it waits.
pub fn wait_for_other(plan: &mut Plan, pod: &Key, scheduler: &str) {
    let message = format!("it waits for the scheduler {scheduler:?}: what has no `schedulerName`, or `default-scheduler`, is placed here");
    plan.wait(pod, Reason::new("WaitForScheduler", message));
}

fn awaits_node(pod: &Pod) -> bool {
    pod::is_active(pod) && pod::node_name(pod).is_none()
}

fn other_scheduler(spec: &PodSpec) -> Option<&str> {
    spec.scheduler_name.as_deref().filter(|name| !matches!(*name, "" | "default-scheduler"))
}

/// The nodes that fit one demand, best first.
type Heap = BinaryHeap<Entry>;

/// A node's score for a demand when it was last looked at, and its row: the higher score is greater,
/// of equal ones the earlier name. One word, because a heap of thousands is compared all the time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    fn new(score: i32, at: usize) -> Self {
        // A table has far fewer than 2^32 rows.
        let earlier = u32::MAX - u32::try_from(at).unwrap_or(u32::MAX);
        Self((u64::from(score.cast_unsigned() ^ (1 << 31)) << 32) | u64::from(earlier))
    }

    fn score(self) -> i32 {
        ((self.0 >> 32) as u32 ^ (1 << 31)).cast_signed()
    }

    fn at(self) -> usize {
        (u32::MAX - self.0 as u32) as usize
    }
}

/// The rows that suit a selector and tolerations.
type Suitable = BTreeMap<(BTreeMap<String, String>, Vec<[String; 4]>), Vec<usize>>;

struct Class {
    demand: Demand,
    heap: Heap,
    movable: bool,
}

/// Chooses a node for each pending pod. The answers are in the order of `pending` after sorting.
pub fn place(seen: &Observed) -> Vec<Placed> {
    place_all(seen).0
}

/// The same, and the volumes that go with it.
fn place_all(seen: &Observed) -> (Vec<Placed>, Chosen<'_>) {
    let mut table = Table::new(&seen.nodes);
    let mut classes: Vec<Class> = Vec::new();
    let mut known: BTreeMap<Demand, usize> = BTreeMap::new();
    let mut suitable = Suitable::new();
    let mut placed = Vec::with_capacity(seen.pending.len());
    let mut refused: Vec<(usize, usize)> = Vec::new();
    let mut stored = Stored { storage: &seen.storage, chosen: seen.storage.start(), refused: Vec::new() };
    for object in in_order(&seen.pending) {
        let Some(spec) = object.get::<Pod>().and_then(|pod| pod.spec.as_ref()) else { continue };
        let demand = table.demand(spec);
        if storage::concerns(object) {
            placed.push(stored.place(&mut table, object, demand, placed.len()));
            continue;
        }
        let class = *known.entry(demand).or_insert_with_key(|demand| {
            let (heap, movable) = fill(&table, demand, &mut suitable);
            classes.push(Class { demand: demand.clone(), heap, movable });
            classes.len() - 1
        });
        let Class { demand, heap, movable } = &mut classes[class];
        let (node, tied) = match choose(&mut table.rows, demand, heap) {
            Some((at, tied)) => (Ok(table.rows[at].name.clone()), tied),
            None => {
                refused.push((placed.len(), class));
                (Err(Reason::new("Unschedulable", String::new())), false)
            }
        };
        placed.push(Placed { pod: object.key().clone(), node, tied, movable: *movable, held: false });
    }
    // The reasons speak of the state after all placements: what planning again would find.
    let mut messages: BTreeMap<usize, String> = BTreeMap::new();
    for (at, class) in refused {
        let message = messages.entry(class).or_insert_with(|| filter::refusal(&table, &Asked::new(&classes[class].demand), |_| None));
        placed[at].node = Err(Reason::new("Unschedulable", message.clone()));
    }
    for (at, message) in stored.reasons(&table) {
        placed[at].node = Err(Reason::new("Unschedulable", message));
    }
    (placed, stored.chosen)
}

/// Pods with persistent volumes.
struct Stored<'s> {
    storage: &'s Storage,
    chosen: Chosen<'s>,
    /// Places in the answer, and what each pod asks; or why no node would do.
    refused: Vec<(usize, Demand, Result<Asks<'s>, String>)>,
}

impl<'s> Stored<'s> {
    /// Looks at every node.
    fn place(&mut self, table: &mut Table, object: &Object, demand: Demand, at: usize) -> Placed {
        let nowhere = Err(Reason::new("Unschedulable", String::new()));
        let none = Placed { pod: object.key().clone(), node: nowhere, tied: false, movable: false, held: false };
        let asks = match self.storage.asks(object, &self.chosen) {
            Ok(asks) => asks,
            Err(why) => {
                self.refused.push((at, demand, Err(why)));
                return none;
            }
        };
        self.chosen.look_at(&asks, &table.rows);
        let asked = Asked::new(&demand);
        let could = |row: &Row| filter::suits(row, &asked) && self.storage.on(row, &asks, &self.chosen).is_ok();
        let suitable: Vec<(usize, &Row)> = table.rows.iter().enumerate().filter(|(_, row)| could(row)).collect();
        let movable = suitable.len() > 1;
        let with_room = suitable.into_iter().filter(|(_, row)| filter::has_room(row, &asked));
        let mut entries: Vec<Entry> = with_room.map(|(at, row)| Entry::new(score::score(row, &asked), at)).collect();
        entries.sort_unstable_by_key(|entry| Reverse(*entry));
        let Some(best) = entries.first() else {
            self.refused.push((at, demand, Ok(asks)));
            return Placed { movable, ..none };
        };
        let row = &mut table.rows[best.at()];
        // It was so a moment ago.
        let got = self.storage.on(row, &asks, &self.chosen).unwrap_or_default();
        let held = got.iter().any(|(_, got)| matches!(got, Got::Made));
        self.chosen.take(&asks, &row.name, got);
        row.take(&demand.amounts, demand.weighed, &demand.ports);
        let tied = entries.get(1).is_some_and(|next| next.score() == best.score());
        Placed { node: Ok(row.name.clone()), tied, movable, held, ..none }
    }

    /// Why each that was refused has no node.
    fn reasons(&mut self, table: &Table) -> Vec<(usize, String)> {
        let refused = std::mem::take(&mut self.refused);
        let why = |(at, demand, asks): (usize, Demand, Result<Asks<'s>, String>)| {
            let message = match asks {
                Err(why) => filter::refusal_everywhere(table, &why),
                Ok(asks) => filter::refusal(table, &Asked::new(&demand), |row| self.storage.on(row, &asks, &self.chosen).err()),
            };
            (at, message)
        };
        refused.into_iter().map(why).collect()
    }
}

/// Higher priority first, then the older, then by name.
fn in_order(pending: &[Object]) -> Vec<&Object> {
    let mut all: Vec<&Object> = pending.iter().collect();
    all.sort_by_cached_key(|object| {
        let priority = object.get::<Pod>().and_then(|pod| pod.spec.as_ref()?.priority).unwrap_or(0);
        let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(priority), created.is_none(), created, object.key().clone())
    });
    all
}

/// The nodes that fit, and whether more than one would do, had it the room.
fn fill(table: &Table, demand: &Demand, suitable: &mut Suitable) -> (Heap, bool) {
    let asked = Asked::new(demand);
    let rows = suitable.entry((demand.selector.clone(), demand.tolerations.clone())).or_insert_with(|| {
        let suits = table.rows.iter().enumerate().filter(|(_, row)| filter::suits(row, &asked));
        suits.map(|(at, _)| at).collect()
    });
    let fitting = rows.iter().map(|at| (*at, &table.rows[*at])).filter(|(_, row)| filter::has_room(row, &asked));
    (fitting.map(|(at, row)| Entry::new(score::score(row, &asked), at)).collect(), rows.len() > 1)
}

/// Takes the best node and counts the pod there.
fn choose(rows: &mut [Row], demand: &Demand, heap: &mut Heap) -> Option<(usize, bool)> {
    let asked = Asked::new(demand);
    refresh(rows, &asked, heap);
    let best = heap.peek().copied()?;
    let at = best.at();
    rows[at].take(&demand.amounts, demand.weighed, &demand.ports);
    refresh(rows, &asked, heap);
    let tied = match heap.peek().copied() {
        // Its share is too small to lower the score: the next one tells.
        Some(same) if same == best => {
            heap.pop();
            refresh(rows, &asked, heap);
            let tied = heap.peek().is_some_and(|next| next.score() == best.score());
            heap.push(same);
            tied
        }
        next => next.is_some_and(|next| next.score() == best.score()),
    };
    Some((at, tied))
}

/// Evaluates the top anew until it is true. A score falls by little: the entry stays near the top.
fn refresh(rows: &[Row], asked: &Asked<'_>, heap: &mut Heap) {
    while let Some(mut top) = heap.peek_mut() {
        let row = &rows[top.at()];
        if !filter::has_room(row, asked) {
            PeekMut::pop(top);
            continue;
        }
        let now = Entry::new(score::score(row, asked), top.at());
        if *top == now {
            return;
        }
        *top = now;
    }
}

/// Binds what was placed and says of the rest why it waits.
pub fn plan(seen: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let pending: BTreeMap<&Key, &Object> = seen.pending.iter().map(|object| (object.key(), object)).collect();
    let (placed, chosen) = place_all(seen);
    plan.ops.extend(seen.storage.ops(&chosen));
    for Placed { pod: key, node, tied, movable, held } in placed {
        let Some((object, pod)) = pending.get(&key).and_then(|object| object.get::<Pod>().map(|pod| (*object, pod))) else { continue };
        match node {
            Ok(node) => {
                if held {
                    wait_for_volume(&mut plan, (object, pod), &node, now);
                } else {
                    let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
                    plan.note(&key, false, Reason::new("Scheduled", message));
                    let mut after = pod.clone();
                    after.spec.get_or_insert_with(PodSpec::default).node_name = Some(node);
                    plan.ops.push(Op::Update { before: object.clone(), after: Object::new(after) });
                }
                if movable {
                    plan.movable.push(key.clone());
                }
                if tied {
                    plan.tied.push(key);
                }
            }
            Err(reason) => {
                if let Some(status) = unschedulable(pod, &reason, now) {
                    plan.note(&key, true, Reason::new("FailedScheduling", reason.message.clone()));
                    let after = Object::new(Pod { status: Some(status), ..pod.clone() });
                    plan.ops.push(Op::UpdateStatus { before: object.clone(), after });
                }
                plan.wait(&key, reason);
            }
        }
    }
    plan
}

/// As with kube-scheduler a pod gets its node after its volumes.
fn wait_for_volume(plan: &mut Plan, (object, pod): (&Object, &Pod), node: &str, now: Timestamp) {
    let reason = Reason::new("WaitForVolume", format!("node {node} was chosen, where its volume is to be made first"));
    if let Some(status) = unschedulable(pod, &reason, now) {
        let after = Object::new(Pod { status: Some(status), ..pod.clone() });
        plan.ops.push(Op::UpdateStatus { before: object.clone(), after });
    }
    plan.wait(object.key(), reason);
}

/// The status with the PodScheduled condition, where it does not say so already.
fn unschedulable(pod: &Pod, reason: &Reason, now: Timestamp) -> Option<PodStatus> {
    let known = pod::condition(pod, "PodScheduled");
    if known.is_some_and(|known| known.status == "False" && known.message.as_deref() == Some(&reason.message)) {
        return None;
    }
    let mut status = pod.status.clone().unwrap_or_default();
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some(reason.code.to_owned()),
        message: Some(reason.message.clone()),
        ..PodCondition::default()
    };
    pod::set_condition(&mut status, condition, now);
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn node(name: &str, cpu: &str, spec: Value) -> (Object, Vec<Object>) {
        let node = json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": spec, "status": {
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        (Object::from_value(Kind::Node, node).expect("a node"), Vec::new())
    }

    fn pod(name: &str, cpu: &str, spec: Value) -> Object {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        Object::from_value(Kind::Pod, json!({"metadata": {"name": name, "namespace": "web"}, "spec": spec})).expect("a pod")
    }

    fn answers(seen: &Observed) -> Vec<(String, String)> {
        let answer = |placed: &Placed| match &placed.node {
            Ok(node) => format!("{node}{}", if placed.tied { "~" } else { "" }),
            Err(reason) => reason.message.clone(),
        };
        place(seen).iter().map(|placed| (placed.pod.name.clone(), answer(placed))).collect()
    }

    #[test]
    fn least_allocated_then_name() {
        let seen = Observed {
            nodes: vec![node("b", "4", json!({})), node("a", "4", json!({})), node("c", "8", json!({}))],
            pending: ["1", "2", "3"].map(|name| pod(name, "1", json!({}))).to_vec(),
            storage: Storage::default(),
        };
        // c has the largest share left until it runs one; then a and b are equal.
        let wanted = [("1", "c"), ("2", "a~"), ("3", "b")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(answers(&seen), wanted);
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let taint = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
        let nodes = vec![
            node("a", "1", json!({})),
            node("b", "4", taint),
            node("c", "4", json!({"unschedulable": true})),
            node("d", "1", json!({})),
        ];
        let seen = Observed { nodes: nodes.clone(), pending: vec![pod("1", "2", json!({}))], storage: Storage::default() };
        assert_eq!(
            answers(&seen)[0].1,
            "0/4 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        let tolerant = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
        let seen = Observed { nodes: nodes.clone(), pending: vec![pod("1", "2", tolerant)], storage: Storage::default() };
        assert_eq!(answers(&seen)[0].1, "b");
        let seen = Observed { nodes, pending: vec![pod("1", "1", json!({"nodeSelector": {"zone": "d"}}))], storage: Storage::default() };
        assert_eq!(answers(&seen)[0].1, "d");
        let seen = Observed { nodes: vec![], pending: vec![pod("1", "1", json!({}))], storage: Storage::default() };
        assert_eq!(answers(&seen)[0].1, "no nodes available to schedule pods");
    }

    #[test]
    fn what_a_node_advertises_is_given_out_once() {
        let (mut with, none) = (node("a", "8", json!({})).0.value(), node("b", "8", json!({})));
        with["status"]["allocatable"]["example.com/dongle"] = json!("4");
        let with = Object::from_value(Kind::Node, with).expect("a node");
        let wants = |name: &str, count: &str| {
            let container = json!({"name": "c", "resources": {"limits": {"example.com/dongle": count}}});
            let pod = json!({"metadata": {"name": name, "namespace": "web"}, "spec": {"containers": [container]}});
            Object::from_value(Kind::Pod, pod).expect("a pod")
        };
        let seen = Observed {
            nodes: vec![(with, vec![wants("0", "1")]), none],
            pending: vec![wants("1", "2"), wants("2", "2")],
            storage: Storage::default(),
        };
        let told = answers(&seen);
        assert_eq!((told[0].1.as_str(), told[1].1.as_str()), ("a", "0/2 nodes are available: 2 Insufficient example.com/dongle."));
    }

    #[test]
    fn priority_goes_first() {
        let seen = Observed {
            nodes: vec![node("a", "1", json!({}))],
            pending: vec![pod("1", "1", json!({})), pod("2", "1", json!({"priority": 10}))],
            storage: Storage::default(),
        };
        assert_eq!(answers(&seen)[0], ("2".to_owned(), "a".to_owned()));
        assert!(answers(&seen)[1].1.contains("Insufficient cpu"));
    }

    #[test]
    fn a_host_port_is_taken_once() {
        let port = |name: &str| {
            let pod = json!({"metadata": {"name": name, "namespace": "web"},
                "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
            Object::from_value(Kind::Pod, pod).expect("a pod")
        };
        let seen = Observed { nodes: vec![node("a", "1", json!({}))], pending: vec![port("1"), port("2")], storage: Storage::default() };
        assert_eq!(answers(&seen)[0].1, "a");
        assert!(answers(&seen)[1].1.contains("free ports"), "{:?}", answers(&seen));
    }

    proptest! {
        /// The heap gives what looking at every node for every pod gives.
        #[test]
        fn agrees_with_the_plain_search(cpus in prop::collection::vec(1_u32..6, 1..6), asks in prop::collection::vec(1_u32..25, 1..30)) {
            let nodes: Vec<_> = cpus.iter().enumerate().map(|(i, cpu)| node(&format!("n{i}"), &cpu.to_string(), json!({}))).collect();
            let pending: Vec<_> = asks.iter().enumerate().map(|(i, ask)| pod(&format!("p{i:02}"), &format!("{}m", ask * 100), json!({}))).collect();
            let seen = Observed { nodes: nodes.clone(), pending, storage: Storage::default() };
            let mut table = Table::new(&nodes);
            for placed in place(&seen) {
                let object = seen.pending.iter().find(|object| *object.key() == placed.pod).expect("pending");
                let demand = table.demand(object.get::<Pod>().expect("a pod").spec.as_ref().expect("a spec"));
                let asked = Asked::new(&demand);
                let best = (0..table.rows.len())
                    .filter(|at| filter::suits(&table.rows[*at], &asked) && filter::has_room(&table.rows[*at], &asked))
                    .map(|at| (score::score(&table.rows[at], &asked), Reverse(at)))
                    .max();
                prop_assert_eq!(placed.node.clone().ok(), best.map(|(_, Reverse(at))| table.rows[at].name.clone()));
                if let Some((_, Reverse(at))) = best {
                    table.rows[at].take(&demand.amounts, demand.weighed, &demand.ports);
                }
            }
        }
    }
}
