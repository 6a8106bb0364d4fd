//! The nodes as the scheduler counts them: offered and used amounts in plain integers. PURE.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};

use crate::model::quantity::Quantity;
use crate::model::{Object, pod};

pub const CPU: usize = 0;
pub const MEMORY: usize = 1;
pub const PODS: usize = 2;
/// How many resources every pod asks.
const FIRST: usize = 3;
/// Pods a node takes that does not say.
const DEFAULT_PODS: i64 = 110;
/// What a pod that asks for nothing counts for in the score, so that such pods spread too.
const DEFAULT_CPU_MILLIS: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// The names of all resources; an index into it stands for a resource.
#[derive(Debug, Default, Clone)]
pub struct Names(Vec<String>);

impl Names {
    fn new() -> Self {
        Self(["cpu", "memory", "pods"].map(str::to_owned).to_vec())
    }

    pub fn name(&self, index: usize) -> &str {
        self.0.get(index).map(String::as_str).unwrap_or_default()
    }

    fn index(&mut self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }
}

fn amount(index: usize, quantity: Quantity) -> i64 {
    if index == CPU { quantity.cpu_millis() } else { quantity.units() }
}

/// Amounts by resource index; absent ones are zero. Those that every pod asks are at hand: most of
/// the scheduler's time is spent in comparing them.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amounts {
    /// CPU, memory, pods.
    first: [i64; FIRST],
    more: Vec<i64>,
}

impl Amounts {
    pub fn get(&self, index: usize) -> i64 {
        match self.first.get(index) {
            Some(amount) => *amount,
            None => self.more.get(index - FIRST).copied().unwrap_or(0),
        }
    }

    fn set(&mut self, index: usize, amount: i64) {
        if index < FIRST {
            self.first[index] = amount;
            return;
        }
        if self.more.len() <= index - FIRST {
            self.more.resize(index - FIRST + 1, 0);
        }
        self.more[index - FIRST] = amount;
    }

    fn add(&mut self, other: &Amounts) {
        for (index, amount) in other.first.iter().chain(&other.more).enumerate() {
            self.set(index, self.get(index).saturating_add(*amount));
        }
    }

    /// Whether all that is asked is left of what is offered.
    pub fn fit(&self, used: &Amounts, offered: &Amounts) -> bool {
        let fits = |asked: i64, used: i64, offered: i64| asked <= 0 || used.saturating_add(asked) <= offered;
        let first = |at: usize| fits(self.first[at], used.first[at], offered.first[at]);
        // Written out: it is the innermost loop of all.
        first(CPU) && first(MEMORY) && first(PODS) && (self.more.is_empty() || self.lacking(used, offered).next().is_none())
    }

    /// The indexes of which more is asked than is left.
    pub fn lacking<'a>(&'a self, used: &'a Amounts, offered: &'a Amounts) -> impl Iterator<Item = usize> + 'a {
        let asked = (0..FIRST + self.more.len()).map(|at| (at, self.get(at))).filter(|(_, asked)| *asked > 0);
        asked.filter(|(at, asked)| used.get(*at).saturating_add(*asked) > offered.get(*at)).map(|(at, _)| at)
    }
}

/// A port of the host: number, protocol, address.
pub type HostPort = (i32, String, String);

/// One node.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub ready: bool,
    pub offered: Amounts,
    pub used: Amounts,
    /// CPU and memory used as the score counts them.
    pub weighed: (i64, i64),
    pub ports: BTreeSet<HostPort>,
}

/// What a pod asks of a node. Pods that ask the same are interchangeable.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    pub amounts: Amounts,
    pub weighed: (i64, i64),
    pub selector: BTreeMap<String, String>,
    /// Key, operator, value, effect.
    pub tolerations: Vec<[String; 4]>,
    pub ports: BTreeSet<HostPort>,
}

/// All nodes by name.
#[derive(Debug, Default, Clone)]
pub struct Table {
    pub names: Names,
    pub rows: Vec<Row>,
}

impl Table {
    /// Counts the nodes and the pods on each.
    pub fn new(nodes: &[(Object, Vec<Object>)]) -> Self {
        let mut table = Table { names: Names::new(), rows: Vec::with_capacity(nodes.len()) };
        for (object, pods) in nodes {
            let Some(node) = object.get::<Node>().filter(|_| !object.is_deleting()) else { continue };
            let row = table.row(object, node, pods);
            table.rows.push(row);
        }
        table.rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        table
    }

    fn row(&mut self, object: &Object, node: &Node, pods: &[Object]) -> Row {
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let mut offered = Amounts::default();
        offered.set(PODS, DEFAULT_PODS);
        for (name, quantity) in status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref())).into_iter().flatten() {
            let index = self.names.index(name);
            offered.set(index, amount(index, Quantity::of(quantity)));
        }
        let mut row = Row {
            name: object.key().name.clone(),
            labels: object.labels().clone(),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            offered,
            used: Amounts::default(),
            weighed: (0, 0),
            ports: BTreeSet::new(),
        };
        for pod in pods.iter().filter_map(|object| object.get::<Pod>()).filter(|pod| !pod::is_terminal(pod)) {
            if let Some(spec) = &pod.spec {
                let amounts = self.amounts(pod::claims(pod));
                row.take(&amounts, weighed(&amounts), &ports(spec));
            }
        }
        row
    }

    fn amounts(&mut self, requests: pod::Resources) -> Amounts {
        let mut amounts = Amounts::default();
        amounts.set(PODS, 1);
        for (name, quantity) in requests {
            let index = self.names.index(&name);
            amounts.set(index, amount(index, quantity));
        }
        amounts
    }

    /// What a pod asks.
    pub fn demand(&mut self, spec: &PodSpec) -> Demand {
        let amounts = self.amounts(pod::requests(spec));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut tolerations: Vec<[String; 4]> =
            spec.tolerations.iter().flatten().map(|it| [text(&it.key), text(&it.operator), text(&it.value), text(&it.effect)]).collect();
        tolerations.sort_unstable();
        Demand {
            weighed: weighed(&amounts),
            amounts,
            selector: spec.node_selector.clone().unwrap_or_default(),
            tolerations,
            ports: ports(spec),
        }
    }
}

impl Row {
    /// Counts one more pod.
    pub fn take(&mut self, amounts: &Amounts, weighed: (i64, i64), ports: &BTreeSet<HostPort>) {
        self.used.add(amounts);
        self.weighed.0 = self.weighed.0.saturating_add(weighed.0);
        self.weighed.1 = self.weighed.1.saturating_add(weighed.1);
        self.ports.extend(ports.iter().cloned());
    }
}

impl Demand {
    pub fn tolerations(&self) -> impl Iterator<Item = Toleration> + '_ {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        self.tolerations.iter().map(move |[key, operator, value, effect]| Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        })
    }
}

fn weighed(amounts: &Amounts) -> (i64, i64) {
    let or = |asked: i64, default: i64| if asked > 0 { asked } else { default };
    (or(amounts.get(CPU), DEFAULT_CPU_MILLIS), or(amounts.get(MEMORY), DEFAULT_MEMORY_BYTES))
}

/// The ports of the host a pod occupies.
fn ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let mut ports = BTreeSet::new();
    for port in pod::all_containers(spec).flat_map(|container| container.ports.iter().flatten()) {
        let number = match port.host_port {
            Some(number) if number > 0 => number,
            _ if spec.host_network == Some(true) => port.container_port,
            _ => continue,
        };
        let address = port.host_ip.clone().filter(|address| !address.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        ports.insert((number, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), address));
    }
    ports
}
