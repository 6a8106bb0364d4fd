//! What an expression comes to on an object. PURE.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::functions;
use super::parse::{Expr, Fold, Macro};
use super::value::Val;
use crate::model::custom::schema::Pattern;

/// Evaluates expressions; each step costs.
pub(super) struct Eval<'v, 'p> {
    /// Names and what they stand for, the innermost last.
    pub names: Vec<(String, Val<'v>)>,
    pub patterns: &'p BTreeMap<String, Pattern>,
    pub left: u64,
}

type Outcome<'v> = Result<Val<'v>, String>;

impl<'v> Eval<'v, '_> {
    /// Pays for steps. Who cannot, cannot pay for anything any more.
    pub fn pay(&mut self, steps: usize) -> Result<(), String> {
        let left = self.left.checked_sub(steps as u64);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or_else(too_long)
    }

    /// Pays for a look at all that a value holds.
    pub fn pay_for(&mut self, value: &Val<'_>) -> Result<(), String> {
        if value.weigh(&mut self.left) { Ok(()) } else { Err(too_long()) }
    }

    pub fn value(&mut self, expr: &Expr) -> Outcome<'v> {
        self.pay(1)?;
        match expr {
            Expr::Null => Ok(Val::Null),
            Expr::Bool(it) => Ok(Val::Bool(*it)),
            Expr::Int(it) => Ok(Val::Int(*it)),
            Expr::Uint(it) => Ok(Val::Uint(*it)),
            Expr::Double(it) => Ok(Val::Double(*it)),
            Expr::Text(it) => {
                self.pay(it.len() / 64)?;
                Ok(Val::text(it.as_str()))
            }
            Expr::List(items) => items.iter().map(|item| self.value(item)).collect::<Result<_, _>>().map(Val::list),
            Expr::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| Ok((self.value(key)?, self.value(value)?)));
                entries.collect::<Result<Vec<_>, String>>().map(|entries| Val::Map(Rc::new(entries)))
            }
            Expr::Name(name) => {
                let found = self.name(name)?;
                if let Val::Text(Cow::Owned(text)) = &found {
                    self.pay(text.len() / 64)?;
                }
                Ok(found)
            }
            Expr::Field(of, name) => {
                let of = self.value(of)?;
                of.get(&Val::text(unescape(name))).ok_or_else(|| format!("no such key: {name}"))
            }
            Expr::Index(of, index) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                item(&of, &index)
            }
            Expr::Has(of, name) => {
                let of = self.value(of)?;
                Ok(Val::Bool(of.get(&Val::text(unescape(name))).is_some()))
            }
            Expr::Call(target, name, args) => {
                let mut all = target.iter().map(|target| self.value(target)).collect::<Result<Vec<_>, _>>()?;
                for arg in args {
                    all.push(self.value(arg)?);
                }
                let result = functions::call(self, name, &all)?;
                self.pay_for(&result)?;
                Ok(result)
            }
            Expr::Not(of) => Ok(Val::Bool(!self.truth(of)?)),
            Expr::Minus(of) => match self.value(of)? {
                Val::Int(it) => it.checked_neg().map(Val::Int).ok_or_else(overflow),
                Val::Double(it) => Ok(Val::Double(-it)),
                other => Err(no_overload("-", &[&other])),
            },
            Expr::Binary(sign, left, right) => self.binary(sign, left, right),
            Expr::If(test, then, otherwise) => {
                if self.truth(test)? {
                    self.value(then)
                } else {
                    self.value(otherwise)
                }
            }
            Expr::Fold(fold) => self.fold(fold),
        }
    }

    fn name(&self, name: &str) -> Outcome<'v> {
        let found = self.names.iter().rev().find(|(there, _)| there == name).map(|(_, value)| value.clone());
        let type_ = || functions::TYPES.iter().find(|it| **it == name).map(|it| Val::Type(it));
        found.or_else(type_).ok_or_else(|| format!("no such attribute: {name}"))
    }

    pub fn truth(&mut self, expr: &Expr) -> Result<bool, String> {
        match self.value(expr)? {
            Val::Bool(it) => Ok(it),
            other => Err(format!("a {} is neither true nor false", other.type_name())),
        }
    }

    fn binary(&mut self, sign: &'static str, left: &Expr, right: &Expr) -> Outcome<'v> {
        if matches!(sign, "&&" | "||") {
            // One side that decides outweighs a fault of the other.
            let decides = sign == "||";
            let one = self.truth(left);
            if one == Ok(decides) {
                return Ok(Val::Bool(decides));
            }
            return match (one, self.truth(right)) {
                (_, Ok(other)) if other == decides => Ok(Val::Bool(decides)),
                (Err(fault), _) | (_, Err(fault)) => Err(fault),
                (Ok(_), Ok(_)) => Ok(Val::Bool(!decides)),
            };
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        match sign {
            "==" | "!=" => {
                self.pay_for(&left)?;
                Ok(Val::Bool((left == right) == (sign == "==")))
            }
            "in" => {
                self.pay_for(&right)?;
                let items = right.items().ok_or_else(|| no_overload("in", &[&left, &right]))?;
                Ok(Val::Bool(items.contains(&left)))
            }
            "<" | "<=" | ">" | ">=" => {
                self.pay_for(&left)?;
                let order = left.order(&right).ok_or_else(|| no_overload(sign, &[&left, &right]))?;
                Ok(Val::Bool(match sign {
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            _ => self.arithmetic(sign, &left, &right),
        }
    }

    fn arithmetic(&mut self, sign: &'static str, left: &Val<'v>, right: &Val<'v>) -> Outcome<'v> {
        let wrong = || no_overload(sign, &[left, right]);
        match (left, right) {
            (Val::Int(one), Val::Int(other)) => {
                let result = match sign {
                    "+" => one.checked_add(*other),
                    "-" => one.checked_sub(*other),
                    "*" => one.checked_mul(*other),
                    "/" | "%" if *other == 0 => return Err("division by zero".to_owned()),
                    "/" => one.checked_div(*other),
                    _ => one.checked_rem(*other),
                };
                result.map(Val::Int).ok_or_else(overflow)
            }
            (Val::Uint(one), Val::Uint(other)) => {
                let result = match sign {
                    "+" => one.checked_add(*other),
                    "-" => one.checked_sub(*other),
                    "*" => one.checked_mul(*other),
                    "/" | "%" if *other == 0 => return Err("division by zero".to_owned()),
                    "/" => one.checked_div(*other),
                    _ => one.checked_rem(*other),
                };
                result.map(Val::Uint).ok_or_else(overflow)
            }
            (Val::Double(one), Val::Double(other)) => Ok(Val::Double(match sign {
                "+" => one + other,
                "-" => one - other,
                "*" => one * other,
                "/" => one / other,
                _ => return Err(wrong()),
            })),
            (Val::Text(one), Val::Text(other)) if sign == "+" => {
                self.pay(one.len() + other.len())?;
                Ok(Val::text(format!("{one}{other}")))
            }
            (Val::Time(time), Val::Span(span)) if sign == "+" => time.checked_add(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Span(span), Val::Time(time)) if sign == "+" => time.checked_add(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Time(time), Val::Span(span)) if sign == "-" => time.checked_sub(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Time(one), Val::Time(other)) if sign == "-" => Ok(Val::Span(one.duration_since(*other))),
            (Val::Span(one), Val::Span(other)) if sign == "+" => one.checked_add(*other).map(Val::Span).ok_or_else(overflow),
            (Val::Span(one), Val::Span(other)) if sign == "-" => one.checked_sub(*other).map(Val::Span).ok_or_else(overflow),
            (one, other) if sign == "+" && one.is_list() && other.is_list() => {
                self.pay(one.size().unwrap_or(0) + other.size().unwrap_or(0))?;
                let mut items = one.items().unwrap_or_default();
                items.extend(other.items().unwrap_or_default());
                Ok(Val::list(items))
            }
            _ => Err(wrong()),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Outcome<'v> {
        let over = self.value(&fold.over)?;
        // The items are listed at once, even where the first decides.
        self.pay(over.size().unwrap_or(0))?;
        let items = over.items().ok_or_else(|| format!("a {} has no items", over.type_name()))?;
        let (mut kept, mut count, mut fault) = (Vec::new(), 0, None);
        for item in items {
            self.names.push((fold.name.clone(), item.clone()));
            let taken = self.item(fold, item, &mut kept);
            self.names.pop();
            match (fold.macro_, taken) {
                (Macro::All, Ok(false)) => return Ok(Val::Bool(false)),
                (Macro::Exists, Ok(true)) => return Ok(Val::Bool(true)),
                (Macro::All | Macro::Exists, Err(why)) => fault = Some(why),
                (_, Ok(true)) => count += 1,
                (_, Ok(false)) => {}
                (_, Err(why)) => return Err(why),
            }
        }
        match (fold.macro_, fault) {
            (_, Some(why)) => Err(why),
            (Macro::All, None) => Ok(Val::Bool(true)),
            (Macro::Exists, None) => Ok(Val::Bool(false)),
            (Macro::ExistsOne, None) => Ok(Val::Bool(count == 1)),
            (Macro::Map | Macro::Filter, None) => Ok(Val::list(kept)),
        }
    }

    /// Whether an item passes; what is kept of it goes into the list.
    fn item(&mut self, fold: &Fold, item: Val<'v>, kept: &mut Vec<Val<'v>>) -> Result<bool, String> {
        if fold.macro_ != Macro::Map {
            let passes = self.truth(&fold.body)?;
            if passes && fold.macro_ == Macro::Filter {
                kept.push(item);
            }
            return Ok(passes);
        }
        let passes = fold.filter.as_ref().map_or(Ok(true), |filter| self.truth(filter))?;
        if passes {
            let value = self.value(&fold.body)?;
            kept.push(value);
        }
        Ok(passes)
    }
}

fn item<'v>(of: &Val<'v>, index: &Val<'v>) -> Outcome<'v> {
    if !of.is_list() {
        return of.get(index).ok_or_else(|| "no such key".to_owned());
    }
    let at = match index {
        Val::Int(at) => usize::try_from(*at).ok(),
        Val::Uint(at) => usize::try_from(*at).ok(),
        other => return Err(no_overload("[]", &[of, other])),
    };
    let found = at.and_then(|at| match of {
        Val::List(items) => items.get(at).cloned(),
        Val::Items(items, schema) => items.get(at).map(|item| Val::of(item, *schema)),
        _ => None,
    });
    found.ok_or_else(|| "index out of bounds".to_owned())
}

pub(super) fn no_overload(name: &str, values: &[&Val<'_>]) -> String {
    let types: Vec<&str> = values.iter().map(|value| value.type_name()).collect();
    format!("no such overload: {name} of {}", types.join(" and "))
}

fn too_long() -> String {
    "the rule takes too long on this object".to_owned()
}

pub(super) fn overflow() -> String {
    "a number or time does not fit".to_owned()
}

/// Names of fields that are no names of the language: `__dot__`, `__slash__`, `__dash__`, `__underscores__`,
/// and words such as `__in__`.
fn unescape(name: &str) -> String {
    if !name.contains("__") {
        return name.to_owned();
    }
    const KEYWORDS: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__")).filter(|word| KEYWORDS.contains(word)) {
        return word.to_owned();
    }
    let name = name.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/");
    name.replace("__underscores__", "__")
}
