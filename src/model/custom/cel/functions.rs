//! The functions of rules: the language's own, and Kubernetes' for strings, lists and patterns. PURE.

use std::cmp::Ordering;

use jiff::SignedDuration;
use regex::Regex;

use super::eval::{Eval, Outcome, SHOWN, no_overload, overflow};
use super::value::{Val, span};
use crate::model::rule::cut;

/// Names of types, which stand for themselves: `type(self.a) == string`.
pub(super) const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

/// Every function: its name, whether it is called on a value, and how many arguments it has.
const FUNCTIONS: [(&str, bool, &[usize]); 44] = [
    ("size", false, &[1]),
    ("size", true, &[0]),
    ("int", false, &[1]),
    ("uint", false, &[1]),
    ("double", false, &[1]),
    ("string", false, &[1]),
    ("bool", false, &[1]),
    ("dyn", false, &[1]),
    ("type", false, &[1]),
    ("duration", false, &[1]),
    ("timestamp", false, &[1]),
    ("matches", false, &[2]),
    ("matches", true, &[1]),
    ("contains", true, &[1]),
    ("startsWith", true, &[1]),
    ("endsWith", true, &[1]),
    ("charAt", true, &[1]),
    ("indexOf", true, &[1, 2]),
    ("lastIndexOf", true, &[1]),
    ("lowerAscii", true, &[0]),
    ("upperAscii", true, &[0]),
    ("replace", true, &[2, 3]),
    ("split", true, &[1, 2]),
    ("substring", true, &[1, 2]),
    ("trim", true, &[0]),
    ("join", true, &[0, 1]),
    ("find", true, &[1]),
    ("findAll", true, &[1, 2]),
    ("isSorted", true, &[0]),
    ("sum", true, &[0]),
    ("min", true, &[0]),
    ("max", true, &[0]),
    ("getSeconds", true, &[0]),
    ("getMinutes", true, &[0]),
    ("getHours", true, &[0]),
    ("getMilliseconds", true, &[0]),
    ("isIP", false, &[1]),
    ("isCIDR", false, &[1]),
    ("isQuantity", false, &[1]),
    ("reverse", true, &[0]),
    ("distinct", true, &[0]),
    ("flatten", true, &[0]),
    ("isURL", false, &[1]),
    ("getFullYear", true, &[0]),
];

/// Whether there is a function.
pub(super) fn known(name: &str, is_method: bool, args: usize) -> Result<(), String> {
    let mut of_name = FUNCTIONS.iter().filter(|(known, method, _)| *known == name && *method == is_method).peekable();
    if of_name.peek().is_none() {
        return Err(format!("undeclared reference to '{name}' (a function that is not supported)"));
    }
    let fits = of_name.any(|(_, _, counts)| counts.contains(&args));
    if fits { Ok(()) } else { Err(format!("found no matching overload for '{name}' with {args} arguments")) }
}

