//! What an expression comes to on an object. PURE.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::functions;
use super::parse::{Expr, Fold, Macro, Node};
use super::value::{Text, Val};
use crate::model::custom::budget::{Budget, Spent};
use crate::model::custom::pattern::Pattern;
use crate::model::rule::cut;

/// Bytes of a text in a message.
pub(super) const SHOWN: usize = 100;

/// Bytes of a value in a list, and those that a text takes besides its own.
pub(super) const VALUE: usize = size_of::<Val<'_>>();
/// Steps that reading a pattern takes at least, and with each of its bytes.
const PATTERN_STEPS: (usize, usize) = (1000, 100);

/// What the rules of one object may take together, and the patterns they asked for.
pub struct Run {
    pub budget: Budget,
    patterns: BTreeMap<String, Rc<Pattern>>,
}

impl Run {
    pub const fn new(budget: Budget) -> Self {
        Self { budget, patterns: BTreeMap::new() }
    }

    /// The pattern of a text, read once.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Rc<Pattern>, String> {
        self.budget.look(text.len())?;
        if let Some(known) = self.patterns.get(text) {
            return Ok(Rc::clone(known));
        }
        let (least, each) = PATTERN_STEPS;
        self.budget.steps(least + each.saturating_mul(text.len()))?;
        let pattern = Pattern::new(text);
        // It stays: what it takes is paid as what is made.
        self.budget.make(pattern.weight())?;
        self.budget.steps(pattern.weight() / 16)?;
        if !pattern.is_valid() {
            return Err(format!("{:?} is no pattern, or too large", cut(text, SHOWN)));
        }
        let pattern = Rc::new(pattern);
        self.patterns.insert(text.to_owned(), Rc::clone(&pattern));
        Ok(pattern)
    }
}

/// Evaluates expressions; each step costs.
pub(super) struct Eval<'v, 'r> {
    /// Names and what they stand for, the innermost last.
    pub names: Vec<(&'v str, Val<'v>)>,
    pub run: &'r mut Run,
}

pub(super) type Outcome<'v> = Result<Val<'v>, String>;

