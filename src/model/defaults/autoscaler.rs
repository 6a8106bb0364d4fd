//! HorizontalPodAutoscaler: the numbers of Kubernetes' API reference (`autoscaling/v2`). PURE.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget, ResourceMetricSource,
};

/// The share of the requested CPU that pods are to use where nothing else is said.
const CPU_PERCENT: i32 = 80;
/// The window of every policy that is not written.
const PERIOD_SECONDS: i32 = 15;

pub(super) fn autoscaler(it: &mut HorizontalPodAutoscaler) {
    let spec = &mut it.spec;
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
        spec.metrics = Some(vec![cpu()]);
    }
    // A behaviour that is not there at all stays so, as in Kubernetes: a few pods then grow by less at first.
    if let Some(behavior) = &mut spec.behavior {
        behavior.scale_up = Some(scale_up(behavior.scale_up.take()));
        behavior.scale_down = Some(scale_down(behavior.scale_down.take()));
    }
}

fn cpu() -> MetricSpec {
    let target = MetricTarget { type_: "Utilization".to_owned(), average_utilization: Some(CPU_PERCENT), ..MetricTarget::default() };
    let resource = ResourceMetricSource { name: "cpu".to_owned(), target };
    MetricSpec { type_: "Resource".to_owned(), resource: Some(resource), ..MetricSpec::default() }
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: PERIOD_SECONDS }
}

/// How fast pods are added: at once, and in each period four of them or as many as there are, whichever is more.
pub fn scale_up(said: Option<HPAScalingRules>) -> HPAScalingRules {
    let mut rules = said.unwrap_or_default();
    rules.stabilization_window_seconds.get_or_insert(0);
    filled(rules, || vec![policy("Pods", 4), policy("Percent", 100)])
}

/// How fast pods are taken away: all of them in a period. The window of 300 s is the controller's own default and is not
/// written into the object.
pub fn scale_down(said: Option<HPAScalingRules>) -> HPAScalingRules {
    filled(said.unwrap_or_default(), || vec![policy("Percent", 100)])
}

fn filled(mut rules: HPAScalingRules, policies: impl FnOnce() -> Vec<HPAScalingPolicy>) -> HPAScalingRules {
    super::text(&mut rules.select_policy, "Max");
    // A list that is written and empty is an error, which validation tells.
    rules.policies.get_or_insert_with(policies);
    rules
}