/// Calls a function; what it is called on is the first argument.
pub(super) fn call<'v>(eval: &mut Eval<'v, '_>, name: &str, args: &[Val<'v>]) -> Outcome<'v> {
    for arg in args {
        if let Val::Text(text) = arg {
            eval.budget().look(text.len())?;
        }
    }
    let wrong = || no_overload(name, &args.iter().collect::<Vec<_>>());
    match (name, args) {
        ("size", [of]) => of.size().and_then(|size| i64::try_from(size).ok()).map(Val::Int).ok_or_else(wrong),
        ("dyn", [of]) => Ok(of.clone()),
        ("type", [of]) => Ok(Val::Type(of.type_name())),
        ("string", [of]) => written(eval, of)?.ok_or_else(wrong),
        ("int" | "uint" | "double" | "bool" | "duration" | "timestamp", [of]) => convert(name, of).ok_or_else(wrong)?,
        ("isSorted" | "sum" | "min" | "max" | "reverse" | "distinct" | "flatten" | "join", [of, rest @ ..]) if of.is_list() => {
            eval.pay_list(of.size().unwrap_or(0))?;
            let items: Vec<Val<'v>> = of.items().into_iter().flatten().collect();
            of_list(eval, name, &items, rest.first())?.ok_or_else(wrong)
        }
        ("indexOf", [of, item]) if of.is_list() => Ok(place(eval.place(of.items(), item)?)),
        ("lastIndexOf", [of, item]) if of.is_list() => {
            let found = eval.place(of.items().map(Iterator::rev), item)?;
            Ok(place(found.and_then(|back| of.size()?.checked_sub(back + 1))))
        }
        (_, [Val::Span(span)]) => of_span(name, *span).ok_or_else(wrong),
        ("getFullYear", [Val::Time(time)]) => Ok(Val::Int(i64::from(time.to_zoned(jiff::tz::TimeZone::UTC).year()))),
        ("matches" | "find" | "findAll", [Val::Text(text), Val::Text(pattern), rest @ ..]) => {
            let pattern = eval.run.pattern(pattern)?;
            let regex = pattern.over(text.len(), eval.budget())?.ok_or("no pattern")?;
            of_pattern(eval, name, text, regex, rest)?.ok_or_else(wrong)
        }
        ("replace" | "split", [Val::Text(text), Val::Text(what), rest @ ..]) => of_parts(eval, name, text, what, rest)?.ok_or_else(wrong),
        (_, [Val::Text(text), rest @ ..]) => of_text(eval, name, text, rest)?.ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// What a function comes to; none where it takes no such arguments.
type Found<'v> = Result<Option<Val<'v>>, String>;

/// The place of an item; -1 where there is none.
fn place<'v>(at: Option<usize>) -> Val<'v> {
    Val::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

/// A value as text.
fn written<'v>(eval: &mut Eval<'v, '_>, of: &Val<'v>) -> Found<'v> {
    let text = match of {
        Val::Text(_) => return Ok(Some(of.clone())),
        Val::Int(it) => it.to_string(),
        Val::Uint(it) => it.to_string(),
        Val::Double(it) => it.to_string(),
        Val::Bool(it) => it.to_string(),
        Val::Time(it) => it.to_string(),
        Val::Span(it) => format!("{}s", it.as_secs_f64()),
        _ => return Ok(None),
    };
    eval.text(&text).map(Some)
}

fn convert<'v>(name: &str, of: &Val<'v>) -> Option<Outcome<'v>> {
    let unreadable = |text: &str| Err(format!("{:?} is no {name}", cut(text, SHOWN)));
    Some(match (name, of) {
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) => Ok(of.clone()),
        ("bool", Val::Bool(_)) | ("duration", Val::Span(_)) | ("timestamp", Val::Time(_)) => Ok(of.clone()),
        ("int", Val::Uint(it)) => i64::try_from(*it).map(Val::Int).map_err(|_| overflow()),
        #[allow(clippy::cast_possible_truncation)] // bounded
        ("int", Val::Double(it)) if it.abs() < 9.2e18 => Ok(Val::Int(*it as i64)),
        ("int", Val::Time(it)) => Ok(Val::Int(it.as_second())),
        ("int", Val::Text(text)) => text.parse().map_or_else(|_| unreadable(text), |it| Ok(Val::Int(it))),
        ("uint", Val::Int(it)) => u64::try_from(*it).map(Val::Uint).map_err(|_| overflow()),
        ("uint", Val::Text(text)) => text.parse().map_or_else(|_| unreadable(text), |it| Ok(Val::Uint(it))),
        #[allow(clippy::cast_precision_loss)] // as in the language
        ("double", Val::Int(it)) => Ok(Val::Double(*it as f64)),
        #[allow(clippy::cast_precision_loss)]
        ("double", Val::Uint(it)) => Ok(Val::Double(*it as f64)),
        ("double", Val::Text(text)) => text.parse().map_or_else(|_| unreadable(text), |it| Ok(Val::Double(it))),
        ("bool", Val::Text(text)) => text.parse().map_or_else(|_| unreadable(text), |it| Ok(Val::Bool(it))),
        ("duration", Val::Text(text)) => span(text).map_or_else(|| unreadable(text), |it| Ok(Val::Span(it))),
        ("timestamp", Val::Text(text)) => text.parse().map_or_else(|_| unreadable(text), |it| Ok(Val::Time(it))),
        _ => return None,
    })
}

fn of_span<'v>(name: &str, span: SignedDuration) -> Option<Val<'v>> {
    let seconds = span.as_secs();
    Some(Val::Int(match name {
        "getSeconds" => seconds,
        "getMinutes" => seconds / 60,
        "getHours" => seconds / 3600,
        "getMilliseconds" => i64::try_from(span.as_millis() % 1000).unwrap_or_default(),
        _ => return None,
    }))
}

