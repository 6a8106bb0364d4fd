//! Which ops are this step's: all of them, or those of one wave. PURE.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::asked::is_held_back;
use super::health::{Health, health};
use super::op::Action;
use super::plan::{Input, SyncPlan};
use super::status::WAVE_FAILED;
use crate::model::{Key, Kind, Object};
use crate::plan::{Reason, Wait};

/// Which ops are this step's. With one wave, all; otherwise those up to and with the first wave that
/// has any, provided that everything of the waves before it is healthy.
pub(super) fn step(plan: &mut SyncPlan, input: &Input<'_>) {
    plan.now = plan.ops.len();
    if input.rendered.waves.len() > 1 {
        for wave in &input.rendered.waves {
            let until = plan.ops.partition_point(|op| op.wave <= *wave);
            if until > 0 {
                plan.now = until;
                break;
            }
            let waits = unhealthy(input, *wave, plan);
            if !waits.is_empty() {
                plan.now = 0;
                plan.waits.extend(waits);
                break;
            }
        }
    }
    // What this step deletes is gone after it; what a later one does stays in the inventory.
    for op in &plan.ops[..plan.now] {
        let done = op.action == Action::Delete && op.after.is_none() && !input.rendered.desired.contains(op.key());
        let marked = done && op.before.as_ref().is_some_and(stays_marked);
        if done && !marked {
            Arc::make_mut(&mut plan.inventory).entries.remove(op.key());
        }
    }
}

/// A deletion of it is a mark first: the entry goes when the object has.
fn stays_marked(object: &Object) -> bool {
    matches!(object.kind(), Kind::Namespace | Kind::Pod) || object.meta().finalizers.as_ref().is_some_and(|all| !all.is_empty())
}

/// Whether the waves after this one have to wait for it.
pub(super) fn is_stuck(input: &Input<'_>, wave: i32, plan: &SyncPlan) -> bool {
    !unhealthy(input, wave, plan).is_empty()
}

fn unhealthy(input: &Input<'_>, wave: i32, plan: &SyncPlan) -> Vec<Wait> {
    let held: BTreeSet<&Key> = plan.waits.iter().filter(|wait| is_held_back(wait)).map(|wait| &wait.subject).collect();
    let of_wave = input.rendered.desired.iter().filter(|(_, desired)| desired.wave == wave);
    of_wave
        .filter_map(|(key, _)| match input.state.get(key).map(health) {
            _ if held.contains(key) => {
                let message = format!("wave {wave} waits: it is not as the revision says, because of a webhook");
                Some(Wait { subject: key.clone(), reason: Reason::new("NotApplied", message) })
            }
            Some(Health::Healthy) => None,
            Some(Health::Progressing(reason)) => {
                Some(Wait { subject: key.clone(), reason: Reason::new(reason.code, format!("wave {wave} waits: {}", reason.message)) })
            }
            Some(Health::Failed(reason)) => Some(Wait {
                subject: key.clone(),
                reason: Reason::new(WAVE_FAILED, format!("wave {wave} has failed and stops here: {}", reason.message)),
            }),
            None if plan.finished.contains(key) => None,
            None => Some(Wait { subject: key.clone(), reason: Reason::new("NotCreated", format!("wave {wave} waits until it exists")) }),
        })
        .collect()
}
