//! Who may decide about requests for certificates: a verb on the signer that they name, or on all of its domain. PURE.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::rbac;
use crate::model::Object;
use crate::model::rights::{Act, On};

use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

/// Whether somebody may `approve` (or deny) this request, or `sign` it; anything else is not looked at.
///
/// # Errors
/// The sentence for a 403.
pub fn check(verb: &str, identity: &Identity, object: &Object, state: &Snapshot) -> Result<(), String> {
    let Some(request) = object.get::<CertificateSigningRequest>() else { return Ok(()) };
    let signer = request.spec.signer_name.as_str();
    let all = signer.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
    let may = |name: &str| {
        let on = On::Resource { group: object.kind().info().group, resource: "signers", subresource: "", namespace: "", name };
        rbac::authorise(identity, &Act { verb, on }, state).is_ok()
    };
    if may(signer) || may(&all) {
        return Ok(());
    }
    let (kind, name) = (object.kind().qualified(), &object.key().name);
    Err(format!("{kind} \"{name}\" is forbidden: user not permitted to {verb} requests with signerName \"{signer}\""))
}
