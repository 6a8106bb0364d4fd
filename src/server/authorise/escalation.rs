//! Nobody gives away more than they have: who writes roles and bindings may grant only what they hold, unless they
//! may `escalate` roles or `bind` them. PURE.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};

use super::rbac;
use crate::model::rights::{self, ALL, Act, On};
use crate::model::{Key, Kind, Object, RBAC, Typed};
use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

/// Whether somebody may write this role or binding; anything else is not looked at.
///
/// # Errors
/// The sentence for a 403.
pub fn check(identity: &Identity, current: Option<&Object>, wanted: &Object, state: &Snapshot) -> Result<(), String> {
    let key = wanted.key();
    // A role with another label may be gathered into other roles: it grants anew.
    let same_labels = current.is_some_and(|current| current.labels() == wanted.labels());
    match (wanted.typed(), current.map(Object::typed)) {
        (Typed::ClusterRole(new), Some(Typed::ClusterRole(old)))
            if new.rules == old.rules && new.aggregation_rule == old.aggregation_rule && same_labels =>
        {
            Ok(())
        }
        (Typed::ClusterRole(new), old) => {
            let everything = [whole(true), whole(false)];
            let rules = new.rules.as_deref().unwrap_or_default();
            let gathered = matches!(old, Some(Typed::ClusterRole(old)) if old.aggregation_rule.is_some());
            let granted: Vec<PolicyRule> = if gathered || new.aggregation_rule.is_some() { everything.into() } else { rules.to_vec() };
            may_grant(identity, key, Right { verb: "escalate", kind: Kind::ClusterRole, name: &key.name }, &granted, state)
        }
        (Typed::Role(new), Some(Typed::Role(old))) if new.rules == old.rules => Ok(()),
        (Typed::Role(new), _) => {
            let rules = new.rules.as_deref().unwrap_or_default();
            may_grant(identity, key, Right { verb: "escalate", kind: Kind::Role, name: &key.name }, rules, state)
        }
        (Typed::ClusterRoleBinding(new), Some(Typed::ClusterRoleBinding(old)))
            if new.subjects == old.subjects && new.role_ref == old.role_ref =>
        {
            Ok(())
        }
        (Typed::ClusterRoleBinding(new), _) => may_bind(identity, key, &new.role_ref, state),
        (Typed::RoleBinding(new), Some(Typed::RoleBinding(old))) if new.subjects == old.subjects && new.role_ref == old.role_ref => Ok(()),
        (Typed::RoleBinding(new), _) => may_bind(identity, key, &new.role_ref, state),
        _ => Ok(()),
    }
}

/// A verb by which the check is passed without holding anything.
struct Right<'a> {
    verb: &'a str,
    kind: Kind,
    name: &'a str,
}

fn whole(paths: bool) -> PolicyRule {
    let all = || vec![ALL.to_owned()];
    if paths {
        return PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() };
    }
    PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() }
}

fn may_bind(identity: &Identity, key: &Key, role: &RoleRef, state: &Snapshot) -> Result<(), String> {
    let kind = if role.kind == "Role" { Kind::Role } else { Kind::ClusterRole };
    let right = Right { verb: "bind", kind, name: &role.name };
    match rbac::rules(role, &key.namespace, state) {
        Some(rules) => may_grant(identity, key, right, rules, state),
        None => may_grant(identity, key, right, &[whole(true), whole(false)], state)
            .map_err(|_| format!("{} \"{}\" not found", kind.qualified(), role.name)),
    }
}

fn may_grant(identity: &Identity, key: &Key, right: Right<'_>, granted: &[PolicyRule], state: &Snapshot) -> Result<(), String> {
    let resource = right.kind.info().plural;
    let on = On::Resource { group: RBAC, resource, subresource: "", namespace: &key.namespace, name: right.name };
    if rbac::authorise(identity, &Act { verb: right.verb, on }, state).is_ok() {
        return Ok(());
    }
    let place = format!("{} \"{}\" is forbidden", key.kind.qualified(), key.name);
    let held = rbac::held(identity, &key.namespace, state);
    let missing = rights::missing(&held.rules, granted).map_err(|why| format!("{place}: {why}"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = identity.groups.iter().map(|group| format!("{group:?}")).collect();
    let (user, groups, missing) = (&identity.user, groups.join(" "), missing.join("\n"));
    Err(format!("{place}: user {user:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{missing}"))
}
