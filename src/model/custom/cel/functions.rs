//! The functions of rules: the language's own, and Kubernetes' for strings, lists and patterns. PURE.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::eval::{Eval, no_overload, overflow};
use super::parse::Expr;
use super::value::{Val, span};
use crate::model::custom::schema::Pattern;
use jiff::SignedDuration;

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

/// Steps for a pattern that is known only when it is asked for.
const COMPILED: usize = 5_000;

/// Whether there is a function.
pub(super) fn known(name: &str, is_method: bool, args: usize) -> Result<(), String> {
    let mut of_name = FUNCTIONS.iter().filter(|(known, method, _)| *known == name && *method == is_method).peekable();
    if of_name.peek().is_none() {
        return Err(format!("undeclared reference to '{name}' (a function that is not supported)"));
    }
    let fits = of_name.any(|(_, _, counts)| counts.contains(&args));
    if fits { Ok(()) } else { Err(format!("found no matching overload for '{name}' with {args} arguments")) }
}

type Outcome<'v> = Result<Val<'v>, String>;

/// The patterns that an expression has as texts: they are compiled once.
pub(super) fn patterns(root: &Expr) -> BTreeMap<String, Pattern> {
    let (mut found, mut todo) = (BTreeMap::new(), vec![root]);
    while let Some(expr) = todo.pop() {
        if let Expr::Call(target, name, args) = expr
            && let Some(Expr::Text(text)) = args.get(usize::from(target.is_none()))
            && matches!(name.as_str(), "matches" | "find" | "findAll")
        {
            found.entry(text.clone()).or_insert_with(|| Pattern::new(text));
        }
        todo.extend(expr.parts());
    }
    found
}

/// Calls a function; what it is called on is the first argument.
pub(super) fn call<'v>(eval: &mut Eval<'v, '_>, name: &str, args: &[Val<'v>]) -> Outcome<'v> {
    for arg in args {
        eval.pay_for(arg)?;
    }
    let wrong = || no_overload(name, &args.iter().collect::<Vec<_>>());
    match (name, args) {
        ("size", [of]) => of.size().and_then(|size| i64::try_from(size).ok()).map(Val::Int).ok_or_else(wrong),
        ("dyn", [of]) => Ok(of.clone()),
        ("type", [of]) => Ok(Val::Type(of.type_name())),
        ("int" | "uint" | "double" | "string" | "bool" | "duration" | "timestamp", [of]) => convert(name, of).ok_or_else(wrong)?,
        ("join", [of, Val::Text(between)]) if of.is_list() => {
            eval.pay(of.size().unwrap_or(0).saturating_mul(between.len()) / 64)?;
            of_list(name, &of.items().unwrap_or_default(), args.get(1)).ok_or_else(wrong)?
        }
        ("isSorted" | "sum" | "min" | "max" | "reverse" | "flatten" | "join", [of, ..]) if of.is_list() => {
            of_list(name, &of.items().unwrap_or_default(), args.get(1)).ok_or_else(wrong)?
        }
        ("indexOf" | "lastIndexOf", [of, item]) if of.is_list() => {
            let items = of.items().unwrap_or_default();
            let at = if name == "indexOf" { items.iter().position(|it| it == item) } else { items.iter().rposition(|it| it == item) };
            Ok(Val::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
        }
        (_, [Val::Span(span)]) => of_span(name, *span).ok_or_else(wrong),
        ("getFullYear", [Val::Time(time)]) => Ok(Val::Int(i64::from(time.to_zoned(jiff::tz::TimeZone::UTC).year()))),
        ("matches" | "find" | "findAll", [Val::Text(text), Val::Text(pattern), rest @ ..]) => {
            by_pattern(eval, name, text, pattern, rest).ok_or_else(wrong)?
        }
        ("distinct", [of]) if of.is_list() => {
            let count = of.size().unwrap_or(0);
            // Each is compared with those before it: as much as it holds, again and again.
            for _ in 0..count / 16 {
                eval.pay_for(of)?;
            }
            Ok(distinct(&of.items().unwrap_or_default()))
        }
        (_, [Val::Text(text), rest @ ..]) => of_text(name, text, rest).ok_or_else(wrong)?,
        _ => Err(wrong()),
    }
}

