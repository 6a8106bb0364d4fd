//! How fast a size may follow what is called for: windows of stabilisation, and policies. PURE.
//!
//! What was called for and done before is remembered by the controller alone, as in Kubernetes: after a restart the
//! current size is all that was ever called for. It is kept by a steady clock (`now` here): who sets the host's clock
//! neither makes it forget nor holds a size in place.

use jiff::ToSpan;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::propose::Tolerance;
use crate::model::quantity::Quantity;
use crate::model::{Timestamp, defaults};

/// kube-controller-manager's `--horizontal-pod-autoscaler-downscale-stabilization`.
const SCALE_DOWN_WINDOW_SECONDS: i32 = 300;
/// kube-controller-manager's `--horizontal-pod-autoscaler-tolerance`, in billionths.
const TOLERANCE_NANOS: i128 = 100_000_000;
/// Without a `behavior` it is twice as many or so many in all, whichever is more (kube-controller-manager's
/// `scaleUpLimitFactor` and `scaleUpLimitMinimum`): for fewer than four less than the default of `behavior`, four more.
const GROWS_AT_ONCE_TO: i32 = 4;

/// What was called for, and what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    /// By how much the size was changed.
    changes: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// The first look at a target: its size is what was called for before.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Remembers what is called for now, and forgets what no window reaches any more.
    pub fn recommend(&mut self, replicas: i32, pace: &Pace, now: Timestamp) {
        let longest = pace.up.window_seconds.max(pace.down.window_seconds);
        self.recommendations.retain(|(at, _)| is_within(*at, longest, now));
        self.recommendations.push((now, replicas));
    }

    /// Remembers a change that is about to be made.
    pub fn change(&mut self, by: i32, pace: &Pace, now: Timestamp) {
        let periods = pace.up.policies.iter().chain(&pace.down.policies).map(|policy| policy.period_seconds);
        let longest = periods.max().unwrap_or(0);
        self.changes.retain(|(at, _)| is_within(*at, longest, now));
        self.changes.push((now, by));
    }

    /// How many there were when this period began.
    fn at_start(&self, period_seconds: i32, current: i32, now: Timestamp) -> i64 {
        let changes = self.changes.iter().filter(|(at, _)| is_within(*at, period_seconds, now));
        i64::from(current) - changes.map(|(_, by)| i64::from(*by)).sum::<i64>()
    }
}

fn is_within(at: Timestamp, seconds: i32, now: Timestamp) -> bool {
    now.checked_sub(seconds.seconds()).is_ok_and(|cutoff| at > cutoff)
}

/// `spec.behavior`, with what it means where it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    up: Rules,
    down: Rules,
}

#[derive(Clone, Debug, PartialEq)]
struct Rules {
    window_seconds: i32,
    select: Select,
    policies: Vec<Policy>,
    tolerance: f64,
}

/// Which policy holds where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Select {
    /// The one that changes most.
    Max,
    /// The one that changes least.
    Min,
    /// Nothing is changed in this direction.
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    amount: Amount,
    period_seconds: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Pods(i32),
    Percent(i32),
    /// No more than so many in all.
    UpTo(i32),
}

impl Rules {
    fn of(rules: &HPAScalingRules, window_seconds: i32) -> Self {
        let policies = rules.policies.iter().flatten().map(|it| Policy {
            amount: if it.type_ == "Percent" { Amount::Percent(it.value) } else { Amount::Pods(it.value) },
            period_seconds: it.period_seconds,
        });
        let select = match rules.select_policy.as_deref() {
            Some("Disabled") => Select::Disabled,
            Some("Min") => Select::Min,
            _ => Select::Max,
        };
        let nanos = rules.tolerance.as_ref().map_or(TOLERANCE_NANOS, |it| Quantity::of(it).nanos());
        #[allow(clippy::cast_precision_loss)] // a share of one
        let tolerance = nanos as f64 / 1e9;
        Self {
            window_seconds: rules.stabilization_window_seconds.unwrap_or(window_seconds),
            select,
            policies: policies.collect(),
            tolerance,
        }
    }
}

impl Pace {
    pub fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let said = behavior.cloned().unwrap_or_default();
        let mut up = Rules::of(&defaults::scale_up(said.scale_up), 0);
        if behavior.is_none() {
            let fixed = up.policies.iter_mut().filter(|policy| matches!(policy.amount, Amount::Pods(_)));
            fixed.for_each(|policy| policy.amount = Amount::UpTo(GROWS_AT_ONCE_TO));
        }
        Self { up, down: Rules::of(&defaults::scale_down(said.scale_down), SCALE_DOWN_WINDOW_SECONDS) }
    }

    pub fn tolerance(&self) -> Tolerance {
        Tolerance { up: self.up.tolerance, down: self.down.tolerance }
    }

    /// The size nearest to the current one that was called for all along: the least of the window upwards, the most of the
    /// window downwards.
    pub fn stabilised(&self, wanted: i32, current: i32, memory: &Memory, now: Timestamp) -> i32 {
        let within = |seconds: i32| memory.recommendations.iter().filter(move |(at, _)| is_within(*at, seconds, now)).map(|(_, it)| *it);
        let least = within(self.up.window_seconds).fold(wanted, i32::min);
        let most = within(self.down.window_seconds).fold(wanted, i32::max);
        current.max(least).min(most)
    }

    /// The most there may be now.
    pub fn ceiling(&self, current: i32, memory: &Memory, now: Timestamp) -> i32 {
        let allowed = self.up.policies.iter().map(|policy| {
            let start = memory.at_start(policy.period_seconds, current, now);
            match policy.amount {
                Amount::Pods(count) => start + i64::from(count),
                // Rounded up: of one pod 10 % more is one more, or it would never grow.
                Amount::Percent(percent) => start + (start * i64::from(percent) + 99).div_euclid(100),
                Amount::UpTo(count) => i64::from(count),
            }
        });
        let limit = match self.up.select {
            Select::Disabled => None,
            Select::Max => allowed.max(),
            Select::Min => allowed.min(),
        };
        to_i32(limit.unwrap_or(i64::from(current))).max(current)
    }

    /// The fewest there may be now.
    pub fn floor(&self, current: i32, memory: &Memory, now: Timestamp) -> i32 {
        let allowed = self.down.policies.iter().map(|policy| {
            let start = memory.at_start(policy.period_seconds, current, now);
            match policy.amount {
                Amount::Pods(count) => start - i64::from(count),
                // What is left is rounded down, for the same reason.
                Amount::Percent(percent) => (start * (100 - i64::from(percent))).div_euclid(100),
                // It says nothing of going down.
                Amount::UpTo(_) => i64::from(current),
            }
        });
        let limit = match self.down.select {
            Select::Disabled => None,
            Select::Max => allowed.min(),
            Select::Min => allowed.max(),
        };
        to_i32(limit.unwrap_or(i64::from(current))).clamp(0, current.max(0))
    }
}

fn to_i32(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}
