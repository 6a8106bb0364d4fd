//! JSON values as YAML that every reader takes for the same: those of YAML 1.1 too, for whom a plain `yes` is no text and a
//! plain `012` is ten (Kubernetes' own reader is one). PURE.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that are not text somewhere (YAML 1.1: bool, null and merge; letters in any case).
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A document.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        plain => out = format!("{}\n", scalar(plain)),
    }
    out
}

/// The lines of what is not empty, so far in.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (index, (key, value)) in fields.iter().enumerate() {
                // The first field of an element stands behind its dash.
                if index > 0 || !out.ends_with("- ") {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                // Writing to a String cannot fail.
                let _ = write!(out, "{}:", string(key));
                match value {
                    Value::Object(fields) if !fields.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        out.push('\n');
                        block(value, indent, out);
                    }
                    Value::String(lines) if is_literal(lines) => literal(lines, indent + 2, out),
                    plain => {
                        let _ = writeln!(out, " {}", scalar(plain));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                out.push_str("- ");
                match item {
                    Value::Object(fields) if !fields.is_empty() => block(item, indent + 2, out),
                    Value::Array(items) if !items.is_empty() => block(item, indent + 2, out),
                    plain => {
                        let _ = writeln!(out, "{}", scalar(plain));
                    }
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Number(number) => as_number(&number.to_string()),
        // Empty collections and words are written alike.
        other => other.to_string(),
    }
}

/// With an exponent a number is one to YAML 1.1 only if it has a point and the exponent a sign.
fn as_number(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// Plain where nobody can take it for something else, and quoted as in JSON.
fn string(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    for letter in Value::from(text).to_string().chars() {
        match letter {
            shown if is_shown(shown) => quoted.push(shown),
            other => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(other));
            }
        }
    }
    quoted
}

/// Whether a letter may stand for itself (YAML 1.2, 5.1: `c-printable`) and ends no line for anybody (YAML 1.1: U+2028 does).
fn is_shown(letter: char) -> bool {
    let is_printable =
        matches!(letter, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    is_printable && letter != '\u{feff}'
}

/// Whether a text can be shown line by line.
fn is_literal(text: &str) -> bool {
    let all_shown = text.chars().all(|letter| letter == '\n' || is_shown(letter));
    text.contains('\n') && text.starts_with(|first: char| first.is_ascii_graphic()) && !text.ends_with("\n\n") && all_shown
}

fn literal(text: &str, indent: usize, out: &mut String) {
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_look_as_people_write_them() {
        let value = json!({"kind": "X", "empty": {"map": {}, "list": [], "text": ""}, "nested": [[1, "a"], [{"b": null}]],
            "items": [{"name": "a", "ports": [{"port": 80}]}, {"name": "b"}], "script": "#!/bin/sh\n\n  echo\n", "word": "yes"});
        let wanted = "empty:\n  list: []\n  map: {}\n  text: \"\"\nitems:\n- name: a\n  ports:\n  - port: 80\n- name: b\nkind: X\nnested:\n\
                      - - 1\n  - a\n- - b: null\nscript: |\n  #!/bin/sh\n\n    echo\nword: \"yes\"\n";
        assert_eq!(text(&value), wanted);
        assert_eq!(text(&json!({})), "{}\n");
    }

    #[test]
    fn no_text_is_taken_for_something_else() {
        for word in [
            "yes",
            "No",
            "ON",
            "off",
            "y",
            "N",
            "True",
            "null",
            "~",
            "012",
            "1e3",
            "0x1",
            ".inf",
            "1:30",
            "2026-11-27",
            "<<",
            "=",
            "a: b",
            "-",
            "",
        ] {
            assert_eq!(text(&json!(word)), format!("{}\n", json!(word)), "{word}");
        }
        assert_eq!(text(&json!("a\u{7f}\n\u{2028}\u{feff}ä")), "\"a\\U0000007f\\n\\U00002028\\U0000feffä\"\n");
        for word in ["a", "nothing", "app.kubernetes.io/name", "v1", "E5"] {
            assert_eq!(text(&json!(word)), format!("{word}\n"));
        }
    }

    #[test]
    fn numbers_are_numbers_to_everybody() {
        for (number, wanted) in [
            (json!(7), "7"),
            (json!(-0.5), "-0.5"),
            (json!(1e16), "1.0e+16"),
            (json!(1.5e-7), "1.5e-7"),
            (json!(1e-7), "1.0e-7"),
            (json!(2.5e300), "2.5e+300"),
        ] {
            assert_eq!(text(&number), format!("{wanted}\n"));
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let letters = prop::collection::vec(any::<char>(), 0..6).prop_map(|letters| letters.into_iter().collect::<String>());
        let texts = prop_oneof!["[a-z:#\\- \n]{0,12}", "\\PC{0,6}", letters];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            texts.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let fields = prop::collection::btree_map(texts.clone(), inner.clone(), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values()) {
            let written = text(&value);
            let read: Value = serde_yaml::from_str(&written).map_err(|error| TestCaseError::fail(format!("{error}: {written}")))?;
            prop_assert_eq!(read, value, "{}", written);
        }
    }
}
