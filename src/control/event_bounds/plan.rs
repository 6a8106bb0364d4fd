//! Which events are too old or too many.

use jiff::ToSpan;
use k8s_openapi::api::core::v1::Event;

use crate::model::event::last_seen;
use crate::model::{Object, Timestamp};
use crate::plan::{Op, Plan};

/// Expiry is looked at in steps, so that a busy cluster's events go in bunches.
const STEP_SECONDS: i64 = 60;

pub fn plan<'a>(events: impl Iterator<Item = &'a Object>, seconds: i64, count: usize, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut all: Vec<(Timestamp, &Object)> =
        events.filter_map(|object| object.get::<Event>().map(|event| (last_seen(event).unwrap_or(now), object))).collect();
    let oldest_kept = now.checked_sub(seconds.seconds()).unwrap_or(Timestamp::MIN);
    let old = all.iter().filter(|(seen, _)| *seen <= oldest_kept).count();
    // Somewhat below the bound, so that the next event does not cause the next write.
    let surplus = if all.len() > count { all.len() - (count - count / 20) } else { 0 };
    let going = old.max(surplus);
    if going > 0 {
        all.sort_unstable_by(|a, b| (a.0, a.1.key()).cmp(&(b.0, b.1.key())));
        plan.ops.extend(all.drain(..going).map(|(_, object)| Op::Delete { before: object.clone(), grace_seconds: None }));
    }
    if let Some(next) = all.iter().map(|(seen, _)| *seen).min()
        && let Ok(at) = next.checked_add((seconds + STEP_SECONDS).seconds())
    {
        plan.look_again(at);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use serde_json::json;

    #[test]
    fn the_oldest_go() {
        let event = |name: &str, at: &str| {
            let value = json!({"metadata": {"name": name, "namespace": "web"}, "involvedObject": {}, "lastTimestamp": at});
            Object::from_value(Kind::Event, value).expect("an event")
        };
        let events = [event("a", "2026-01-01T00:00:00Z"), event("b", "2026-01-01T00:30:00Z"), event("c", "2026-01-01T00:20:00Z")];
        let gone = |count: usize, now: &str| -> Vec<String> {
            let plan = plan(events.iter(), 3600, count, now.parse().expect("a time"));
            plan.ops.iter().map(ToString::to_string).collect()
        };
        assert_eq!(gone(10, "2026-01-01T00:40:00Z"), Vec::<String>::new());
        assert_eq!(gone(10, "2026-01-01T01:00:00Z"), ["- Event web/a"]);
        assert_eq!(gone(1, "2026-01-01T00:40:00Z"), ["- Event web/a", "- Event web/c"]);
    }
}
