//! The steps of a rollout, as kube-controller-manager takes them: find or make the set of the
//! newest template, scale, roll, tidy the history, report.

use std::ops::Deref;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{rolling, status};
use crate::control::claim::{self, Claims};
use crate::control::{naming, refusal};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, LAST_APPLIED, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH: &str = "pod-template-hash";

/// What a Deployment's decision rests on.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub deployment: &'a Object,
    pub selector: Option<Selector>,
    pub claims: Claims<'a>,
    pub sets: Vec<Set<'a>>,
}

/// The pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    pub active: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
    /// When the next ready pod becomes available.
    pub next_available: Option<Timestamp>,
}

/// What a set becomes: borrowed as long as nothing changes, and small, because sets are moved about.
#[derive(Clone, Debug)]
pub enum Draft<'a> {
    Kept(&'a ReplicaSet),
    Changed(Box<ReplicaSet>),
    /// As an op has it.
    Planned(Object),
}

impl Draft<'_> {
    fn to_mut(&mut self) -> &mut ReplicaSet {
        if !matches!(self, Draft::Changed(_)) {
            *self = Draft::Changed(Box::new(ReplicaSet::clone(self)));
        }
        match self {
            Draft::Changed(set) => set,
            Draft::Kept(_) | Draft::Planned(_) => unreachable!("it was changed above"),
        }
    }

    /// The changed set as an object, which it shares from now on.
    fn planned(&mut self) -> Option<Object> {
        let Draft::Changed(set) = self else { return None };
        let object = Object::new(std::mem::take(set.as_mut()));
        *self = Draft::Planned(object.clone());
        Some(object)
    }
}

impl Deref for Draft<'_> {
    type Target = ReplicaSet;

    fn deref(&self) -> &ReplicaSet {
        match self {
            Draft::Kept(set) => set,
            Draft::Changed(set) => set,
            Draft::Planned(object) => object.get().unwrap_or_else(|| unreachable!("`planned` makes it of a set")),
        }
    }
}

/// One ReplicaSet, and what it becomes.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    /// As stored; `None` for the one this plan creates.
    pub before: Option<&'a Object>,
    pub after: Draft<'a>,
    pub pods: Pods,
}

impl<'a> Set<'a> {
    /// None of what is no ReplicaSet.
    pub fn new(object: &'a Object, pods: Pods) -> Option<Self> {
        Some(Self { before: Some(object), after: Draft::Kept(object.get()?), pods })
    }

    pub fn name(&self) -> &str {
        self.after.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn replicas(&self) -> i32 {
        self.after.spec.replicas.unwrap_or(1)
    }

    /// Pods that stay available when the set has come down to its replicas: it gives up
    /// unavailable ones first.
    pub fn available(&self) -> i32 {
        self.pods.available.min(self.replicas())
    }

    pub fn scale(&mut self, replicas: i32) {
        if self.after.spec.replicas != Some(replicas) {
            self.after.to_mut().spec.replicas = Some(replicas);
        }
    }

    pub fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.after.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Sets an annotation where it differs.
    pub fn annotate(&mut self, name: &str, value: &str) {
        if self.annotation(name) != Some(value) {
            self.after.to_mut().metadata.annotations.get_or_insert_with(Default::default).insert(name.to_owned(), value.to_owned());
        }
    }

    /// Oldest first, then by name.
    fn age(&self) -> impl Ord + use<> {
        let created = self.after.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created.is_none(), created, self.name().to_owned())
    }
}

/// The sets in order of age, and which of them has the newest template.
pub struct Rollout<'a> {
    pub object: &'a Object,
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub sets: Vec<Set<'a>>,
    pub newest: Option<usize>,
}

impl<'a> Rollout<'a> {
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub fn new_set(&self) -> Option<&Set<'a>> {
        self.newest.and_then(|at| self.sets.get(at))
    }

    /// The indexes of the sets that have an older template.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|at| Some(*at) != self.newest).collect()
    }
}

pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some((deployment, spec)) = seen.deployment.get::<Deployment>().map(|it| (it, &it.spec)) else {
        return plan;
    };
    let Some(selector) = &seen.selector else { return plan };
    claim::settle(seen.deployment, &seen.claims, selector, &mut plan);
    if !plan.is_empty() {
        return plan;
    }
    let mut sets: Vec<Set<'_>> = seen.sets.iter().filter(|set| set.before.is_none_or(|it| !it.is_deleting())).cloned().collect();
    sets.sort_by_cached_key(Set::age);
    let newest = sets.iter().position(|set| same_template(set, &spec.template));
    let mut rollout = Rollout { object: seen.deployment, deployment, spec, sets, newest };
    if seen.deployment.is_deleting() {
        status::report(&rollout, seen, None, now, &mut plan);
        return plan;
    }
    let paused = spec.paused.unwrap_or(false);
    if !paused && recreating(&rollout) && old_pods_run(seen, &rollout) {
        for at in rollout.old() {
            rollout.sets[at].scale(0);
        }
    } else if !paused {
        if let Some(collision) = ensure_newest(seen, &mut rollout) {
            plan.ops.push(collision);
            return plan;
        }
        step(&mut rollout);
    } else {
        adopt_revision(&mut rollout);
        rolling::proportional(&mut rollout);
    }
    annotate_scale(&mut rollout);
    emit_sets(&mut rollout, &mut plan);
    if let Some(why) = plan.ops.iter().filter(|op| matches!(op, Op::Create(_))).find_map(|op| refusal::of(seen.state, op, now)) {
        return without_set(rollout, seen, &why, now);
    }
    if plan.is_empty() && !paused {
        tidy_history(&rollout, &mut plan);
    }
    let moves = !plan.is_empty();
    if !emit_revision(&rollout, &mut plan) {
        status::report(&rollout, seen, None, now, &mut plan);
        // Only a share of the size and what follows a pause depend on what the status said.
        plan.rests = !moves && !paused && !is_scaling(&rollout) && !status::was_paused(deployment);
    }
    plan
}

/// Admission refuses the set of the newest template: nothing moves, and the Deployment says why.
fn without_set(mut rollout: Rollout<'_>, seen: &Observed<'_>, why: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    rollout.sets.retain(|set| set.before.is_some());
    rollout.newest = None;
    status::report(&rollout, seen, Some(&format!("Failed to create new replica set: {why}")), now, &mut plan);
    plan
}

fn recreating(rollout: &Rollout<'_>) -> bool {
    rollout.spec.strategy.as_ref().and_then(|it| it.type_.as_deref()) == Some("Recreate")
}

/// Some pod of an older template has not ended yet.
fn old_pods_run(seen: &Observed<'_>, rollout: &Rollout<'_>) -> bool {
    let newest = rollout.new_set().map(Set::name);
    seen.sets.iter().filter(|set| Some(set.name()) != newest).any(|set| set.replicas() > 0 || set.pods.active + set.pods.terminating > 0)
}

fn step(rollout: &mut Rollout<'_>) {
    let replicas = rollout.replicas();
    if is_scaling(rollout) {
        rolling::proportional(rollout);
    } else if recreating(rollout) {
        if let Some(at) = rollout.newest {
            rollout.sets[at].scale(replicas);
        }
    } else {
        rolling::roll(rollout);
    }
}

/// The wanted size changed since the sets were last sized.
fn is_scaling(rollout: &Rollout<'_>) -> bool {
    let wanted = rollout.replicas().to_string();
    let sized = |set: &Set<'_>| set.annotation(DESIRED).is_some_and(|desired| desired != wanted);
    rollout.sets.iter().filter(|set| set.replicas() > 0 && set.before.is_some()).any(sized)
}

/// Whether a set was made from this template, its hash label aside.
fn same_template(set: &Set<'_>, template: &PodTemplateSpec) -> bool {
    let Some(own) = &set.after.spec.template else { return false };
    if own.spec != template.spec {
        return false;
    }
    let plain = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
        meta
    };
    plain(own) == plain(template)
}

/// Finds or makes the set of the newest template. The returned op counts a name collision.
fn ensure_newest(seen: &Observed<'_>, rollout: &mut Rollout<'_>) -> Option<Op> {
    if rollout.newest.is_none() {
        let collisions = rollout.deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let hash = naming::template_hash(&rollout.spec.template, collisions);
        let key = rollout.object.key();
        let name = format!("{}-{hash}", key.name);
        if seen.state.get(&Key::new(Kind::ReplicaSet, key.namespace.clone(), name.clone())).is_some() {
            let after = rollout.object.edit(|it: &mut Deployment| {
                it.status.get_or_insert_with(Default::default).collision_count = Some(collisions + 1);
            })?;
            return Some(Op::UpdateStatus { before: rollout.object.clone(), after });
        }
        let after = new_set(rollout, name, &hash);
        rollout.newest = Some(rollout.sets.len());
        rollout.sets.push(Set { before: None, after: Draft::Changed(Box::new(after)), pods: Pods::default() });
        if let Some(at) = rollout.newest {
            let replicas = if recreating(rollout) { rollout.replicas() } else { rolling::new_set_size(rollout, at) };
            rollout.sets[at].scale(replicas);
        }
    }
    adopt_revision(rollout);
    None
}

