//! Roles and their bindings: what everybody but admins and nodes may do. PURE.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use crate::model::rights::{self, Act, On};
use crate::model::{Kind, RBAC};
use crate::server::identity::{Identity, account_of};
use crate::store::snapshot::Snapshot;

/// The rules that hold for somebody, and the roles that are bound and not there.
#[derive(Default)]
pub struct Held<'a> {
    pub rules: Vec<&'a PolicyRule>,
    pub unknown: Vec<String>,
}

/// Everything that is bound to somebody in a namespace; empty: in the whole cluster.
pub fn held<'a>(identity: &Identity, namespace: &str, state: &'a Snapshot) -> Held<'a> {
    let mut held = Held::default();
    let for_all = state.list(Kind::ClusterRoleBinding).filter_map(|object| object.get::<ClusterRoleBinding>());
    for binding in for_all.filter(|binding| is_subject(binding.subjects.as_ref(), identity, "")) {
        held.take(&binding.role_ref, "", state);
    }
    if !namespace.is_empty() {
        let here = state.list_in(Kind::RoleBinding, namespace).filter_map(|object| object.get::<RoleBinding>());
        for binding in here.filter(|binding| is_subject(binding.subjects.as_ref(), identity, namespace)) {
            held.take(&binding.role_ref, namespace, state);
        }
    }
    held
}

impl<'a> Held<'a> {
    fn take(&mut self, role: &RoleRef, namespace: &str, state: &'a Snapshot) {
        match rules(role, namespace, state) {
            Some(rules) => self.rules.extend(rules),
            None => self.unknown.push(format!("{}.{RBAC} {:?} not found", role.kind.to_lowercase(), role.name)),
        }
    }
}

/// The rules of the role that a binding of this namespace names; `None` where there is no such role.
pub fn rules<'a>(role: &RoleRef, namespace: &str, state: &'a Snapshot) -> Option<&'a [PolicyRule]> {
    let rules = match role.kind.as_str() {
        "ClusterRole" => &state.find(Kind::ClusterRole, "", &role.name)?.get::<ClusterRole>()?.rules,
        "Role" => &state.find(Kind::Role, namespace, &role.name)?.get::<Role>()?.rules,
        _ => return None,
    };
    Some(rules.as_deref().unwrap_or_default())
}

fn is_subject(subjects: Option<&Vec<Subject>>, identity: &Identity, namespace: &str) -> bool {
    subjects.into_iter().flatten().any(|subject| match subject.kind.as_str() {
        "User" => subject.name == identity.user,
        "Group" => identity.is_in(&subject.name),
        "ServiceAccount" => {
            let home = subject.namespace.as_deref().filter(|home| !home.is_empty()).unwrap_or(namespace);
            account_of(&identity.user) == Some((home, subject.name.as_str()))
        }
        _ => false,
    })
}

/// Whether somebody may do this.
///
/// # Errors
/// The sentence for a 403, as Kubernetes words it.
pub fn authorise(identity: &Identity, act: &Act<'_>, state: &Snapshot) -> Result<(), String> {
    judge(identity, act, state).map_err(|unknown| {
        let refusal = refusal(identity, act);
        if unknown.is_empty() { refusal } else { format!("{refusal}: {unknown}") }
    })
}

/// The same, and beside a "no" only which roles are bound and not there.
///
/// # Errors
/// The "no".
pub fn judge(identity: &Identity, act: &Act<'_>, state: &Snapshot) -> Result<(), String> {
    if identity.is_admin() {
        return Ok(());
    }
    let namespace = match act.on {
        On::Resource { namespace, .. } => namespace,
        On::Path(_) => "",
    };
    let held = held(identity, namespace, state);
    if held.rules.iter().any(|rule| rights::allows(rule, act)) {
        return Ok(());
    }
    Err(match held.unknown.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    })
}

fn refusal(identity: &Identity, act: &Act<'_>) -> String {
    let (user, verb) = (&identity.user, act.verb);
    match act.on {
        On::Path(path) => format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\""),
        On::Resource { group, resource, subresource, namespace, name } => {
            let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let subject = if name.is_empty() { qualified } else { format!("{qualified} \"{name}\"") };
            let resource = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            let place = if namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace \"{namespace}\"") };
            format!("{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}")
        }
    }
}
