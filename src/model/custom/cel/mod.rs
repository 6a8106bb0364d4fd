//! The rules of schemas (`x-kubernetes-validations`), in the Common Expression Language. PURE.
//!
//! - `lex`, `parse`: text to an expression; a function or name that is not supported is an error here,
//!   so that no rule is kept that could not be asked
//! - `value`, `eval`, `functions`: what an expression comes to, within a budget of steps and bytes
//!
//! Left out: optional values (`?.`), the libraries for addresses, quantities, URLs, semantic versions and
//! sets (but `isIP`, `isCIDR`, `isURL`, `isQuantity`), `format`, bytes, and types checked in advance.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

use super::budget::Spent;
use eval::Eval;
pub use eval::Run;
use parse::{Expr, Node};
pub use value::Val;

/// Characters of one rule.
const LENGTH: usize = 10_000;

/// A rule, read.
#[derive(Debug)]
pub struct Program {
    root: Expr,
    /// The patterns that are written in it.
    pub patterns: Vec<String>,
    /// Whether it speaks of the object as it was: it then says something of changes only.
    pub uses_old: bool,
}

impl Program {
    /// Reads a rule.
    ///
    /// # Errors
    /// Text that is no expression, or asks for what is not supported.
    pub fn compile(text: &str) -> Result<Self, String> {
        Self::over(text, &["self", "oldSelf"])
    }

    /// The same over other names.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn over(text: &str, names: &[&str]) -> Result<Self, String> {
        if text.len() > LENGTH {
            return Err(format!("more than {LENGTH} characters"));
        }
        let (root, patterns) = parse::parse(text, names)?;
        // The name stands for nothing else, and texts are few: a word inside one costs nothing but a look.
        Ok(Self { root, patterns, uses_old: lex::tokens(text)?.contains(&lex::Token::Name("oldSelf".to_owned())) })
    }

    /// Whether the value passes. `run`: what may be spent, over several rules.
    ///
    /// # Errors
    /// What cannot be evaluated on this value.
    pub fn holds<'v>(&'v self, value: Val<'v>, old: Option<Val<'v>>, run: &mut Run) -> Result<bool, String> {
        self.ask(value, old, run, |eval, root| eval.truth(root))
    }

    /// The text it comes to.
    ///
    /// # Errors
    /// As [`Program::holds`]; what is no text.
    pub fn says<'v>(&'v self, value: Val<'v>, old: Option<Val<'v>>, run: &mut Run) -> Result<String, String> {
        self.ask(value, old, run, |eval, root| match eval.value(root)? {
            Val::Text(text) => Ok((*text).to_owned()),
            other => Err(format!("a {} is no text", other.type_name())),
        })
    }

    fn ask<'v, T>(
        &'v self,
        value: Val<'v>,
        old: Option<Val<'v>>,
        run: &mut Run,
        ask: impl FnOnce(&mut Eval<'v, '_>, &'v Expr) -> Result<T, String>,
    ) -> Result<T, String> {
        let names = std::iter::once(("self", value)).chain(old.map(|old| ("oldSelf", old))).collect();
        self.ask_over(names, run, ask)
    }

    /// Whether it is true of what the names stand for.
    ///
    /// # Errors
    /// As [`Program::holds`].
    pub fn is_true<'v>(&'v self, names: Vec<(&'v str, Val<'v>)>, run: &mut Run) -> Result<bool, String> {
        self.ask_over(names, run, |eval, root| eval.truth(root))
    }

    /// Whether it may come to true or false, as far as its outermost part tells. Of an object's fields nobody knows what
    /// they are; of a request's only `dryRun` is one (`admission.k8s.io/v1 AdmissionRequest`).
    pub fn may_be_true(&self) -> bool {
        match &self.root.node {
            Node::Null | Node::Int(_) | Node::Uint(_) | Node::Double(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => false,
            Node::Name(_) | Node::Index(..) | Node::Minus(_) => false,
            Node::Field(of, name) => matches!(&of.node, Node::Name(of) if of == "request") && name == "dryRun",
            Node::Binary(operator, ..) => !matches!(*operator, "+" | "-" | "*" | "/" | "%"),
            Node::Bool(_) | Node::Has(..) | Node::Call(..) | Node::Not(_) | Node::If(..) | Node::Fold(_) => true,
        }
    }

    fn ask_over<'v, T>(
        &'v self,
        names: Vec<(&'v str, Val<'v>)>,
        run: &mut Run,
        ask: impl FnOnce(&mut Eval<'v, '_>, &'v Expr) -> Result<T, String>,
    ) -> Result<T, String> {
        let answer = ask(&mut Eval { names, run: &mut *run }, &self.root)?;
        // What could not be paid may have been on the side that did not decide: the rules after this one could not be asked.
        if run.budget.is_spent() { Err(Spent.into()) } else { Ok(answer) }
    }
}

#[cfg(test)]
mod tests;
