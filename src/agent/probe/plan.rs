//! When to probe and what the results mean. PURE.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// A probe's numbers with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: SignedDuration,
    pub period: SignedDuration,
    pub timeout: SignedDuration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: i64| SignedDuration::from_secs(value.map_or(default, i64::from).max(0));
        let at_least_one = |value: Option<i32>, default: i64| match seconds(value, default) {
            zero if zero.is_zero() => SignedDuration::from_secs(default),
            some => some,
        };
        let count = |value: Option<i32>, default: u32| value.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: at_least_one(probe.period_seconds, 10),
            timeout: at_least_one(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }

    /// Not before this.
    pub fn first_at(&self, started_at: Timestamp) -> Timestamp {
        started_at.checked_add(self.initial_delay).unwrap_or(started_at)
    }
}

/// The probes of a container.
pub fn probes(container: &Container) -> Vec<(Kind, &Probe)> {
    [
        (Kind::Startup, container.startup_probe.as_ref()),
        (Kind::Liveness, container.liveness_probe.as_ref()),
        (Kind::Readiness, container.readiness_probe.as_ref()),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some((kind, probe?)))
    .collect()
}

/// What has been seen of one probe of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The verdict; `None`: none yet.
    pub verdict: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl Track {
    /// A container that was known to be so before this process.
    pub fn known(verdict: Option<bool>) -> Self {
        Self { verdict, last: verdict, run: 0 }
    }

    /// Takes one result in; true when the verdict changed.
    pub fn record(&mut self, ok: bool, timing: &Timing) -> bool {
        self.run = if self.last == Some(ok) { self.run + 1 } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { timing.success_threshold } else { timing.failure_threshold };
        if self.run < threshold || self.verdict == Some(ok) {
            return false;
        }
        self.verdict = Some(ok);
        true
    }

    /// Nothing more to ask: a container that has started, or one that is to be stopped.
    pub fn is_final(&self, kind: Kind) -> bool {
        match kind {
            Kind::Startup => self.verdict.is_some(),
            Kind::Liveness => self.verdict == Some(false),
            Kind::Readiness => false,
        }
    }
}

/// The number of a port given by number or by the name of one of the container's ports.
pub fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn timing(success: u32, failure: u32) -> Timing {
        Timing { success_threshold: success, failure_threshold: failure, ..Timing::of(&Probe::default()) }
    }

    #[test]
    fn defaults_are_kubernetes_own() {
        let got = Timing::of(&Probe::default());
        let secs = |t: SignedDuration| t.as_secs();
        assert_eq!((secs(got.initial_delay), secs(got.period), secs(got.timeout)), (0, 10, 1));
        assert_eq!((got.success_threshold, got.failure_threshold), (1, 3));
        let zero = Probe { period_seconds: Some(0), timeout_seconds: Some(0), ..Probe::default() };
        assert_eq!(Timing::of(&zero), got, "zero means the default");
    }

    #[test]
    fn verdicts_change_at_their_thresholds() {
        // (thresholds, results, verdict after each)
        let table: Vec<(Timing, &str, &str)> = vec![
            (timing(1, 3), "++", "++"),
            (timing(1, 3), "---", "??-"),
            (timing(1, 3), "+--+", "++++"),
            (timing(1, 3), "+---+", "+++-+"),
            (timing(2, 1), "++", "?+"),
            (timing(2, 1), "++-+-++", "?+----+"),
        ];
        for (timing, results, want) in table {
            let mut track = Track::default();
            let got: String = results
                .chars()
                .map(|result| {
                    track.record(result == '+', &timing);
                    track.verdict.map_or('?', |ok| if ok { '+' } else { '-' })
                })
                .collect();
            assert_eq!(got, want, "{results}");
        }
    }

    #[test]
    fn changes_are_reported_once() {
        let mut track = Track::default();
        let changes: Vec<bool> = [true, true, false, false, false].iter().map(|ok| track.record(*ok, &timing(1, 2))).collect();
        assert_eq!(changes, [true, false, false, true, false]);
        let mut known = Track::known(Some(true));
        assert!(!known.record(true, &timing(1, 1)));
    }

    #[test]
    fn startup_ends_and_liveness_ends_in_failure() {
        let of = |verdict| Track { verdict, ..Track::default() };
        assert!(of(Some(true)).is_final(Kind::Startup) && of(Some(false)).is_final(Kind::Startup));
        assert!(of(Some(false)).is_final(Kind::Liveness) && !of(Some(true)).is_final(Kind::Liveness));
        assert!(!of(Some(false)).is_final(Kind::Readiness));
    }

    #[test]
    fn ports_by_number_and_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "http", "containerPort": 8080}]})).unwrap();
        let named = |name: &str| port(&IntOrString::String(name.into()), &container);
        assert_eq!(port(&IntOrString::Int(80), &container), Some(80));
        assert_eq!((named("http"), named("81"), named("no")), (Some(8080), Some(81), None));
        assert_eq!(port(&IntOrString::Int(0), &container), None);
    }
}
