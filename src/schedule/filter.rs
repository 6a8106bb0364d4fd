//! Why a node cannot take a pod, in kube-scheduler's words. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::table::{Demand, Names, PODS, Row, Table};
use crate::model::pod::tolerates;

/// The taint a cordoned node counts as having.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

const NO_NODES: &str = "no nodes available to schedule pods";

/// A demand with its tolerations ready for use.
pub struct Asked<'a> {
    pub demand: &'a Demand,
    tolerations: Vec<Toleration>,
    tolerates_unschedulable: bool,
}

impl<'a> Asked<'a> {
    pub fn new(demand: &'a Demand) -> Self {
        let cordoned = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let tolerations: Vec<Toleration> = demand.tolerations().collect();
        let tolerates_unschedulable = tolerations.iter().any(|toleration| tolerates(toleration, &cordoned));
        Self { demand, tolerations, tolerates_unschedulable }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    }

    /// Taints that only advise against the node.
    pub fn advised_against(&self, row: &Row) -> usize {
        if row.taints.is_empty() {
            return 0;
        }
        row.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule" && !self.tolerates(taint)).count()
    }
}

/// Whether the node is one for such pods, however full it is: placing pods does not change the answer.
pub fn suits(row: &Row, asked: &Asked<'_>) -> bool {
    mismatch(row, asked).is_none()
}

/// Whether what the pod asks is left on a node that suits it.
pub fn has_room(row: &Row, asked: &Asked<'_>) -> bool {
    asked.demand.amounts.fit(&row.used, &row.offered) && (asked.demand.ports.is_empty() || !taken(row, asked))
}

/// The first reason that no freed room would change.
fn mismatch(row: &Row, asked: &Asked<'_>) -> Option<String> {
    if row.unschedulable && !asked.tolerates_unschedulable {
        return Some("node(s) were unschedulable".to_owned());
    }
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !asked.tolerates(taint);
    if let Some(taint) = row.taints.iter().find(hard) {
        return Some(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default()));
    }
    if !row.ready {
        return Some("node(s) were not ready".to_owned());
    }
    if !asked.demand.selector.iter().all(|(name, value)| row.labels.get(name) == Some(value)) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    None
}

/// Whether a port of the host that the pod asks is another pod's.
fn taken(row: &Row, asked: &Asked<'_>) -> bool {
    let taken = |(number, protocol, address): &(i32, String, String)| {
        row.ports
            .iter()
            .any(|(other, of, at)| number == other && protocol == of && (address == at || address == "0.0.0.0" || at == "0.0.0.0"))
    };
    asked.demand.ports.iter().any(taken)
}

fn lack(names: &Names, index: usize) -> String {
    if index == PODS { "Too many pods".to_owned() } else { format!("Insufficient {}", names.name(index)) }
}

/// Why no node would do, whatever it offers.
pub fn refusal_everywhere(table: &Table, why: &str) -> String {
    match table.rows.len() {
        0 => NO_NODES.to_owned(),
        count => format!("0/{count} nodes are available: {why}."),
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` `more`: a reason beside.
pub fn refusal(table: &Table, asked: &Asked<'_>, more: impl Fn(&Row) -> Option<&'static str>) -> String {
    if table.rows.is_empty() {
        return NO_NODES.to_owned();
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in &table.rows {
        match mismatch(row, asked).or_else(|| more(row).map(str::to_owned)) {
            Some(reason) => *counts.entry(reason).or_default() += 1,
            None if taken(row, asked) => {
                *counts.entry("node(s) didn't have free ports for the requested pod ports".to_owned()).or_default() += 1;
            }
            None => {
                for index in asked.demand.amounts.lacking(&row.used, &row.offered) {
                    *counts.entry(lack(&table.names, index)).or_default() += 1;
                }
            }
        }
    }
    let mut counts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counts.sort_unstable();
    format!("0/{} nodes are available: {}.", table.rows.len(), counts.join(", "))
}
