use serde_json::{Value, json};

use super::*;
use crate::model::custom::Schema;
use crate::model::custom::budget::Budget;

fn run() -> Run {
    Run::new(Budget::new(10_000, 1 << 20))
}

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
    Program::compile(text)?.holds(Val::of(&object, Some(&schema)), Some(Val::of(&old, None)), &mut run())
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
        "[[1], [2, 3], 4].flatten() == [1, 2, 3, 4] && [1, 2, 1].distinct() == [1, 2] && [1, 2, 3].reverse() == [3, 2, 1]",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(2) == -1 && 'abcb'.lastIndexOf('b') == 3",
        "'a-b-c'.replace('-', '+') == 'a+b+c' && 'a-b-c'.replace('-', '', 1) == 'ab-c' && 'ab'.replace('', '.') == '.a.b.'",
        "'a-b-c'.split('-', 2) == ['a', 'b-c'] && 'ab'.split('') == ['a', 'b'] && 'ab'.split('b', 0) == []",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]', 1) == ['1']",
        "'äbc'.charAt(1) == 'b' && 'äbc'.substring(1) == 'bc' && 'Ab'.upperAscii() == 'AB' && string(1.5) == '1.5'",
        "{'a': [1, {'b': 2}]} == {'a': [1, {'b': 2}]} && {'a': 1} != {'a': 2} && self.map == {'y': 2, 'x': 1} && 1 == 1.0 && 1 != 'a'",
        "'a' in {'a': 1} && !('b' in {'a': 1}) && {1: 'x'}[1] == 'x' && [1] in [[2], [1]]",
        "false || false || true || false || false && true",
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
        ("int('x') == 1", "\"x\" is no int"),
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
        "self.list.all(a, self.texts == self.texts)",
        "self.texts.all(a, 'x'.matches(a) || true)",
        "self.list.map(a, self.texts[0].replace('', 'aaaaaaaaaa')).size() > 0",
        "self.list.map(a, self.list).flatten().size() > 0",
    ] {
        let found = Program::compile(rule).unwrap().holds(Val::of(&object, None), None, &mut Run::new(Budget::new(2_000_000, 64 << 20)));
        assert!(found.as_ref().is_err_and(|why| why.contains("takes too long")), "{rule}: {found:?}");
    }
    // A pattern that is written in the rule is compiled once.
    let rule = Program::compile("self.list.all(a, 'xy'.matches('^x+y$'))").unwrap();
    assert_eq!(rule.holds(Val::of(&object, None), None, &mut Run::new(Budget::new(2_000_000, 64 << 20))), Ok(true));
    assert_eq!(rule.patterns, ["^x+y$"]);
}

#[test]
fn a_rule_that_takes_too_long_is_given_up() {
    let object = json!({"list": vec![1; 1000]});
    let rule = Program::compile("self.list.all(a, self.list.all(b, self.list.all(c, true)))").unwrap();
    assert!(rule.holds(Val::of(&object, None), None, &mut run()).unwrap_err().contains("takes too long"));
    assert!(Program::compile("self.a == oldSelf.a").unwrap().uses_old);
    assert!(!rule.uses_old);
}