impl<'v> Eval<'v, '_> {
    pub fn budget(&mut self) -> &mut Budget {
        &mut self.run.budget
    }

    /// A text that was made; of a long one, what it takes is paid before by whoever makes it.
    pub fn text(&mut self, text: &str) -> Outcome<'v> {
        self.budget().make(text.len() + VALUE)?;
        Ok(Val::Text(Text::Own(text.into())))
    }

    /// Pays for a list of so many values.
    pub fn pay_list(&mut self, count: usize) -> Result<(), Spent> {
        self.budget().steps(count)?;
        self.budget().make(count.saturating_mul(VALUE))
    }

    pub fn value(&mut self, expr: &'v Expr) -> Outcome<'v> {
        self.budget().steps(1)?;
        match &expr.node {
            Node::Null => Ok(Val::Null),
            Node::Bool(it) => Ok(Val::Bool(*it)),
            Node::Int(it) => Ok(Val::Int(*it)),
            Node::Uint(it) => Ok(Val::Uint(*it)),
            Node::Double(it) => Ok(Val::Double(*it)),
            Node::Text(it) => Ok(Val::lent(it)),
            Node::List(items) => {
                self.pay_list(items.len())?;
                items.iter().map(|item| self.value(item)).collect::<Result<_, _>>().map(Val::list)
            }
            Node::Map(entries) => {
                self.pay_list(2 * entries.len())?;
                let entries = entries.iter().map(|(key, value)| Ok((self.value(key)?, self.value(value)?)));
                entries.collect::<Result<Vec<_>, String>>().map(|entries| Val::Map(Rc::new(entries)))
            }
            Node::Name(name) => self.name(name),
            Node::Field(of, name) => self.field(of, name)?.ok_or_else(|| format!("no such key: {}", cut(name, SHOWN))),
            Node::Index(of, index) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                self.item(&of, &index)
            }
            Node::Has(of, name) => self.field(of, name).map(|found| Val::Bool(found.is_some())),
            Node::Call(target, name, args) => {
                let all = target.as_deref().into_iter().chain(args).map(|it| self.value(it)).collect::<Result<Vec<_>, _>>()?;
                functions::call(self, name, &all)
            }
            Node::Not(of) => Ok(Val::Bool(!self.truth(of)?)),
            Node::Minus(of) => match self.value(of)? {
                Val::Int(it) => it.checked_neg().map(Val::Int).ok_or_else(overflow),
                Val::Double(it) => Ok(Val::Double(-it)),
                other => Err(no_overload("-", &[&other])),
            },
            Node::Binary(sign, left, right) => self.binary(sign, left, right),
            Node::If(test, then, otherwise) => {
                if self.truth(test)? {
                    self.value(then)
                } else {
                    self.value(otherwise)
                }
            }
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn field(&mut self, of: &'v Expr, name: &'v str) -> Result<Option<Val<'v>>, String> {
        let of = self.value(of)?;
        Ok(of.get(&Val::lent(name), self.budget())?)
    }

    fn name(&self, name: &str) -> Outcome<'v> {
        let found = self.names.iter().rev().find(|(there, _)| *there == name).map(|(_, value)| value.clone());
        let type_ = || functions::TYPES.iter().find(|it| **it == name).map(|it| Val::Type(it));
        found.or_else(type_).ok_or_else(|| format!("no such attribute: {}", cut(name, SHOWN)))
    }

    pub fn truth(&mut self, expr: &'v Expr) -> Result<bool, String> {
        match self.value(expr)? {
            Val::Bool(it) => Ok(it),
            other => Err(format!("a {} is neither true nor false", other.type_name())),
        }
    }

    fn binary(&mut self, sign: &'static str, left: &'v Expr, right: &'v Expr) -> Outcome<'v> {
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
            "==" | "!=" => Ok(Val::Bool(left.same(&right, self.budget())? == (sign == "=="))),
            "in" if right.is_list() => Ok(Val::Bool(self.place(right.items(), &left)?.is_some())),
            "in" if right.items().is_some() => Ok(Val::Bool(right.get(&left, self.budget())?.is_some())),
            "in" => Err(no_overload("in", &[&left, &right])),
            "<" | "<=" | ">" | ">=" => {
                let order = left.order(&right, self.budget())?.ok_or_else(|| no_overload(sign, &[&left, &right]))?;
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
                self.budget().make(one.len() + other.len())?;
                self.text(&[&**one, other].concat())
            }
            (Val::Time(time), Val::Span(span)) if sign == "+" => time.checked_add(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Span(span), Val::Time(time)) if sign == "+" => time.checked_add(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Time(time), Val::Span(span)) if sign == "-" => time.checked_sub(*span).map(Val::Time).map_err(|_| overflow()),
            (Val::Time(one), Val::Time(other)) if sign == "-" => Ok(Val::Span(one.duration_since(*other))),
            (Val::Span(one), Val::Span(other)) if sign == "+" => one.checked_add(*other).map(Val::Span).ok_or_else(overflow),
            (Val::Span(one), Val::Span(other)) if sign == "-" => one.checked_sub(*other).map(Val::Span).ok_or_else(overflow),
            (one, other) if sign == "+" && one.is_list() && other.is_list() => {
                self.pay_list(one.size().unwrap_or(0) + other.size().unwrap_or(0))?;
                Ok(Val::list([one, other].into_iter().filter_map(Val::items).flatten().collect()))
            }
            _ => Err(wrong()),
        }
    }

    /// The place of the first item that is the same.
    pub fn place(&mut self, items: Option<impl Iterator<Item = Val<'v>>>, wanted: &Val<'v>) -> Result<Option<usize>, Spent> {
        for (at, item) in items.into_iter().flatten().enumerate() {
            if item.same(wanted, self.budget())? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn fold(&mut self, fold: &'v Fold) -> Outcome<'v> {
        let over = self.value(&fold.over)?;
        let items = over.items().ok_or_else(|| format!("a {} has no items", over.type_name()))?;
        let (mut kept, mut count, mut fault) = (Vec::new(), 0, None);
        for item in items {
            self.budget().steps(1)?;
            self.names.push((&fold.name, item.clone()));
            let taken = self.taken(fold, item, &mut kept);
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
    fn taken(&mut self, fold: &'v Fold, item: Val<'v>, kept: &mut Vec<Val<'v>>) -> Result<bool, String> {
        if fold.macro_ != Macro::Map {
            let passes = self.truth(&fold.body)?;
            if passes && fold.macro_ == Macro::Filter {
                self.pay_list(1)?;
                kept.push(item);
            }
            return Ok(passes);
        }
        let passes = fold.filter.as_ref().map_or(Ok(true), |filter| self.truth(filter))?;
        if passes {
            let value = self.value(&fold.body)?;
            self.pay_list(1)?;
            kept.push(value);
        }
        Ok(passes)
    }

    fn item(&mut self, of: &Val<'v>, index: &Val<'v>) -> Outcome<'v> {
        if !of.is_list() {
            return of.get(index, self.budget())?.ok_or_else(|| "no such key".to_owned());
        }
        let at = match index {
            Val::Int(at) => usize::try_from(*at).ok(),
            Val::Uint(at) => usize::try_from(*at).ok(),
            other => return Err(no_overload("[]", &[of, other])),
        };
        at.and_then(|at| of.item(at)).ok_or_else(|| "index out of bounds".to_owned())
    }
}

pub(super) fn no_overload(name: &str, values: &[&Val<'_>]) -> String {
    let types: Vec<&str> = values.iter().map(|value| value.type_name()).collect();
    format!("no such overload: {name} of {}", types.join(" and "))
}

pub(super) fn overflow() -> String {
    "a number or time does not fit".to_owned()
}