fn convert<'v>(name: &str, of: &Val<'v>) -> Option<Outcome<'v>> {
    let unreadable = |text: &str| Err(format!("{text:?} is no {name}"));
    Some(match (name, of) {
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) | ("string", Val::Text(_)) => Ok(of.clone()),
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
        ("string", Val::Int(it)) => Ok(Val::text(it.to_string())),
        ("string", Val::Uint(it)) => Ok(Val::text(it.to_string())),
        ("string", Val::Double(it)) => Ok(Val::text(it.to_string())),
        ("string", Val::Bool(it)) => Ok(Val::text(it.to_string())),
        ("string", Val::Time(it)) => Ok(Val::text(it.to_string())),
        ("string", Val::Span(it)) => Ok(Val::text(format!("{}s", it.as_secs_f64()))),
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

fn of_list<'v>(name: &str, items: &[Val<'v>], more: Option<&Val<'v>>) -> Option<Outcome<'v>> {
    let best = |wanted: std::cmp::Ordering| {
        let mut items = items.iter();
        let first = items.next().ok_or_else(|| format!("{name} of an empty list"))?.clone();
        items.try_fold(first, |best, item| match item.order(&best) {
            Some(order) if order == wanted => Ok(item.clone()),
            Some(_) => Ok(best),
            None => Err(no_overload(name, &[item, &best])),
        })
    };
    Some(match (name, more) {
        ("isSorted", None) => Ok(Val::Bool(items.windows(2).all(|pair| pair[0].order(&pair[1]).is_some_and(std::cmp::Ordering::is_le)))),
        ("min", None) => best(std::cmp::Ordering::Less),
        ("max", None) => best(std::cmp::Ordering::Greater),
        ("sum", None) => sum(items)?,
        ("reverse", None) => Ok(Val::list(items.iter().rev().cloned().collect())),
        ("flatten", None) => Ok(Val::list(
            items.iter().flat_map(|item| if item.is_list() { item.items().unwrap_or_default() } else { vec![item.clone()] }).collect(),
        )),
        ("join", _) => {
            let between = match more {
                None => "",
                Some(Val::Text(text)) => text,
                Some(_) => return None,
            };
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| if let Val::Text(text) = item { Some(text.as_ref()) } else { None }).collect();
            Ok(Val::text(texts?.join(between)))
        }
        _ => return None,
    })
}

fn distinct<'v>(items: &[Val<'v>]) -> Val<'v> {
    let mut found: Vec<Val<'v>> = Vec::new();
    for item in items {
        if !found.contains(item) {
            found.push(item.clone());
        }
    }
    Val::list(found)
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

fn by_pattern<'v>(eval: &mut Eval<'v, '_>, name: &str, text: &str, pattern: &str, rest: &[Val<'v>]) -> Option<Outcome<'v>> {
    let most = count(rest)?;
    let made;
    let known = match eval.patterns.get(pattern) {
        Some(known) => known,
        None => {
            if let Err(why) = eval.pay(COMPILED) {
                return Some(Err(why));
            }
            made = Pattern::new(pattern);
            &made
        }
    };
    let Some(regex) = known.regex() else { return Some(Err(format!("{pattern:?} is no pattern"))) };
    Some(Ok(match name {
        "matches" => Val::Bool(regex.is_match(text)),
        "find" => Val::text(regex.find(text).map_or("", |found| found.as_str())),
        _ => Val::list(regex.find_iter(text).take(most).map(|it| Val::text(it.as_str())).collect()),
    }))
}

fn of_text<'v>(name: &str, text: &str, args: &[Val<'v>]) -> Option<Outcome<'v>> {
    let index = |at: Option<usize>| Val::Int(at.map_or(-1, |at| i64::try_from(text[..at].chars().count()).unwrap_or(-1)));
    Some(match (name, args) {
        ("contains", [Val::Text(other)]) => Ok(Val::Bool(text.contains(other.as_ref()))),
        ("startsWith", [Val::Text(other)]) => Ok(Val::Bool(text.starts_with(other.as_ref()))),
        ("endsWith", [Val::Text(other)]) => Ok(Val::Bool(text.ends_with(other.as_ref()))),
        ("indexOf", [Val::Text(other)]) => Ok(index(text.find(other.as_ref()))),
        ("indexOf", [Val::Text(other), Val::Int(from)]) => {
            let from = byte(text, *from)?;
            Ok(index(text[from..].find(other.as_ref()).map(|at| at + from)))
        }
        ("lastIndexOf", [Val::Text(other)]) => Ok(index(text.rfind(other.as_ref()))),
        ("charAt", [Val::Int(at)]) => {
            let at = byte(text, *at)?;
            Ok(Val::text(text[at..].chars().take(1).collect::<String>()))
        }
        ("lowerAscii", []) => Ok(Val::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Val::text(text.trim())),
        ("replace", [Val::Text(from), Val::Text(to), rest @ ..]) => {
            let most = count(rest)?;
            // What is empty is everywhere: the result is bounded by the text and what stands in its place.
            if to.len().saturating_mul(text.len() + 1) > 1 << 20 {
                Err("the text becomes too long".to_owned())
            } else {
                Ok(Val::text(text.replacen(from.as_ref(), to, most)))
            }
        }
        ("split", [Val::Text(by), rest @ ..]) => {
            let most = count(rest)?;
            let parts: Vec<Val<'v>> = match most {
                0 => Vec::new(),
                _ if by.is_empty() => text.chars().map(|c| Val::text(c.to_string())).collect(),
                most => text.splitn(most, by.as_ref()).map(Val::text).collect(),
            };
            Ok(Val::List(Rc::new(parts)))
        }
        ("substring", [Val::Int(from)]) => Ok(Val::text(&text[byte(text, *from)?..])),
        ("substring", [Val::Int(from), Val::Int(to)]) => {
            let (from, to) = (byte(text, *from)?, byte(text, *to)?);
            text.get(from..to).map(Val::text).ok_or_else(|| "index out of range".to_owned())
        }
        ("isIP", []) => Ok(Val::Bool(text.parse::<std::net::IpAddr>().is_ok())),
        ("isCIDR", []) => Ok(Val::Bool(super::super::format::fits("cidr", text))),
        ("isURL", []) => Ok(Val::Bool(super::super::format::fits("uri", text))),
        ("isQuantity", []) => Ok(Val::Bool(crate::model::quantity::Quantity::parse(text).is_ok())),
        _ => return None,
    })
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
