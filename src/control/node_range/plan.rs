//! The first free range for each node that has none, by name.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Node, NodeSpec};

use crate::model::Object;
use crate::plan::{Op, Plan, Reason};

pub const DEFAULT_RANGE: &str = "10.80.0.0/16";
pub const DEFAULT_PREFIX: &str = "24";

/// The cluster's pod range, the size of a node's, and all nodes.
pub struct Observed<'a> {
    pub pods: &'a str,
    pub prefix: &'a str,
    pub nodes: Vec<Object>,
}

pub fn range(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
}

fn cidr(text: &str) -> Option<(u32, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?), prefix))
}

/// First and last address of a range.
fn bounds((address, prefix): (u32, u8)) -> (u32, u32) {
    let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (address & !host, address | host)
}

pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let lacking = |object: &&Object| object.get::<Node>().is_some_and(|node| range(node).is_none()) && !object.is_deleting();
    let lacking: Vec<&Object> = seen.nodes.iter().filter(lacking).collect();
    if lacking.is_empty() {
        return plan;
    }
    let fits = |prefix: u8, whole: u8| prefix >= whole && prefix <= 30;
    let settings = cidr(seen.pods).zip(seen.prefix.parse::<u8>().ok()).filter(|((_, whole), prefix)| fits(*prefix, *whole));
    let Some((pods, prefix)) = settings else {
        for node in lacking {
            let message = format!("podRange {} cannot be cut into ranges of /{}", seen.pods, seen.prefix);
            plan.wait(node.key(), Reason::new("InvalidPodRange", message));
        }
        return plan;
    };
    let used: BTreeSet<(u32, u32)> =
        seen.nodes.iter().filter_map(|object| object.get::<Node>().and_then(range).and_then(cidr)).map(bounds).collect();
    let (first, last) = bounds(pods);
    let size = 1_u32 << (32 - prefix);
    let mut free = (0..(1_u64 << (prefix - pods.1))).map(|index| first + u32::try_from(index).unwrap_or(0) * size);
    let mut free = free.by_ref().filter(|start| {
        let end = start + (size - 1);
        end <= last && !used.iter().any(|(from, to)| *from <= end && *start <= *to)
    });
    for node in lacking {
        let Some(start) = free.next() else {
            let message = format!("no free range of /{prefix} is left in {}", seen.pods);
            plan.note(node.key(), true, Reason::new("PodRangeExhausted", message.clone()));
            plan.wait(node.key(), Reason::new("PodRangeExhausted", message));
            continue;
        };
        let range = format!("{}/{prefix}", Ipv4Addr::from(start));
        let after = node.edit(|it: &mut Node| {
            let spec = it.spec.get_or_insert_with(NodeSpec::default);
            spec.pod_cidr = Some(range.clone());
            spec.pod_cidrs = Some(vec![range]);
        });
        plan.ops.extend(after.map(|after| Op::Update { before: node.clone(), after }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use serde_json::json;

    fn node(name: &str, range: Option<&str>) -> Object {
        Object::from_value(Kind::Node, json!({"metadata": {"name": name}, "spec": {"podCIDR": range}})).expect("a node")
    }

    fn given(seen: &Observed<'_>) -> Vec<(String, String)> {
        let range = |op: &Op| match op {
            Op::Update { after, .. } => {
                (after.key().name.clone(), range(after.get::<Node>().expect("a node")).expect("a range").to_owned())
            }
            other => panic!("{other}"),
        };
        plan(seen).ops.iter().map(range).collect()
    }

    #[test]
    fn first_free_ranges_by_name() {
        let nodes = vec![node("a", Some("10.80.1.0/24")), node("b", None), node("c", None), node("d", Some("10.80.0.0/25"))];
        let seen = Observed { pods: DEFAULT_RANGE, prefix: DEFAULT_PREFIX, nodes };
        let wanted = [("b", "10.80.2.0/24"), ("c", "10.80.3.0/24")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(given(&seen), wanted);
    }

    #[test]
    fn an_exhausted_range_is_said() {
        let seen = Observed { pods: "10.0.0.0/24", prefix: "24", nodes: vec![node("a", None), node("b", None)] };
        assert_eq!(given(&seen).len(), 1);
        assert_eq!(plan(&seen).waits[0].reason.code, "PodRangeExhausted");
        let wrong = Observed { pods: "10.0.0.0/24", prefix: "16", nodes: vec![node("a", None)] };
        assert_eq!(plan(&wrong).waits[0].reason.code, "InvalidPodRange");
    }
}
