//! What the subresources of a CertificateSigningRequest may change: who signs does not approve, who approves does not sign,
//! and what was decided or issued stays. PURE.

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use crate::model::rule::{Errors, Path};

const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

/// `decides`: by `approval`, else by `status`.
pub(super) fn part(decides: bool, new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut Errors) {
    let status = Path::root("status");
    if let Some(issued) = issued(old)
        && self::issued(new) != Some(issued)
    {
        errors.forbidden(&status.child("certificate"), "updates may not change or clear a certificate that was issued");
    }
    let path = status.child("conditions");
    for type_ in LASTING {
        let (before, after) = (of(old, type_), of(new, type_));
        if after.len() < before.len() {
            errors.forbidden(&path, &format!("updates may not remove a condition of type \"{type_}\""));
        } else if !decides && DECISIONS.contains(&type_) && after != before {
            let what = if after.len() > before.len() { "add" } else { "modify" };
            errors.forbidden(&path, &format!("updates may not {what} a condition of type \"{type_}\""));
        }
    }
}

fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

fn of<'a>(request: &'a CertificateSigningRequest, type_: &str) -> Vec<&'a CertificateSigningRequestCondition> {
    let all = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.filter(|condition| condition.type_ == type_).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(status: Value) -> CertificateSigningRequest {
        let spec = json!({"request": "", "signerName": "a/b", "usages": []});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec, "status": status})).expect("a request")
    }

    fn said(decides: bool, old: &Value, new: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        part(decides, &request(new.clone()), &request(old.clone()), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_part_changes_what_is_its_own() {
        let none = json!({});
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let other = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Because"}]});
        let issued = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "YQ=="});
        let forged = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "Yg=="});
        let failed = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        for (decides, old, new, wanted) in [
            (true, &none, &approved, ""),
            (false, &none, &approved, "may not add a condition of type \"Approved\""),
            (true, &approved, &none, "may not remove a condition of type \"Approved\""),
            (false, &approved, &other, "may not modify a condition of type \"Approved\""),
            (false, &approved, &issued, ""),
            (false, &issued, &approved, "may not change or clear a certificate"),
            (false, &issued, &forged, "may not change or clear a certificate"),
            (true, &issued, &none, "may not change or clear a certificate"),
            (false, &none, &failed, ""),
            (false, &failed, &none, "may not remove a condition of type \"Failed\""),
        ] {
            let said = said(decides, old, new);
            let good = if wanted.is_empty() { said.is_empty() } else { said.iter().any(|text| text.contains(wanted)) };
            assert!(good, "{decides} {old} {new}: {said:?}");
        }
    }
}