/// Each would take gigabytes or hours with an object as large as one may be.
#[test]
fn what_is_copied_or_looked_at_is_paid_before() {
    let object = json!({"l": vec!["a"; 2000], "t": "a".repeat(100_000), "texts": vec!["a".repeat(1000); 50], "deep": [vec![1; 5000]],
        "when": "1h".repeat(50_000)});
    let value = Val::of(&object, None);
    for rule in [
        // Texts made again and again, or of one text many times.
        "self.l.map(x, self.t).join('') == ''",
        "[self.t + ''].map(t, self.l.map(y, t).join('')).size() == 1",
        "self.l.map(x, self.t + x).size() == 0",
        "self.l.map(x, self.t.lowerAscii()).size() == 0",
        "self.l.map(x, self.t.substring(1)).size() == 0",
        "self.t.replace('a', self.t) == ''",
        "self.t.replace('', self.t) == ''",
        "self.t.split('').size() == 0",
        "self.t.findAll('a').size() == 0",
        "self.t.findAll('').size() == 0",
        "[self.t, self.t, self.t, self.t, self.t, self.t, self.t, self.t, self.t, self.t, self.t].join(self.t) == ''",
        // Lists of lists.
        "[self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l, self.l].flatten().size() == 0",
        "self.l.map(x, self.l).flatten().size() == 0",
        "self.l.map(x, self.l + self.l).size() == 0",
        // Looked at whole, though the answer is near.
        "self.l.all(x, self.t.contains('b') || true)",
        "self.l.all(x, self.t == self.t)",
        "self.l.all(x, self.t < self.t + 'b')",
        "self.l.all(x, self.deep == self.deep)",
        "self.l.all(x, [self.deep] == [self.deep])",
        "self.l.all(x, self.deep in [self.deep])",
        "self.l.all(x, self.texts.distinct().size() == 1)",
        "self.l.all(x, self.texts.indexOf('b') == -1)",
        "self.l.all(x, self.l.max() == 'a')",
        "self.l.all(x, size(self.t) > 0)",
        "self.l.all(x, int(self.t) == 1 || true)",
        // Patterns are read once for each text, and a long text is as long for each.
        "self.l.all(x, 'a'.matches('a' + x + string(size(self.texts))) || self.t.matches(x))",
        "self.t.matches('^(a?){200}b$')",
        "self.texts.all(x, 'a'.matches('\\\\w{99}' + x))",
        "self.l.map(x, self.l.exists(y, true)).map(x, self.l.map(y, x)).size() == 0",
    ] {
        let found = Program::compile(rule).unwrap().holds(value.clone(), None, &mut run());
        assert!(found.as_ref().is_err_and(|why| why.contains("takes too long")), "{rule}: {found:?}");
    }
    // Where the first item decides, the others cost nothing; a pattern is read once, and a long text is no time.
    let schema = Schema::read(&json!({"properties": {"when": {"type": "string", "format": "duration"}}}));
    for rule in ["self.l.all(x, self.l.exists(y, true))", "self.texts.all(x, x.matches('^a+$'))", "self.l.all(x, has(self.when))"] {
        let found =
            Program::compile(rule).unwrap().holds(Val::of(&object, Some(&schema)), None, &mut Run::new(Budget::new(100_000, 1 << 20)));
        assert_eq!(found, Ok(true), "{rule}");
    }
    let unreadable = Program::compile("self.t.matches('(')").unwrap();
    assert!(unreadable.holds(value, None, &mut Run::new(Budget::new(100_000, 1 << 20))).unwrap_err().contains("is no pattern"));
}

#[test]
fn what_was_spent_on_a_side_that_did_not_decide_is_told() {
    let object = json!({"list": vec![1; 1000]});
    let slow = "self.list.all(a, self.list.all(b, self.list.all(c, true)))";
    let mut run = run();
    let rule = Program::compile(&format!("{slow} || true")).unwrap();
    assert!(rule.holds(Val::of(&object, None), None, &mut run).unwrap_err().contains("takes too long"));
    assert!(run.budget.is_spent());
}

/// The stack of whoever asks a rule has an end.
#[test]
fn an_expression_is_as_deep_as_the_stack_bears() {
    for (text, why) in [
        ("1".to_owned() + &" + 1".repeat(2400), "levels"),
        ("self".to_owned() + &".a".repeat(4000), "levels"),
        ("self".to_owned() + &"[0]".repeat(3000), "levels"),
        ("'a'".to_owned() + &".trim()".repeat(1400), "levels"),
        ("1".to_owned() + &" < 1".repeat(2000), "levels"),
        ("[1]".to_owned() + &".map(x, x)".repeat(900), "levels"),
        ("true ? true : ".repeat(500) + "true", "levels"),
        ("{1: ".repeat(500) + "1" + &"}".repeat(500), "levels"),
    ] {
        let found = Program::compile(&text).unwrap_err();
        assert!(found.contains(why), "{}: {found}", &text[..20]);
    }
    // As deep as may be: it is asked within three quarters of the stack that a thread has. A long row of conditions is not deep.
    let deep = format!("{}1{} > 0", "(1 + [".repeat(19), "][0])".repeat(19));
    for rule in [deep, "1".to_owned() + &" + 1".repeat(97) + " == 98", "true".to_owned() + &" && true".repeat(1000)] {
        let asked =
            std::thread::Builder::new().stack_size(3 << 19).spawn(move || Program::compile(&rule)?.holds(Val::Null, None, &mut run()));
        assert_eq!(asked.unwrap().join().unwrap(), Ok(true));
    }
}
