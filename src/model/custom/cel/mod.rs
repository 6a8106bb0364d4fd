//! The rules of schemas (`x-kubernetes-validations`), in the Common Expression Language. PURE.
//!
//! - `lex`, `parse`: text to an expression; a function or name that is not supported is an error here,
//!   so that no rule is kept that could not be asked
//! - `value`, `eval`, `functions`: what an expression comes to, in a bounded number of steps
//!
//! Left out: optional values (`?.`), the libraries for addresses, quantities, URLs, semantic versions and
//! sets (but `isIP`, `isCIDR`, `isURL`, `isQuantity`), `format`, bytes, and types checked in advance.

mod eval;
mod functions;
mod lex;
mod parse;
mod value;

use std::collections::BTreeMap;

use super::schema::Pattern;
use eval::Eval;
use parse::Expr;
pub use value::Val;

/// Characters of one rule.
const LENGTH: usize = 10_000;

/// A rule, read.
#[derive(Debug)]
pub struct Program {
    root: Expr,
    /// The patterns it has as texts, by these.
    patterns: BTreeMap<String, Pattern>,
    /// Whether it speaks of the object as it was: it then says something of changes only.
    pub uses_old: bool,
}

impl Program {
    /// Reads a rule.
    ///
    /// # Errors
    /// Text that is no expression, or asks for what is not supported.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH {
            return Err(format!("more than {LENGTH} characters"));
        }
        let root = parse::parse(text, &["self", "oldSelf"])?;
        let patterns = functions::patterns(&root);
        if let Some(wrong) = patterns.values().find(|pattern| !pattern.is_valid()) {
            return Err(format!("{:?} is no pattern", wrong.text));
        }
        // The name stands for nothing else, and texts are few: a word inside one costs nothing but a look.
        Ok(Self { root, patterns, uses_old: lex::tokens(text)?.contains(&lex::Token::Name("oldSelf".to_owned())) })
    }

    /// Whether the value passes. `left`: steps that may be taken, over several rules.
    ///
    /// # Errors
    /// What cannot be evaluated on this value.
    pub fn holds<'v>(&self, value: Val<'v>, old: Option<Val<'v>>, left: &mut u64) -> Result<bool, String> {
        self.run(value, old, left, |eval, root| eval.truth(root))
    }

    /// The text it comes to.
    ///
    /// # Errors
    /// As [`Program::holds`]; what is no text.
    pub fn says<'v>(&self, value: Val<'v>, old: Option<Val<'v>>, left: &mut u64) -> Result<String, String> {
        self.run(value, old, left, |eval, root| match eval.value(root)? {
            Val::Text(text) => Ok(text.into_owned()),
            other => Err(format!("a {} is no text", other.type_name())),
        })
    }

    fn run<'v, 'p, T>(
        &'p self,
        value: Val<'v>,
        old: Option<Val<'v>>,
        left: &mut u64,
        ask: impl FnOnce(&mut Eval<'v, 'p>, &Expr) -> Result<T, String>,
    ) -> Result<T, String> {
        let names = std::iter::once(("self".to_owned(), value)).chain(old.map(|old| ("oldSelf".to_owned(), old)));
        let mut eval = Eval { names: names.collect(), patterns: &self.patterns, left: *left };
        let result = ask(&mut eval, &self.root);
        *left = eval.left;
        result
    }
}

#[cfg(test)]
mod tests;
