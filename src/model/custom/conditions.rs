//! Conditions on a request, in the language of the rules: `matchConditions` of webhooks. PURE.
//!
//! From "Dynamic Admission Control", section "Matching requests: `matchConditions`": `object`, `oldObject` and `request` have
//! a name. Whether somebody else may do something (`authorizer`) is not asked here.

use serde_json::Value;

use super::budget::Budget;
use super::cel::{Program, Run, Val};

/// Steps that the conditions of one webhook may take together, and bytes that they may make.
const BUDGET: Budget = Budget::new(1_000_000, 16 << 20);
const NAMES: [&str; 3] = ["object", "oldObject", "request"];
const NO_AUTHORIZER: &str = "`authorizer` is not supported: conditions see object, oldObject and request";

/// What the names stand for; null where there is none.
pub struct Asked<'v> {
    pub object: &'v Value,
    pub old: &'v Value,
    pub request: &'v Value,
}

/// Whether a text is a condition.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    if read(text)?.may_be_true() { Ok(()) } else { Err("must evaluate to bool".to_owned()) }
}

fn read(text: &str) -> Result<Program, String> {
    Program::over(text, &NAMES).map_err(|why| if why.contains("'authorizer'") { NO_AUTHORIZER.to_owned() } else { why })
}

/// Whether all of them hold. One that does not outweighs those that cannot be asked.
///
/// # Errors
/// The first that cannot be asked of this request.
pub fn hold<'t>(texts: impl Iterator<Item = (&'t str, &'t str)>, asked: &Asked<'_>) -> Result<bool, String> {
    let mut run = Run::new(BUDGET);
    let mut fault = Ok(true);
    for (name, text) in texts {
        let values = [asked.object, asked.old, asked.request];
        let answer = read(text).and_then(|program| {
            let names = NAMES.into_iter().zip(values.map(|value| Val::of(value, None))).collect();
            program.is_true(names, &mut run)
        });
        match answer {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) if fault.is_ok() => fault = Err(format!("expression '{name}' resulted in error: {why}")),
            Err(_) => {}
        }
    }
    fault
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_must_hold_and_one_that_does_not_decides() {
        let (object, request) =
            (json!({"metadata": {"name": "a"}}), json!({"operation": "CREATE", "userInfo": {"groups": ["system:nodes"]}}));
        let asked = Asked { object: &object, old: &Value::Null, request: &request };
        let yes = "object.metadata.name == 'a' && oldObject == null";
        let no = "!('system:nodes' in request.userInfo.groups)";
        let wrong = "object.spec.replicas > 1";
        for (texts, answer) in [
            (vec![], Some(true)),
            (vec![yes, "request.operation == 'CREATE'"], Some(true)),
            (vec![yes, no], Some(false)),
            (vec![wrong, no], Some(false)),
            (vec![yes, wrong], None),
            (vec!["object.metadata.name"], None),
        ] {
            let got = hold(texts.iter().map(|text| ("it", *text)), &asked);
            assert_eq!(got.clone().ok(), answer, "{texts:?}: {got:?}");
        }
        let fault = hold([("many", wrong)].into_iter(), &asked).unwrap_err();
        assert_eq!(fault, "expression 'many' resulted in error: no such key: spec");
    }

    #[test]
    fn only_what_has_a_name_is_asked_for() {
        assert_eq!(check("object.a == request.b || oldObject == null"), Ok(()));
        assert_eq!(check("authorizer.group('').resource('pods').check('create').allowed()"), Err(NO_AUTHORIZER.to_owned()));
        for text in [
            "object.metadata.name",
            "object.metadata",
            "'a'",
            "1",
            "[true]",
            "{'a': true}",
            "null",
            "object",
            "request.name",
            "1 + 1",
            "-1",
        ] {
            assert_eq!(check(text), Err("must evaluate to bool".to_owned()), "{text}");
        }
        for text in ["true", "request.dryRun", "has(object.spec)", "!request.dryRun", "'a' in object.x", "object.x.all(it, it > 1)"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        assert_eq!(check("self == 1"), Err("undeclared reference to 'self'".to_owned()));
    }
}
