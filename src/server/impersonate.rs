//! Acting as somebody else (`kubectl --as`): whoever has the right to is that user until the request is answered. PURE.
//!
//! The headers are Kubernetes' own: `Impersonate-User`, `-Group` and `-Uid`, and `Impersonate-Extra-KEY`.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::authorise::rbac;
use super::fault::Fault;
use super::identity::{ANONYMOUS, Identity, UNAUTHENTICATED, account_groups, account_of};
use super::request::unescape;
use crate::model::rights::{Act, On};
use crate::store::Snapshot;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The identity a request is to have; `None` where it asks for no other.
///
/// # Errors
/// 403 for whoever may not, 400 for headers that say too little.
pub fn impersonated(identity: &Identity, headers: &HeaderMap, state: &Snapshot) -> Result<Option<Identity>, Fault> {
    let Some(wanted) = read(headers)? else { return Ok(None) };
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let on = On::Resource { group, resource, subresource, namespace, name };
        rbac::authorise(identity, &Act { verb: "impersonate", on }, state).map_err(Fault::forbidden)
    };
    match account_of(&wanted.user) {
        Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
        None => may("", "users", "", "", &wanted.user)?,
    }
    for group in &wanted.groups {
        may("", "groups", "", "", group)?;
    }
    if let Some(uid) = &wanted.uid {
        may(AUTHENTICATION, "uids", "", "", uid)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may(AUTHENTICATION, "userextras", key, "", value)?;
        }
    }
    Ok(Some(complete(wanted)))
}

fn read(headers: &HeaderMap) -> Result<Option<Identity>, Fault> {
    let text =
        |value: &http::HeaderValue| value.to_str().map(str::to_owned).map_err(|_| Fault::bad_request("an impersonation header is no text"));
    let all = |name: &str| headers.get_all(name).iter().map(text).collect::<Result<Vec<_>, _>>();
    let user = all(USER)?.pop().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA).and_then(unescape) {
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    let wanted = Identity { user, groups: all(GROUP)?, uid: all(UID)?.pop(), extra };
    match (wanted.user.is_empty(), wanted == Identity::default()) {
        (true, true) => Ok(None),
        (true, false) => Err(Fault::bad_request("groups, uid or extra are impersonated only together with a user: Impersonate-User")),
        (false, _) => Ok(Some(wanted)),
    }
}

/// With the groups that the user has by being who it is.
fn complete(mut wanted: Identity) -> Identity {
    if let Some((namespace, _)) = account_of(&wanted.user)
        && wanted.groups.is_empty()
    {
        wanted.groups = account_groups(namespace);
    }
    if wanted.user == ANONYMOUS && !wanted.is_in(UNAUTHENTICATED) {
        wanted.groups.push(UNAUTHENTICATED.to_owned());
    }
    wanted.authenticated()
}
