//! Server-side apply, and what a plain write does to ownership. PURE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fields::{Element, FieldSet};
use super::last_applied;
use super::managed::{ManagedFields, Operation, Owner};
use super::merge::{changed, compare, merge, remove};
use super::shape::Shapes;
use super::versions::{self, Changes};
use crate::model::{DEFAULT_ACCOUNT, Kind};

/// Another manager owns a field that would change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("conflict with {}: {path}", self.whose())]
pub struct Conflict {
    pub manager: String,
    /// What the manager wrote through; empty: the object itself.
    pub subresource: String,
    /// The version of a plain write; `None`: the manager applied.
    pub version: Option<String>,
    /// `.spec.replicas`
    pub path: String,
}

impl Conflict {
    /// The manager as Kubernetes names it: `"kubectl" with subresource "scale" using apps/v1`.
    pub fn whose(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if let Some(version) = &self.version {
            text.push_str(&format!(" using {version}"));
        }
        text
    }
}

/// Who applies.
#[derive(Clone, Copy, Debug)]
pub struct Applier<'a> {
    pub manager: &'a str,
    /// `status`, or empty: the object itself.
    pub subresource: &'a str,
    /// Takes what others own.
    pub force: bool,
}

impl Applier<'_> {
    /// The entry of the same name for plain writes is somebody else's, as in Kubernetes.
    fn is(&self, owner: &Owner) -> bool {
        owner.manager == self.manager && owner.operation == Operation::Apply && owner.subresource == self.subresource
    }
}

/// [`apply_as`] a manager of the object itself.
///
/// # Errors
/// As [`apply_as`].
pub fn apply<'s>(
    shapes: impl Into<Shapes<'s>>,
    live: Option<&Value>,
    managed: &ManagedFields,
    applied: &Value,
    manager: &str,
    force: bool,
) -> Result<(Value, ManagedFields), Vec<Conflict>> {
    apply_as(shapes, live, managed, applied, &Applier { manager, subresource: "", force })
}

/// Server-side apply: `live` with what `applied` says, without what this manager said before and
/// no longer says and nobody else owns.
///
/// The result's `metadata.managedFields` is not touched: the caller writes the second value there.
///
/// `kubectl` comes from client-side apply: what it said there is its own, see `last_applied`.
///
/// # Errors
/// Every field that would change and that another manager owns, unless `force`, which takes it.
pub fn apply_as<'s>(
    shapes: impl Into<Shapes<'s>>,
    live: Option<&Value>,
    managed: &ManagedFields,
    applied: &Value,
    applier: &Applier<'_>,
) -> Result<(Value, ManagedFields), Vec<Conflict>> {
    let shapes = shapes.into();
    let done = apply_over(shapes, live, managed, applied, applier);
    if applier.manager != last_applied::MANAGER {
        return done;
    }
    let done = done.or_else(|mut conflicts| {
        let own = live.and_then(|live| last_applied::unchanged(shapes, live, applier.subresource)).unwrap_or_default().paths();
        conflicts.retain(|conflict| !own.contains(&conflict.path));
        match conflicts.is_empty() {
            true => apply_over(shapes, live, managed, applied, &Applier { force: true, ..*applier }),
            false => Err(conflicts),
        }
    });
    done.map(|(value, owners)| (last_applied::renewed(value, applied), owners))
}

fn apply_over(
    shapes: Shapes<'_>,
    live: Option<&Value>,
    managed: &ManagedFields,
    applied: &Value,
    applier: &Applier<'_>,
) -> Result<(Value, ManagedFields), Vec<Conflict>> {
    let kind = shapes.kind;
    let mut owners = managed.clone();
    let applied = written(kind, applied.clone(), applier.subresource);
    if kind == Kind::Secret {
        owners.owners.iter_mut().for_each(|owner| owner.fields.rename("stringData", "data"));
    }
    let said = FieldSet::of(shapes, &applied);
    let merged = match live {
        Some(live) => {
            let merged = merge(shapes, &mut Vec::new(), live, &applied);
            // An empty map that is said where there is one already changes nothing.
            let changing = changed(shapes, &mut Vec::new(), live, &merged, &said);
            let changes = Changes::new(kind, live, &merged, &changing);
            let conflicts = conflicts(&owners, applier, &changes);
            if !conflicts.is_empty() && !applier.force {
                return Err(conflicts);
            }
            if !conflicts.is_empty() {
                take(&mut owners, |owner| applier.is(owner), &changes);
            }
            merged
        }
        None => applied.clone(),
    };
    let spoken = |owner: &Owner| versions::spoken(shapes, owner, live);
    let before = owners.applied(applier.manager, applier.subresource).map(spoken);
    let gone = with_alias(kind, live, before.unwrap_or_default().difference(&said));
    let result = if gone.is_empty() {
        merged
    } else {
        let mut kept = said.clone();
        for owner in owners.owners.iter().filter(|owner| !applier.is(owner)) {
            kept = kept.union(&spoken(owner));
        }
        remove(shapes, &mut Vec::new(), merged, &gone, &kept).unwrap_or(Value::Null)
    };
    owners.set(Owner {
        manager: applier.manager.to_owned(),
        operation: Operation::Apply,
        api_version: kind.api_version(),
        subresource: applier.subresource.to_owned(),
        time: None,
        fields: said,
    });
    Ok((result, owners))
}