fn of_list<'v>(eval: &mut Eval<'v, '_>, name: &str, items: &[Val<'v>], more: Option<&Val<'v>>) -> Found<'v> {
    Ok(Some(match (name, more) {
        ("isSorted", None) => {
            for pair in items.windows(2) {
                if pair[0].order(&pair[1], eval.budget())?.is_none_or(Ordering::is_gt) {
                    return Ok(Some(Val::Bool(false)));
                }
            }
            Val::Bool(true)
        }
        ("min", None) => best(eval, name, items, Ordering::Less)?,
        ("max", None) => best(eval, name, items, Ordering::Greater)?,
        ("sum", None) => return sum(items).transpose(),
        ("reverse", None) => Val::list(items.iter().rev().cloned().collect()),
        ("distinct", None) => {
            let mut found: Vec<Val<'v>> = Vec::new();
            for item in items {
                if eval.place(Some(found.iter().cloned()), item)?.is_none() {
                    found.push(item.clone());
                }
            }
            Val::list(found)
        }
        ("flatten", None) => {
            let size = |item: &Val<'v>| if item.is_list() { item.size().unwrap_or(0) } else { 1 };
            eval.pay_list(items.iter().map(size).sum())?;
            let mut flat = Vec::new();
            for item in items {
                if item.is_list() { flat.extend(item.items().into_iter().flatten()) } else { flat.push(item.clone()) }
            }
            Val::list(flat)
        }
        ("join", None) => return join(eval, items, ""),
        ("join", Some(Val::Text(between))) => return join(eval, items, between),
        _ => return Ok(None),
    }))
}

fn best<'v>(eval: &mut Eval<'v, '_>, name: &str, items: &[Val<'v>], wanted: Ordering) -> Outcome<'v> {
    let (first, rest) = items.split_first().ok_or_else(|| format!("{name} of an empty list"))?;
    let mut best = first;
    for item in rest {
        match item.order(best, eval.budget())? {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return Err(no_overload(name, &[item, best])),
        }
    }
    Ok(best.clone())
}

fn join<'v>(eval: &mut Eval<'v, '_>, items: &[Val<'v>], between: &str) -> Found<'v> {
    let texts: Option<Vec<&str>> = items.iter().map(|item| if let Val::Text(text) = item { Some(&**text) } else { None }).collect();
    let Some(texts) = texts else { return Ok(None) };
    // A list may have one long text many times.
    let length = texts.iter().map(|text| text.len() + between.len()).fold(0, usize::saturating_add);
    eval.budget().make(length)?;
    eval.text(&texts.join(between)).map(Some)
}

fn sum<'v>(items: &[Val<'v>]) -> Option<Outcome<'v>> {
    let mut total: Option<Val<'v>> = None;
    for item in items {
        total = Some(match (total, item) {
            (None, Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Span(_)) => item.clone(),
            (Some(Val::Int(one)), Val::Int(other)) => match one.checked_add(*other) {
                Some(sum) => Val::Int(sum),
                None => return Some(Err(overflow())),
            },
            (Some(Val::Uint(one)), Val::Uint(other)) => match one.checked_add(*other) {
                Some(sum) => Val::Uint(sum),
                None => return Some(Err(overflow())),
            },
            (Some(Val::Double(one)), Val::Double(other)) => Val::Double(one + other),
            (Some(Val::Span(one)), Val::Span(other)) => Val::Span(one.saturating_add(*other)),
            _ => return None,
        });
    }
    Some(Ok(total.unwrap_or(Val::Int(0))))
}

/// `matches`, `find` and `findAll`, of a text that is paid for.
fn of_pattern<'v>(eval: &mut Eval<'v, '_>, name: &str, text: &str, regex: &Regex, args: &[Val<'v>]) -> Found<'v> {
    match (name, args) {
        ("matches", []) => Ok(Some(Val::Bool(regex.is_match(text)))),
        ("find", []) => eval.text(regex.find(text).map_or("", |found| found.as_str())).map(Some),
        ("findAll", rest) => {
            let Some(most) = count(rest) else { return Ok(None) };
            let mut all = Vec::new();
            for found in regex.find_iter(text).take(most) {
                eval.pay_list(1)?;
                all.push(eval.text(found.as_str())?);
            }
            Ok(Some(Val::list(all)))
        }
        _ => Ok(None),
    }
}

