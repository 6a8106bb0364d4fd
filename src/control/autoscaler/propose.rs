//! How many pods a metric calls for. PURE.
//!
//! Kubernetes' arithmetic (documentation, "Horizontal Pod Autoscaling", algorithm details): as many pods as bring the
//! average to its target. Pods of which nothing is known yet never carry the decision further: what is missing counts
//! as idle where more pods are called for, and as just as busy as wanted where fewer are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, ToSpan};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;

use crate::model::quantity::Quantity;
use crate::model::usage::{Amounts, PodUsage};
use crate::model::{Object, Timestamp, pod};

/// A container's start is not its load: for so long a pod's CPU counts only in a window that began after it got ready
/// (kube-controller-manager, `--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION_SECONDS: i64 = 300;
/// Who was ready first after this time had been ready before (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY_SECONDS: i64 = 30;

/// One metric of the object.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    resource: &'a str,
    /// Of which container alone.
    container: Option<&'a str>,
    target: Target,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    /// Of what is requested.
    Percent(i64),
    /// A pod, in thousandths.
    Amount(i128),
}

/// How far from its target an average may be without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The pods, and what is known of their use.
pub struct Pods<'a> {
    pub all: &'a [Object],
    pub usage: &'a BTreeMap<String, PodUsage>,
}

/// What one metric says.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    pub status: MetricStatus,
}

/// What a pod uses and asks for, in thousandths of a core or byte.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    used: i128,
    requested: i128,
}

/// The pods that count, by what is known of them.
#[derive(Debug, Default)]
struct Tally {
    measured: Vec<Share>,
    missing: Vec<i128>,
    unready: Vec<i128>,
}

impl<'a> Metric<'a> {
    /// Reads a metric; `None` for a type that is not served (and is refused when it is written).
    pub fn of(spec: &'a MetricSpec) -> Option<Self> {
        let (resource, container, target) = match (&spec.resource, &spec.container_resource) {
            (Some(it), _) => (&it.name, None, &it.target),
            (None, Some(it)) => (&it.name, Some(it.container.as_str()), &it.target),
            (None, None) => return None,
        };
        Some(Self { resource, container, target: Target::of(target)? })
    }

    /// Code of the condition and the event where it cannot be told.
    pub fn failure(self) -> &'static str {
        if self.container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" }
    }

    /// `cpu resource utilization (percentage of request)`, as in Kubernetes' events.
    pub fn name(self) -> String {
        let source = if self.container.is_some() { "container resource" } else { "resource" };
        let share = if matches!(self.target, Target::Percent(_)) { " utilization (percentage of request)" } else { "" };
        format!("{} {source}{share}", self.resource)
    }

    /// The size that brings the average of these pods to the target.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn propose(self, pods: &Pods<'_>, current: i32, tolerance: Tolerance, now: Timestamp) -> Result<Proposal, String> {
        let tally = self.tally(pods, now)?;
        if tally.measured.is_empty() {
            return Err(format!("no pod of it has figures of {} yet: none is ready, or their nodes do not answer", self.resource));
        }
        let ratio = self.target.ratio(&tally.measured).ok_or_else(|| format!("its pods request no {}", self.resource))?;
        let status = self.status(&tally.measured);
        Ok(Proposal { replicas: self.replicas(&tally, ratio, current, tolerance), status })
    }

    fn replicas(self, tally: &Tally, ratio: f64, current: i32, tolerance: Tolerance) -> i32 {
        let up_with_unready = ratio > 1.0 && !tally.unready.is_empty();
        if tally.missing.is_empty() && !up_with_unready {
            return if tolerance.covers(ratio) { current } else { times(ratio, tally.measured.len()) };
        }
        let idle = |requested: &i128| Share { used: 0, requested: *requested };
        let mut shares = tally.measured.clone();
        if ratio < 1.0 {
            shares.extend(tally.missing.iter().map(|requested| Share { used: self.target.busy(*requested), requested: *requested }));
        } else if ratio > 1.0 {
            shares.extend(tally.missing.iter().map(idle));
        }
        if up_with_unready {
            shares.extend(tally.unready.iter().map(idle));
        }
        let careful = self.target.ratio(&shares).unwrap_or(1.0);
        let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
        if turned || tolerance.covers(careful) {
            return current;
        }
        let wanted = times(careful, shares.len());
        // As many pods as were counted are not as many as there shall be: the direction has to fit.
        if (careful < 1.0 && wanted > current) || (careful > 1.0 && wanted < current) { current } else { wanted }
    }

    fn tally(self, pods: &Pods<'_>, now: Timestamp) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for object in pods.all {
            let Some(it) = object.get::<Pod>().filter(|it| pod::is_active(it)) else { continue };
            let requested = self.requested(it)?;
            let usage = pods.usage.get(object.uid());
            match usage.and_then(|usage| self.used(it, usage)).zip(usage) {
                _ if pod::phase(it) == "Pending" => tally.unready.push(requested),
                None => tally.missing.push(requested),
                Some((_, usage)) if self.resource == "cpu" && is_starting(it, usage, now) => tally.unready.push(requested),
                Some((used, _)) => tally.measured.push(Share { used, requested }),
            }
        }
        Ok(tally)
    }

    /// What a pod uses, where all of its containers are measured.
    fn used(self, it: &Pod, usage: &PodUsage) -> Option<i128> {
        let amount = |amounts: &Amounts| match self.resource {
            "cpu" => i128::from(amounts.cpu_nanos.div_ceil(1_000_000)),
            _ => i128::from(amounts.memory_bytes) * 1000,
        };
        if let Some(name) = self.container {
            return usage.containers.get(name).map(amount);
        }
        let whole = it.spec.as_ref()?.containers.iter().all(|container| usage.containers.contains_key(&container.name));
        whole.then(|| usage.containers.values().map(amount).sum())
    }

    /// What a pod asks for. Only a share of it needs to know.
    fn requested(self, it: &Pod) -> Result<i128, String> {
        if matches!(self.target, Target::Amount(_)) {
            return Ok(0);
        }
        let Some(spec) = &it.spec else { return Ok(0) };
        let name = it.metadata.name.as_deref().unwrap_or_default();
        let thousandths = |amount: &Quantity| i128::from(amount.millis());
        let of_pod = pod::container_requests(spec.resources.as_ref());
        if let Some(amount) = of_pod.get(self.resource).filter(|_| self.container.is_none()) {
            return Ok(thousandths(amount));
        }
        let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
        let lasting = spec.containers.iter().chain(sidecars);
        let mut sum = None;
        for container in lasting.filter(|container| self.container.is_none_or(|wanted| container.name == wanted)) {
            let requests = pod::container_requests(container.resources.as_ref());
            let amount = requests.get(self.resource);
            let amount = amount.ok_or_else(|| format!("container {} of pod {name} requests no {}", container.name, self.resource))?;
            sum = Some(sum.unwrap_or(0) + thousandths(amount));
        }
        sum.ok_or_else(|| format!("pod {name} has no container {}", self.container.unwrap_or_default()))
    }

    fn status(self, shares: &[Share]) -> MetricStatus {
        let count = i128::try_from(shares.len()).unwrap_or(1).max(1);
        let average = shares.iter().map(|share| share.used).sum::<i128>() / count;
        let amount = Quantity::from_millis(i64::try_from(average).unwrap_or(i64::MAX));
        let percent = match self.target {
            Target::Percent(_) => percent(shares).map(|percent| i32::try_from(percent).unwrap_or(i32::MAX)),
            Target::Amount(_) => None,
        };
        let current = MetricValueStatus { average_utilization: percent, average_value: Some(amount.to_api()), value: None };
        let name = self.resource.to_owned();
        match self.container {
            None => MetricStatus {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricStatus { name, current }),
                ..MetricStatus::default()
            },
            Some(container) => MetricStatus {
                type_: "ContainerResource".to_owned(),
                container_resource: Some(ContainerResourceMetricStatus { container: container.to_owned(), name, current }),
                ..MetricStatus::default()
            },
        }
    }
}