/// Who gives up a pod's account under the one of its two names (`PodSpec`'s `serviceAccountName`, and `serviceAccount`, "a
/// deprecated alias" of it) gives it up under the other as well, which defaults fill in and nobody says: from there it
/// would come back, as in Kubernetes it does. `default` may, as it is what a pod without an account has.
fn with_alias(kind: Kind, live: Option<&Value>, mut gone: FieldSet) -> FieldSet {
    let path: &[&str] = match kind.stored() {
        Kind::Pod => &["spec"],
        Kind::Deployment | Kind::ReplicaSet | Kind::Job => &["spec", "template", "spec"],
        _ => return gone,
    };
    let spec = live.and_then(|live| path.iter().try_fold(live, |value, name| value.get(*name)));
    if spec.is_some_and(|spec| spec["serviceAccountName"] == DEFAULT_ACCOUNT) {
        return gone;
    }
    let [name, alias] = ["serviceAccountName", "serviceAccount"].map(|name| Element::Field(name.to_owned()));
    let below = path.iter().try_fold(&mut gone, |set, name| set.children.get_mut(&Element::Field((*name).to_owned())));
    if let Some(fields) = below.map(|set| &mut set.children)
        && (fields.contains_key(&name) || fields.contains_key(&alias))
    {
        fields.insert(name, FieldSet::leaf());
        fields.insert(alias, FieldSet::leaf());
    }
    gone
}

/// What can be written through a subresource, as it is kept.
pub(super) fn written(kind: Kind, applied: Value, subresource: &str) -> Value {
    let applied = within(kind, applied, subresource);
    if kind == Kind::Secret { string_data_is_data(applied) } else { applied }
}

/// Of the status nothing else, of the object no status.
fn within(kind: Kind, mut applied: Value, subresource: &str) -> Value {
    if let Some(fields) = applied.as_object_mut().filter(|_| kind.info().has_status) {
        match subresource {
            "status" => fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "status")),
            _ => fields.retain(|name, _| name != "status"),
        }
    }
    applied
}

/// A Secret keeps what `stringData` says in `data`: who says the one owns the other.
pub fn string_data_is_data(mut secret: Value) -> Value {
    let plain = secret.as_object_mut().and_then(|fields| fields.remove("stringData"));
    let Some(Value::Object(plain)) = plain.filter(|plain| plain.as_object().is_some_and(|plain| !plain.is_empty())) else { return secret };
    if !secret["data"].is_object() {
        secret["data"] = Value::Object(Map::new());
    }
    for (name, value) in plain {
        if let Some(text) = value.as_str() {
            secret["data"][name] = Value::from(STANDARD.encode(text));
        }
    }
    secret
}

fn conflicts(owners: &ManagedFields, applier: &Applier<'_>, changes: &Changes<'_>) -> Vec<Conflict> {
    let mut found = Vec::new();
    for owner in owners.owners.iter().filter(|owner| !applier.is(owner)) {
        let paths = owner.fields.intersection(&changes.of(owner)).paths();
        found.extend(paths.into_iter().map(|path| Conflict {
            manager: owner.manager.clone(),
            subresource: owner.subresource.clone(),
            version: (owner.operation == Operation::Update).then(|| owner.api_version.clone()),
            path,
        }));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Everybody but one gives up these fields.
fn take(owners: &mut ManagedFields, is_spared: impl Fn(&Owner) -> bool, changes: &Changes<'_>) {
    for owner in owners.owners.iter_mut().filter(|owner| !is_spared(owner)) {
        owner.fields = owner.fields.difference(&changes.of(owner));
    }
    owners.owners.retain(|owner| !owner.fields.is_empty());
}

/// What a plain write (create, update, patch) makes of ownership: the writer owns what it changed
/// or added, everybody else gives that up, and nobody owns what is gone.
pub fn update<'s>(
    shapes: impl Into<Shapes<'s>>,
    before: Option<&Value>,
    after: &Value,
    managed: &ManagedFields,
    manager: &str,
    subresource: &str,
) -> ManagedFields {
    let nothing = Value::Object(Map::new());
    let (shapes, before) = (shapes.into(), before.unwrap_or(&nothing));
    let (changing, gone) = compare(shapes, before, after);
    let mut owners = managed.clone();
    if changing.is_empty() && gone.is_empty() {
        return owners;
    }
    let mut mine = Owner {
        manager: manager.to_owned(),
        operation: Operation::Update,
        api_version: shapes.kind.api_version(),
        subresource: subresource.to_owned(),
        time: None,
        fields: FieldSet::default(),
    };
    let owned = owners.find(&mine).map(|index| owners.owners[index].fields.clone()).unwrap_or_default();
    take(&mut owners, |_| false, &Changes::new(shapes.kind, before, after, &changing.union(&gone)));
    mine.fields = owned.difference(&gone).union(&changing);
    owners.set(mine);
    owners
}