fn new_set(rollout: &Rollout<'_>, name: String, hash: &str) -> ReplicaSet {
    let mut template = rollout.spec.template.clone();
    let labels = template.metadata.get_or_insert_with(ObjectMeta::default).labels.get_or_insert_with(Default::default);
    labels.insert(HASH.to_owned(), hash.to_owned());
    let labels = labels.clone();
    let mut selector: LabelSelector = rollout.spec.selector.clone();
    selector.match_labels.get_or_insert_with(Default::default).insert(HASH.to_owned(), hash.to_owned());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(rollout.object.key().namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![naming::owner_reference(rollout.object)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec { replicas: Some(0), min_ready_seconds: rollout.spec.min_ready_seconds, selector, template: Some(template) },
        status: None,
    }
}

/// Gives the newest set the highest revision and the Deployment's annotations.
fn adopt_revision(rollout: &mut Rollout<'_>) {
    let Some(at) = rollout.newest else { return };
    let highest_old = rollout.old().into_iter().map(|old| rollout.sets[old].revision()).max().unwrap_or(0);
    let copied: Vec<(String, String)> = rollout
        .object
        .meta()
        .annotations
        .iter()
        .flatten()
        .filter(|(name, _)| is_copied(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let min_ready = rollout.spec.min_ready_seconds;
    let set = &mut rollout.sets[at];
    for (name, value) in copied {
        set.annotate(&name, &value);
    }
    let revision = set.revision();
    if revision <= highest_old {
        if revision > 0 {
            let history = set.annotation(REVISION_HISTORY).map(|old| format!("{old},{revision}")).unwrap_or_else(|| revision.to_string());
            set.annotate(REVISION_HISTORY, &history);
        }
        set.annotate(REVISION, &(highest_old + 1).to_string());
    }
    if set.after.spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
        set.after.to_mut().spec.min_ready_seconds = min_ready;
    }
}

/// Annotations that say something of the Deployment alone stay there.
fn is_copied(name: &str) -> bool {
    let own = ["deployment.kubernetes.io/", "podbay.dev/", "argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/"];
    name != LAST_APPLIED && !own.iter().any(|prefix| name.starts_with(prefix))
}

/// Notes on each sized set what it was sized for: the base of proportional scaling.
fn annotate_scale(rollout: &mut Rollout<'_>) {
    let desired = rollout.replicas().to_string();
    let max = rollout.replicas().saturating_add(rolling::max_surge(rollout)).to_string();
    let newest = rollout.newest;
    for (at, set) in rollout.sets.iter_mut().enumerate() {
        if set.replicas() > 0 || Some(at) == newest {
            set.annotate(DESIRED, &desired);
            set.annotate(MAX, &max);
        }
    }
}

fn emit_sets(rollout: &mut Rollout<'_>, plan: &mut Plan) {
    let key = rollout.object.key();
    for set in &mut rollout.sets {
        let was = set.before.and_then(Object::get::<ReplicaSet>);
        let (from, to) = (was.and_then(|was| was.spec.replicas).unwrap_or(0), set.replicas());
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name());
            plan.note(key, false, Reason::new("ScalingReplicaSet", message));
        }
        if was.is_some_and(|was| *was == *set.after) {
            continue;
        }
        match (set.before, set.after.planned()) {
            (None, Some(after)) => plan.ops.push(Op::Create(after)),
            (Some(before), Some(after)) => plan.ops.push(Op::Update { before: before.clone(), after }),
            (_, None) => {}
        }
    }
}

/// Copies the newest revision to the Deployment; true when that is still to be written.
fn emit_revision(rollout: &Rollout<'_>, plan: &mut Plan) -> bool {
    let Some(set) = rollout.new_set() else { return false };
    let revision = set.revision().to_string();
    if rollout.object.annotation(REVISION) == Some(&revision) {
        return false;
    }
    let after = rollout.object.clone().edit_meta(|meta| {
        meta.annotations.get_or_insert_with(Default::default).insert(REVISION.to_owned(), revision);
    });
    plan.ops.push(Op::Update { before: rollout.object.clone(), after });
    true
}

/// Deletes the oldest sets that run nothing, beyond the history's limit, once the rollout is done.
fn tidy_history(rollout: &Rollout<'_>, plan: &mut Plan) {
    let limit = usize::try_from(rollout.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    if !status::is_complete(rollout) {
        return;
    }
    let idle = |set: &Set<'_>| set.replicas() == 0 && set.pods.active + set.pods.terminating == 0;
    let mut old: Vec<&Set<'_>> = rollout.old().into_iter().map(|at| &rollout.sets[at]).filter(|set| idle(set)).collect();
    old.sort_by_key(|set| set.revision());
    let excess = old.len().saturating_sub(limit);
    for set in old.into_iter().take(excess) {
        if let Some(before) = set.before {
            plan.ops.push(Op::Delete { before: before.clone(), grace_seconds: None });
        }
    }
}
