//! What the pods of this node have of it together, and who waits for room; `resize_plan` judges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use tokio::sync::Notify;

use super::observed::uid;
use super::resize_plan::judge;
use crate::model::pod::{self as model, Resources, add, claims};
use crate::plan::Reason;

/// The pods' claims by UID.
#[derive(Default)]
pub struct Room(Mutex<BTreeMap<String, Claim>>);

#[derive(Default)]
struct Claim {
    amounts: Resources,
    /// Whose resize was deferred.
    waits: Option<Arc<Notify>>,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod that its worker has not looked at yet claims what its spec and its status say.
    pub fn meet(&self, pod: &Pod) {
        let claim = || Claim { amounts: claims(pod), waits: None };
        if !model::is_terminal(pod) {
            self.lock().entry(uid(pod).to_owned()).or_insert_with(claim);
        }
    }

    /// The pod has this much and waits for no more.
    pub fn hold(&self, uid: &str, amounts: Resources) {
        self.put(&mut self.lock(), uid, amounts, None);
    }

    /// Asks for other amounts than the pod has: it has them from now on, or hears why not and is woken when others have less.
    pub fn ask(
        &self,
        uid: &str,
        (wanted, has): (Resources, Resources),
        offered: &BTreeMap<String, ApiQuantity>,
        wake: &Arc<Notify>,
    ) -> Option<Reason> {
        let mut all = self.lock();
        let mut others = Resources::new();
        all.iter().filter(|(other, _)| *other != uid).for_each(|(_, claim)| add(&mut others, &claim.amounts));
        let why = judge(&wanted, &others, offered);
        let (amounts, waits) = if why.is_some() { (has, Some(wake.clone())) } else { (wanted, None) };
        self.put(&mut all, uid, amounts, waits);
        why
    }

    pub fn leave(&self, uid: &str) {
        let mut all = self.lock();
        if all.remove(uid).is_some() {
            wake(&all);
        }
    }

    fn put(&self, all: &mut BTreeMap<String, Claim>, uid: &str, amounts: Resources, waits: Option<Arc<Notify>>) {
        let before = all.insert(uid.to_owned(), Claim { amounts, waits });
        let Some(before) = before else { return };
        let now = all.get(uid).map(|claim| &claim.amounts);
        let less = |(name, amount): (&String, _)| now.and_then(|now| now.get(name)).is_none_or(|now| now < amount);
        if before.amounts.iter().any(less) {
            wake(all);
        }
    }
}

fn wake(all: &BTreeMap<String, Claim>) {
    all.values().filter_map(|claim| claim.waits.as_ref()).for_each(|waits| waits.notify_one());
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::model::quantity::Quantity;

    #[test]
    fn who_waits_is_woken_when_others_have_less_and_only_then() {
        let cpus = |count: i64| Resources::from([("cpu".to_owned(), Quantity::from_units(count))]);
        let offered = BTreeMap::from([("cpu".to_owned(), ApiQuantity("4".to_owned()))]);
        let (room, wake) = (Room::default(), Arc::new(Notify::new()));
        let woken = || wake.notified().now_or_never().is_some();
        room.hold("a", cpus(1));
        room.hold("b", cpus(3));
        let ask = |wanted: i64| room.ask("a", (cpus(wanted), cpus(1)), &offered, &wake).map(|why| why.code);
        assert_eq!(ask(2), Some("Deferred"));
        room.hold("b", cpus(3));
        assert!(!woken(), "nothing has changed");
        room.hold("b", cpus(2));
        assert!(woken());
        assert_eq!(ask(2), None);
        assert_eq!(room.ask("b", (cpus(3), cpus(2)), &offered, &wake).map(|why| why.code), Some("Deferred"), "it was given away");
        assert_eq!(ask(2), None, "who has it keeps it");
        assert!(!woken());
        room.leave("a");
        assert!(woken());
        assert_eq!(room.ask("b", (cpus(4), cpus(2)), &offered, &wake), None);
    }
}