impl Target {
    fn of(target: &MetricTarget) -> Option<Self> {
        match (&target.average_value, target.average_utilization) {
            (Some(amount), _) => Some(Self::Amount(i128::from(Quantity::of(amount).millis()).max(1))),
            (None, Some(percent)) => Some(Self::Percent(i64::from(percent).max(1))),
            (None, None) => None,
        }
    }

    /// The average as a multiple of the target; `None` where a share is wanted of nothing.
    #[allow(clippy::cast_precision_loss)] // a ratio needs no more than 53 bits
    fn ratio(self, shares: &[Share]) -> Option<f64> {
        match self {
            Self::Percent(wanted) => Some(percent(shares)? as f64 / wanted as f64),
            Self::Amount(wanted) => {
                let count = i128::try_from(shares.len()).ok().filter(|count| *count > 0)?;
                let average = shares.iter().map(|share| share.used).sum::<i128>() / count;
                Some(average as f64 / wanted as f64)
            }
        }
    }

    /// What a pod that is not known is taken to use, where fewer pods are called for.
    fn busy(self, requested: i128) -> i128 {
        match self {
            Self::Percent(wanted) => requested * i128::from(wanted.max(100)) / 100,
            Self::Amount(wanted) => wanted,
        }
    }
}

/// What is used of what is requested, in whole percent.
fn percent(shares: &[Share]) -> Option<i128> {
    let requested: i128 = shares.iter().map(|share| share.requested).sum();
    let used: i128 = shares.iter().map(|share| share.used).sum();
    (requested > 0).then(|| used * 100 / requested)
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a float that is too large becomes the largest number
fn times(ratio: f64, count: usize) -> i32 {
    (ratio * count as f64).ceil() as i32
}

/// Whether a pod's CPU is that of its start: it is not ready for the first time yet, or got so within the window.
fn is_starting(it: &Pod, usage: &PodUsage, now: Timestamp) -> bool {
    let started = it.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(ready), Some(started)) = (pod::condition(it, "Ready"), started) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(started, |time| time.0);
    let after = |seconds: i64| started.checked_add(seconds.seconds()).unwrap_or(started);
    if after(CPU_INITIALIZATION_SECONDS) > now {
        let window = SignedDuration::try_from(usage.window).unwrap_or(SignedDuration::MAX);
        let counts_from = changed.checked_add(window).unwrap_or(changed);
        ready.status == "False" || usage.at < counts_from
    } else {
        ready.status == "False" && after(READINESS_DELAY_SECONDS) > changed
    }
}
