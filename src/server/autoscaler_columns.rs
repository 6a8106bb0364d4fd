//! A HorizontalPodAutoscaler as `kubectl get hpa` shows it. PURE.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use serde_json::Value;

/// Metrics that are shown; of the others their number.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub fn cells(it: &HorizontalPodAutoscaler, name: Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&it.spec, it.status.as_ref());
    let reference = format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name);
    let fewest = spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |count| count.to_string());
    let measured = status.and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
    let targets = targets(spec.metrics.as_deref().unwrap_or_default(), measured);
    let current = status.and_then(|status| status.current_replicas).unwrap_or(0);
    vec![name, reference.into(), targets.into(), fewest.into(), spec.max_replicas.into(), current.into(), age]
}

/// `cpu: 12%/80%, memory: 5Mi/10Mi + 1 more...`: what is, and what is wanted.
fn targets(wanted: &[MetricSpec], measured: &[MetricStatus]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = wanted.iter().enumerate().take(SHOWN).map(|(index, spec)| target(spec, measured.get(index))).collect();
    let more = if wanted.len() > SHOWN { format!(" + {} more...", wanted.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn target(wanted: &MetricSpec, measured: Option<&MetricStatus>) -> String {
    if let Some(it) = &wanted.resource {
        let current = measured.and_then(|status| status.resource.as_ref()).map(|status| &status.current);
        share(&it.name, &it.target, current)
    } else if let Some(it) = &wanted.container_resource {
        let current = measured.and_then(|status| status.container_resource.as_ref()).map(|status| &status.current);
        share(&it.name, &it.target, current)
    } else {
        "<unknown type>".to_owned()
    }
}

fn share(name: &str, wanted: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    let (current, wanted) = match &wanted.average_value {
        Some(amount) => (current.and_then(|it| it.average_value.as_ref()).map(|it| it.0.clone()), amount.0.clone()),
        None => (
            current.and_then(|it| it.average_utilization).map(|percent| format!("{percent}%")),
            wanted.average_utilization.map_or_else(|| "<auto>".to_owned(), |percent| format!("{percent}%")),
        ),
    };
    format!("{name}: {}/{wanted}", current.unwrap_or_else(|| UNKNOWN.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn targets_are_shown_as_kubectl_shows_them() {
        let resource = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        let share = resource("cpu", json!({"type": "Utilization", "averageUtilization": 80}));
        let amount = resource("memory", json!({"type": "AverageValue", "averageValue": "10Mi"}));
        let of = |name: &str, current: Value| json!({"type": "Resource", "resource": {"name": name, "current": current}});
        let (used, taken) =
            (of("cpu", json!({"averageUtilization": 12, "averageValue": "6m"})), of("memory", json!({"averageValue": "5Mi"})));
        for (wanted, measured, shown) in [
            (json!([]), json!([]), "<none>"),
            (json!([share]), json!([]), "cpu: <unknown>/80%"),
            (json!([share]), json!([used]), "cpu: 12%/80%"),
            (json!([share, amount]), json!([{"type": "Resource"}, taken]), "cpu: <unknown>/80%, memory: 5Mi/10Mi"),
            (json!([amount, share, share, share]), json!([taken, used]), "memory: 5Mi/10Mi, cpu: 12%/80% + 2 more..."),
        ] {
            let (wanted, measured): (Vec<MetricSpec>, Vec<MetricStatus>) = (from_value(wanted).unwrap(), from_value(measured).unwrap());
            assert_eq!(targets(&wanted, &measured), shown);
        }
    }
}
