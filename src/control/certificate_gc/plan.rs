//! How long a request for a certificate is kept: Kubernetes' times.

use jiff::ToSpan;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::model::{Object, Timestamp};
use crate::plan::{Op, Plan};

/// After it was approved or denied, or failed: who asked has had the time to fetch what there is.
const DECIDED_SECONDS: i64 = 3600;
/// After it was made, where nobody decides.
const PENDING_SECONDS: i64 = 24 * 3600;

pub fn plan(object: &Object, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(request) = object.get::<CertificateSigningRequest>().filter(|_| !object.is_deleting()) else { return plan };
    let after = |time: Timestamp, seconds: i64| time.checked_add(seconds.seconds()).unwrap_or(Timestamp::MAX);
    let created = object.meta().creation_timestamp.as_ref().map_or(now, |time| time.0);
    let undecided_until = after(created, PENDING_SECONDS);
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let decided = conditions.filter(|it| matches!(it.type_.as_str(), "Approved" | "Denied" | "Failed")).map(|it| {
        let said = it.last_update_time.as_ref().or(it.last_transition_time.as_ref());
        // By the clock of who decided: within the time in which there was something to decide.
        said.map_or(created, |time| time.0).clamp(created, undecided_until)
    });
    let until = decided.max().map_or(undecided_until, |time| after(time, DECIDED_SECONDS));
    if until > now {
        plan.look_again(until);
    } else {
        plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Kind;

    #[test]
    fn requests_go_when_nobody_needs_them() {
        let until = |conditions: Value| {
            let value = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "a/b"}, "status": {"conditions": conditions}});
            let object = Object::from_value(Kind::CertificateSigningRequest, value).unwrap();
            let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            let until = plan(&object, begin).again_at.unwrap();
            assert_eq!(plan(&object, until).ops.iter().map(ToString::to_string).collect::<Vec<_>>(), ["- CertificateSigningRequest a"]);
            assert!(plan(&object, until.checked_sub(1.seconds()).unwrap()).ops.is_empty());
            until.to_string()
        };
        let said = |type_: &str, at: &str| json!({"type": type_, "status": "True", "lastUpdateTime": format!("2026-01-{at}:00Z")});
        assert_eq!(until(json!([])), "2026-01-02T00:00:00Z");
        assert_eq!(until(json!([{"type": "Approved", "status": "True"}])), "2026-01-01T01:00:00Z");
        for type_ in ["Approved", "Denied", "Failed"] {
            assert_eq!(until(json!([said(type_, "01T20:30")])), "2026-01-01T21:30:00Z", "{type_}");
        }
        assert_eq!(until(json!([said("Approved", "01T00:10"), said("Failed", "01T00:20")])), "2026-01-01T01:20:00Z");
        assert_eq!(until(json!([said("Approved", "09T00:00")])), "2026-01-02T01:00:00Z", "a clock that is wrong");
    }
}
