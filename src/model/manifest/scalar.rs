//! What a YAML scalar means to kubectl. PURE.
//!
//! kubectl reads YAML 1.1 through go-yaml v2 and turns it into JSON; the corpus in `tests/corpus`
//! holds what it makes of each form. In short: `0644`, `0x1f` and `0b11` are numbers, `_` inside a
//! number is ignored, `y/yes/on/true` and `n/no/off/false` in three spellings are booleans,
//! `22:22` and dates are strings, and a whole number written as a fraction becomes an integer.

use base64::Engine;
use serde_json::{Number, Value};

/// How the scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// No tag.
    None,
    Str,
    Int,
    Float,
    Bool,
    Null,
    Binary,
    Timestamp,
    Merge,
    /// Any other: the scalar is a string.
    Other,
}

/// A scalar's meaning before it becomes JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

/// Resolves the text of a scalar. The error says what it is not, without showing it.
pub(super) fn resolve(text: &str, plain: bool, tag: Tag) -> Result<Scalar, String> {
    let wanted = |name: &str| format!("the tagged value is not {name}");
    match tag {
        Tag::None if plain => Ok(implicit(text)),
        Tag::None | Tag::Str | Tag::Other | Tag::Merge => Ok(Scalar::Text(text.to_owned())),
        Tag::Timestamp if looks_like_date(text) => Ok(Scalar::Text(text.to_owned())),
        Tag::Timestamp => Err(wanted("a timestamp")),
        Tag::Binary => {
            let text: String = text.split_ascii_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| wanted("base64"))?;
            String::from_utf8(bytes).map(Scalar::Text).map_err(|_| wanted("text once decoded; JSON has no place for other bytes"))
        }
        Tag::Int => match implicit(text) {
            found @ (Scalar::Int(_) | Scalar::Unsigned(_)) => Ok(found),
            _ => Err(wanted("an integer")),
        },
        Tag::Float => match implicit(text) {
            found @ (Scalar::Float(_) | Scalar::Int(_) | Scalar::Unsigned(_)) => Ok(found),
            _ => Err(wanted("a number")),
        },
        Tag::Bool => match implicit(text) {
            found @ Scalar::Bool(_) => Ok(found),
            _ => Err(wanted("a boolean")),
        },
        Tag::Null => match implicit(text) {
            Scalar::Null => Ok(Scalar::Null),
            _ => Err(wanted("null")),
        },
    }
}

fn implicit(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text(text.to_owned());
    }
    number(&text.replace('_', "")).unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(size) = magnitude(digits) {
        let signed = if negative { 0_i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() };
        if let Some(it) = signed {
            return Some(Scalar::Int(it));
        }
        // Go reads an unsigned number only without a sign.
        if !text.starts_with(['+', '-']) {
            return Some(Scalar::Unsigned(size));
        }
    }
    if !is_float(digits) {
        return None;
    }
    let float: f64 = digits.parse().ok()?;
    // Too large for a float is a string to go-yaml.
    float.is_finite().then_some(Scalar::Float(if negative { -float } else { float }))
}

/// Go's `ParseUint` with base 0: 0x, 0o, 0b, and a leading 0 for octal.
fn magnitude(digits: &str) -> Option<u64> {
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_fits && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

fn looks_like_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().is_some_and(|year| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()));
    let month = parts.next().is_some_and(|month| matches!(month.parse(), Ok(1..=12)));
    year && month && parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl Scalar {
    /// The JSON value; the error says what JSON lacks.
    pub(super) fn json(self) -> Result<Value, String> {
        Ok(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(it) => Value::Bool(it),
            Scalar::Int(it) => Value::from(it),
            Scalar::Unsigned(it) => float(it as f64).ok_or_else(not_finite)?,
            Scalar::Float(it) => float(it).ok_or_else(not_finite)?,
            Scalar::Text(it) => Value::String(it),
        })
    }

    /// The name it gives as the key of a mapping.
    pub(super) fn key(self) -> Result<String, String> {
        match self {
            Scalar::Text(it) => Ok(it),
            Scalar::Bool(it) => Ok(it.to_string()),
            Scalar::Int(it) => Ok(it.to_string()),
            Scalar::Float(it) => Ok(float_key(it)),
            Scalar::Null => Err("null cannot be the name of a field".to_owned()),
            Scalar::Unsigned(_) => Err("this number is too large for the name of a field: put it in quotes".to_owned()),
        }
    }
}

fn not_finite() -> String {
    "infinity and not-a-number have no place in JSON: put the word in quotes".to_owned()
}

/// A float as Go's JSON leaves it: whole numbers lose their fraction.
pub(super) fn float(it: f64) -> Option<Value> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if it.fract() == 0.0 && it.abs() < LIMIT {
        return Some(Value::from(it as i64));
    }
    Number::from_f64(it).map(Value::Number)
}

/// Go's `FormatFloat(it, 'g', -1, 32)`, which is how a float becomes a key.
fn float_key(it: f64) -> String {
    if it.is_nan() {
        return ".nan".to_owned();
    }
    let it = it as f32;
    if it.is_infinite() {
        return if it > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{it:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    } else {
        format!("{it}")
    }
}
