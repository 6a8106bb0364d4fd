use serde_json::{Value, json};

use super::*;
use crate::model::custom::Schema;

fn object() -> Value {
    json!({
        "replicas": 5, "minReplicas": 1, "name": "web-1", "ratio": 0.5, "whole": 2.0, "set": ["a", "b"], "nothing": null,
        "priorities": [{"name": "a", "value": 3}, {"name": "b", "value": 1}],
        "map": {"x": 1, "y": 2}, "when": "2026-11-26T10:00:00Z", "every": "1h30m", "a-b": 1, "namespace": "n",
    })
}

fn schema() -> Schema {
    Schema::read(&json!({"type": "object", "properties": {
        "when": {"type": "string", "format": "date-time"}, "every": {"type": "string", "format": "duration"}, "whole": {"type": "number"},
    }}))
}

fn holds(text: &str) -> Result<bool, String> {
    let (object, schema) = (object(), schema());
    let old = json!({"replicas": 4});
    Program::compile(text)?.holds(Val::of(&object, Some(&schema)), Some(Val::of(&old, None)), &mut 10_000)
}

#[test]
fn rules_of_the_documentation_hold() {
    for rule in [
        "self.minReplicas <= self.replicas && self.replicas <= 10",
        "'x' in self.map",
        "'a' in self.set",
        "self.priorities.all(p, p.value > 0)",
        "self.priorities.exists(p, p.name == 'b')",
        "self.priorities.exists_one(p, p.value == 3)",
        "size(self.priorities) == 2 && self.set.size() == 2",
        "self.replicas == oldSelf.replicas + 1",
        "has(self.name) && !has(self.other)",
        "self.name.startsWith('web') && self.name.endsWith('1') && self.name.matches('^[a-z]+-[0-9]$')",
        "self.priorities.map(p, p.name) == ['a', 'b']",
        "self.priorities.map(p, p.value > 1, p.name) == ['a']",
        "self.priorities.filter(p, p.value > 1).size() == 1",
        "self.map.all(key, self.map[key] > 0)",
        "!has(self.other) || self.other > 3",
        "self.other > 3 || true",
        "self.when > timestamp('2025-01-01T00:00:00Z')",
        "self.every == duration('90m') && self.every.getHours() == 1",
        "self.when + duration('1h') == timestamp('2026-11-26T11:00:00Z')",
        "self.ratio < 1 && self.ratio * 2.0 == 1.0 && self.whole == 2.0",
        "self.replicas % 2 == 1 ? self.replicas / 2 == 2 : false",
        "type(self.replicas) == int && type(self.name) == string",
        "string(self.replicas) == '5' && int('7') == 7 && double('1.5') == 1.5",
        "self.a__dash__b == 1 && self.__namespace__ == 'n'",
        "self.nothing == null",
        "self.name.split('-')[1] == '1' && self.name.substring(0, 3) == 'web' && self.name.indexOf('-') == 3",
        "'a,b'.split(',').join('+') == 'a+b' && ' x '.trim() == 'x' && 'Ab'.lowerAscii() == 'ab'",
        "[1, 2, 3].sum() == 6 && [3, 1].max() == 3 && [1, 2].isSorted()",
        "{'a': 1}.a == 1 && [1] + [2] == [1, 2] && 'a' + 'b' == 'ab'",
        "-1 < 0 && !(1 > 2) && 1u < 2u && 0x10 == 16 && 1e3 == 1000.0",
        "r'\\d' == '\\\\d' && \"it's\" == 'it\\'s' // a comment",
        "self.set.map(s, self.set.filter(t, t == s).size()).all(n, n == 1)",
        "isIP('10.0.0.1') && !isCIDR('10.0.0.1') && isQuantity('100m')",
    ] {
        assert_eq!(holds(rule), Ok(true), "{rule}");
    }
}