/// `replace` and `split`: what they make is counted before it is made.
fn of_parts<'v>(eval: &mut Eval<'v, '_>, name: &str, text: &str, what: &str, args: &[Val<'v>]) -> Found<'v> {
    let (to, rest) = match (name, args) {
        ("replace", [Val::Text(to), rest @ ..]) => (Some(to), rest),
        ("split", rest) => (None, rest),
        _ => return Ok(None),
    };
    let Some(most) = count(rest) else { return Ok(None) };
    let times = text.matches(what).count().min(most);
    eval.budget().steps(times)?;
    let Some(to) = to else {
        eval.pay_list(times + 1)?;
        let mut parts = Vec::new();
        match most {
            0 => {}
            _ if what.is_empty() => {
                for (at, c) in text.char_indices() {
                    parts.push(eval.text(&text[at..at + c.len_utf8()])?);
                }
            }
            most => {
                for part in text.splitn(most, what) {
                    parts.push(eval.text(part)?);
                }
            }
        }
        return Ok(Some(Val::list(parts)));
    };
    eval.budget().make(text.len().saturating_add(times.saturating_mul(to.len())))?;
    eval.text(&text.replacen(what, to, most)).map(Some)
}

fn of_text<'v>(eval: &mut Eval<'v, '_>, name: &str, text: &str, args: &[Val<'v>]) -> Found<'v> {
    let index = |at: Option<usize>| place(at.map(|at| text[..at].chars().count()));
    let part = match (name, args) {
        ("contains", [Val::Text(other)]) => return Ok(Some(Val::Bool(text.contains(&**other)))),
        ("startsWith", [Val::Text(other)]) => return Ok(Some(Val::Bool(text.starts_with(&**other)))),
        ("endsWith", [Val::Text(other)]) => return Ok(Some(Val::Bool(text.ends_with(&**other)))),
        ("indexOf", [Val::Text(other)]) => return Ok(Some(index(text.find(&**other)))),
        ("indexOf", [Val::Text(other), Val::Int(from)]) => {
            return Ok(byte(text, *from).map(|from| index(text[from..].find(&**other).map(|at| at + from))));
        }
        ("lastIndexOf", [Val::Text(other)]) => return Ok(Some(index(text.rfind(&**other)))),
        ("isIP", []) => return Ok(Some(Val::Bool(text.parse::<std::net::IpAddr>().is_ok()))),
        ("isCIDR", []) => return Ok(Some(Val::Bool(super::super::format::fits("cidr", text)))),
        ("isURL", []) => return Ok(Some(Val::Bool(super::super::format::fits("uri", text)))),
        ("isQuantity", []) => return Ok(Some(Val::Bool(crate::model::quantity::Quantity::parse(text).is_ok()))),
        ("lowerAscii" | "upperAscii", []) => {
            eval.budget().make(text.len())?;
            let changed = if name == "lowerAscii" { text.to_ascii_lowercase() } else { text.to_ascii_uppercase() };
            return eval.text(&changed).map(Some);
        }
        ("trim", []) => Some(text.trim()),
        ("charAt", [Val::Int(at)]) => byte(text, *at).map(|at| text[at..].chars().next().map_or("", |c| &text[at..at + c.len_utf8()])),
        ("substring", [Val::Int(from)]) => byte(text, *from).map(|from| &text[from..]),
        ("substring", [Val::Int(from), Val::Int(to)]) => match (byte(text, *from), byte(text, *to)) {
            (Some(from), Some(to)) => Some(text.get(from..to).ok_or("index out of range")?),
            _ => None,
        },
        _ => None,
    };
    part.map(|part| eval.text(part)).transpose()
}

/// A limit that may be left out; below zero it is none.
fn count(args: &[Val<'_>]) -> Option<usize> {
    match args {
        [] => Some(usize::MAX),
        [Val::Int(most)] => Some(usize::try_from(*most).unwrap_or(usize::MAX)),
        _ => None,
    }
}

/// Where the character of an index begins.
fn byte(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}
