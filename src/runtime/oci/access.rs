//! Which devices a bundle lets its container open, beyond those that every container has. PURE.
//!
//! Format: the OCI runtime specification 1.2, config-linux.md, "Allowed Device list": rules take effect in their order.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::config::ConfigError;

/// What the rules come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Everything,
    /// Lines for v1's `devices.allow`; none: what every container has.
    These(Vec<String>),
}

/// Evaluates rules. What is denied of the devices that every container has stays allowed, as with runc.
///
/// # Errors
/// A denial that would need more than a list of what is allowed.
pub fn access(rules: &[LinuxDeviceCgroup]) -> Result<Access, ConfigError> {
    let mut now = Access::These(Vec::new());
    for rule in rules {
        let whole = ["r", "w", "m"].into_iter().all(|letter| letters(rule).contains(letter));
        let kinds: &[&str] = match rule.typ() {
            None | Some(LinuxDeviceType::A) => &["c", "b"],
            Some(LinuxDeviceType::B) => &["b"],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &["c"],
            // A pipe is no device.
            Some(LinuxDeviceType::P) => &[],
        };
        let all = kinds.len() == 2 && numbers(rule) == "*:*" && whole;
        if all {
            now = if rule.allow() { Access::Everything } else { Access::These(Vec::new()) };
            continue;
        }
        match (&mut now, rule.allow()) {
            (Access::Everything, true) => {}
            (Access::These(lines), true) => lines.extend(kinds.iter().map(|kind| format!("{kind} {} {}", numbers(rule), letters(rule)))),
            (Access::Everything, false) if kinds.is_empty() => {}
            (Access::Everything, false) => return Err(refused(rule)),
            (Access::These(lines), false) => {
                let same = |line: &String| kinds.iter().any(|kind| line.starts_with(&format!("{kind} {} ", numbers(rule))));
                lines.retain(|line| !(whole && same(line)));
                if lines.iter().any(|line| kinds.iter().any(|kind| overlap(line, kind, &numbers(rule)))) {
                    return Err(refused(rule));
                }
            }
        }
    }
    Ok(now)
}

fn letters(rule: &LinuxDeviceCgroup) -> String {
    rule.access().clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned())
}

fn numbers(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.filter(|number| *number >= 0).map_or_else(|| "*".to_owned(), |number| number.to_string());
    format!("{}:{}", number(rule.major()), number(rule.minor()))
}

/// Whether a line allows something of these devices.
fn overlap(line: &str, kind: &str, numbers: &str) -> bool {
    let Some((known, there)) = line.split_once(' ') else { return false };
    let there = there.split(' ').next().unwrap_or_default();
    let meets = |(one, other): (&str, &str)| one == "*" || other == "*" || one == other;
    known == kind && there.split(':').zip(numbers.split(':')).all(meets)
}

fn refused(rule: &LinuxDeviceCgroup) -> ConfigError {
    let field = format!("linux.resources.devices: to deny {} of {}", letters(rule), numbers(rule));
    ConfigError::Unsupported { field, why: " after a rule that allows more".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(rules: serde_json::Value) -> Result<Access, ConfigError> {
        access(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(rules).unwrap())
    }

    fn these(lines: &[&str]) -> Result<Access, ConfigError> {
        Ok(Access::These(lines.iter().map(|line| (*line).to_owned()).collect()))
    }

    #[test]
    fn only_a_rule_for_all_kinds_allows_everything() {
        let deny = json!({"allow": false, "access": "rwm"});
        assert_eq!(of(json!([])), these(&[]));
        assert_eq!(of(json!([deny])), these(&[]));
        assert_eq!(of(json!([deny, {"allow": true, "type": "c", "access": "rwm"}])), these(&["c *:* rwm"]));
        assert_eq!(of(json!([deny, {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "r"}])), these(&["b 8:* r"]));
        for all in [json!({"allow": true}), json!({"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"})] {
            assert_eq!(of(json!([deny, all])), Ok(Access::Everything), "{all}");
        }
        assert_eq!(of(json!([{"allow": true, "access": "r"}])), these(&["c *:* r", "b *:* r"]));
    }

    #[test]
    fn rules_take_effect_in_their_order() {
        let (deny, all) = (json!({"allow": false, "access": "rwm"}), json!({"allow": true, "access": "rwm"}));
        let fuse = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": access});
        assert_eq!(of(json!([all, deny])), these(&[]));
        assert_eq!(of(json!([fuse(true, "rw"), deny])), these(&[]));
        assert_eq!(of(json!([deny, fuse(true, "rw"), fuse(false, "rwm")])), these(&[]));
        assert_eq!(of(json!([fuse(false, "w"), fuse(true, "rw")])), these(&["c 10:229 rw"]));
        for after in [json!([all, fuse(false, "rwm")]), json!([fuse(true, "rw"), fuse(false, "w")])] {
            let said = of(after.clone()).map_err(|error| error.to_string());
            assert!(said.as_ref().is_err_and(|said| said.contains("10:229") && said.contains("deny")), "{after}: {said:?}");
        }
        let any = json!({"allow": true, "type": "c", "access": "rwm"});
        assert!(of(json!([any, fuse(false, "rwm")])).is_err());
    }
}