#[test]
fn what_does_not_hold_or_cannot_be_asked() {
    assert_eq!(holds("self.replicas > 10"), Ok(false));
    for (rule, why) in [
        ("self.other == 1", "no such key: other"),
        ("self.replicas", "neither true nor false"),
        ("self.replicas + 'a' == 1", "no such overload"),
        ("self.set[7] == 'a'", "out of bounds"),
        ("1 / 0 == 1", "division by zero"),
        ("9223372036854775807 + 1 > 0", "does not fit"),
        ("self.set.all(a, self.set.all(b, self.set.all(c, self.set.all(d, 'aaaaaaaaaaaaaaaa'.matches('a+')))))", ""),
    ] {
        match holds(rule) {
            Err(found) => assert!(found.contains(why) && !why.is_empty(), "{rule}: {found}"),
            Ok(found) => assert!(found && why.is_empty(), "{rule}: {found}"),
        }
    }
}

#[test]
fn what_is_no_rule_is_refused() {
    for (text, why) in [
        ("", "not complete"),
        ("self.", "a name is missing"),
        ("self.a ==", "not complete"),
        ("other.a", "undeclared reference to 'other'"),
        ("quantity('1').add(1)", "undeclared reference to 'quantity'"),
        ("self.set.size(1)", "no matching overload"),
        ("'a", "does not end"),
        ("self.a # 1", "no meaning"),
        ("has(self)", "asks for a field"),
        ("1 2", "more than one expression"),
        ("99999999999999999999", "no number that fits"),
    ] {
        let found = Program::compile(text).unwrap_err();
        assert!(found.contains(why), "{text}: {found}");
    }
    assert!(Program::compile(&"(".repeat(200)).unwrap_err().contains("levels"));
    assert!(Program::compile(&"!".repeat(200)).unwrap_err().contains("in a row"));
    assert!(Program::compile(&"a".repeat(20_000)).is_err());
}

#[test]
fn a_rule_is_as_deep_as_its_evaluation_may_be() {
    assert!(Program::compile(&vec!["1"; 4000].join("+")).unwrap_err().contains("levels"));
    assert!(Program::compile(&format!("self{}", ".a".repeat(4000))).unwrap_err().contains("levels"));
    assert!(Program::compile(&format!("self{}", "[0]".repeat(3000))).unwrap_err().contains("levels"));
    // What is joined by `&&` or `||` is as deep as it has to be.
    assert_eq!(holds(&vec!["1<2"; 1500].join("&&")), Ok(true));
    assert_eq!(holds(&vec!["1>2"; 1500].join("||")), Ok(false));
    assert_eq!(holds("1 > 2 || 1 / 0 == 1 || 2 > 1 || self.other"), Ok(true));
}

#[test]
fn what_is_copied_compared_or_compiled_is_paid_for() {
    let object = json!({"list": vec![1; 50_000], "texts": vec!["a".repeat(5000); 200]});
    for rule in [
        "self.list.all(a, self.list.exists(b, true))",
        "self.list.all(a, self.texts == self.texts)",
        "self.list.all(a, 'x'.matches(string(a) + 'x') || true)",
        "self.list.map(a, self.texts[0].replace('', 'aaaaaaaaaa')).size() > 0",
        "self.list.map(a, self.list).flatten().size() > 0",
    ] {
        let found = Program::compile(rule).unwrap().holds(Val::of(&object, None), None, &mut 2_000_000);
        assert!(found.as_ref().is_err_and(|why| why.contains("takes too long")), "{rule}: {found:?}");
    }
    // A pattern that is written in the rule is compiled once.
    let rule = Program::compile("self.list.all(a, 'xy'.matches('^x+y$'))").unwrap();
    assert_eq!(rule.holds(Val::of(&object, None), None, &mut 2_000_000), Ok(true));
    assert!(Program::compile("self.matches('(')").unwrap_err().contains("is no pattern"));
}

#[test]
fn a_rule_that_takes_too_long_is_given_up() {
    let object = json!({"list": vec![1; 1000]});
    let rule = Program::compile("self.list.all(a, self.list.all(b, self.list.all(c, true)))").unwrap();
    let mut left = 100_000;
    assert!(rule.holds(Val::of(&object, None), None, &mut left).unwrap_err().contains("takes too long"));
    assert!(Program::compile("self.a == oldSelf.a").unwrap().uses_old);
    assert!(!rule.uses_old);
}
