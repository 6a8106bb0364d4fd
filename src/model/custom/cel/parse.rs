//! Words to an expression, by the grammar of the language's definition (cel-spec, "Syntax"). PURE.

use super::functions;
use super::lex::{Token, tokens};

/// Levels of brackets.
const DEPTH: usize = 60;
/// Levels of an expression: how deep its evaluation calls itself.
const LEVELS: usize = 100;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Name(String),
    Field(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    /// `has(a.b)`
    Has(Box<Expr>, String),
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    Fold(Box<Fold>),
}

/// `list.all(name, test)` and its kin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold {
    pub macro_: Macro,
    pub over: Expr,
    pub name: String,
    /// What an item must be for `map` to take it.
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// Reads an expression over these variables.
pub(super) fn parse(text: &str, variables: &[&str]) -> Result<Expr, String> {
    let names = variables.iter().map(|name| (*name).to_owned()).collect();
    let mut parser = Parser { tokens: tokens(text)?, at: 0, names, depth: 0 };
    let expression = parser.expression()?;
    match parser.peek() {
        None if levels(&expression) > LEVELS => Err(format!("more than {LEVELS} levels of operators and fields")),
        None => Ok(expression),
        Some(_) => Err("there is more than one expression".to_owned()),
    }
}

/// How deep an expression is, found without calling itself: it may be too deep for that.
fn levels(root: &Expr) -> usize {
    let (mut deepest, mut todo) = (0, vec![(root, 1)]);
    while let Some((expr, level)) = todo.pop() {
        deepest = deepest.max(level);
        todo.extend(expr.parts().into_iter().map(|part| (part, level + 1)));
    }
    deepest
}

impl Expr {
    /// The expressions it is made of.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Double(_) | Self::Text(_) | Self::Name(_) => Vec::new(),
            Self::List(all) => all.iter().collect(),
            Self::Map(all) => all.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Field(of, _) | Self::Has(of, _) | Self::Not(of) | Self::Minus(of) => vec![of],
            Self::Index(one, other) | Self::Binary(_, one, other) => vec![one, other],
            Self::Call(target, _, args) => target.as_deref().into_iter().chain(args).collect(),
            Self::If(test, then, otherwise) => vec![test, then, otherwise],
            Self::Fold(fold) => [&fold.over, &fold.body].into_iter().chain(&fold.filter).collect(),
        }
    }
}

/// Many parts under `&&` or `||`, which do not mind how they are grouped, in as few levels as may be.
fn balanced(sign: &'static str, mut parts: Vec<Expr>) -> Expr {
    let right = parts.split_off(parts.len().div_ceil(2));
    let left = if parts.len() == 1 { parts.remove(0) } else { balanced(sign, parts) };
    match right.len() {
        0 => left,
        _ => Expr::Binary(sign, Box::new(left), Box::new(balanced(sign, right))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// What a name may stand for.
    names: Vec<String>,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Takes one of these signs.
    fn take(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let Some(Token::Sign(sign)) = self.peek() else { return None };
        let sign = *signs.iter().find(|it| *it == sign)?;
        self.at += 1;
        Some(sign)
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), String> {
        self.take(&[sign]).map(|_| ()).ok_or_else(|| format!("a {sign:?} is missing"))
    }

    fn expression(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("more than {DEPTH} levels of brackets"));
        }
        let test = self.binary(0)?;
        let whole = if self.take(&["?"]).is_some() {
            let then = self.binary(0)?;
            self.expect(":")?;
            Expr::If(Box::new(test), Box::new(then), Box::new(self.expression()?))
        } else {
            test
        };
        self.depth -= 1;
        Ok(whole)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        const LEVELS: [&[&str]; 5] = [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        if let [sign @ ("&&" | "||")] = signs {
            let mut parts = vec![left];
            while self.take(signs).is_some() {
                parts.push(self.binary(level + 1)?);
            }
            return Ok(balanced(sign, parts));
        }
        loop {
            let is_in = level == 2 && self.peek() == Some(&Token::Name("in".to_owned()));
            let sign = if is_in {
                self.at += 1;
                Some("in")
            } else {
                self.take(signs)
            };
            let Some(sign) = sign else { return Ok(left) };
            left = Expr::Binary(sign, Box::new(left), Box::new(self.binary(level + 1)?));
        }
    }

    fn unary(&mut self) -> Result<Expr, String> {
        let mut signs = Vec::new();
        while let Some(sign) = self.take(&["!", "-"]) {
            signs.push(sign);
            if signs.len() > DEPTH {
                return Err(format!("more than {DEPTH} signs in a row"));
            }
        }
        let mut value = self.member()?;
        for sign in signs.into_iter().rev() {
            value = match (sign, value) {
                ("-", Expr::Int(it)) => Expr::Int(it.checked_neg().ok_or("a number does not fit")?),
                ("-", Expr::Double(it)) => Expr::Double(-it),
                ("-", other) => Expr::Minus(Box::new(other)),
                (_, other) => Expr::Not(Box::new(other)),
            };
        }
        Ok(value)
    }

    fn member(&mut self) -> Result<Expr, String> {
        let mut value = self.primary()?;
        loop {
            if self.take(&["."]).is_some() {
                let name = self.name()?;
                value = if self.take(&["("]).is_some() { self.method(value, name)? } else { Expr::Field(Box::new(value), name) };
            } else if self.take(&["["]).is_some() {
                let index = self.expression()?;
                self.expect("]")?;
                value = Expr::Index(Box::new(value), Box::new(index));
            } else {
                return Ok(value);
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let Some(Token::Name(name)) = self.peek().cloned() else { return Err("a name is missing".to_owned()) };
        self.at += 1;
        Ok(name)
    }

    fn method(&mut self, target: Expr, name: String) -> Result<Expr, String> {
        let macro_ = match name.as_str() {
            "all" => Macro::All,
            "exists" => Macro::Exists,
            "exists_one" | "existsOne" => Macro::ExistsOne,
            "map" => Macro::Map,
            "filter" => Macro::Filter,
            _ => {
                let args = self.list(")")?;
                functions::known(&name, true, args.len())?;
                return Ok(Expr::Call(Some(Box::new(target)), name, args));
            }
        };
        let name = self.name()?;
        self.expect(",")?;
        self.names.push(name.clone());
        let mut body = self.expression()?;
        let mut filter = None;
        if macro_ == Macro::Map && self.take(&[","]).is_some() {
            filter = Some(std::mem::replace(&mut body, self.expression()?));
        }
        self.names.pop();
        self.expect(")")?;
        Ok(Expr::Fold(Box::new(Fold { macro_, over: target, name, filter, body })))
    }

    /// Expressions up to a closing bracket.
    fn list(&mut self, end: &'static str) -> Result<Vec<Expr>, String> {
        let mut all = Vec::new();
        while self.take(&[end]).is_none() {
            all.push(self.expression()?);
            if self.take(&[","]).is_none() {
                self.expect(end)?;
                break;
            }
        }
        Ok(all)
    }

    fn primary(&mut self) -> Result<Expr, String> {
        let token = self.peek().cloned().ok_or("the expression is not complete")?;
        self.at += 1;
        match token {
            Token::Int(it) => Ok(Expr::Int(it)),
            Token::Uint(it) => Ok(Expr::Uint(it)),
            Token::Double(it) => Ok(Expr::Double(it)),
            Token::Text(it) => Ok(Expr::Text(it)),
            Token::Sign("(") => {
                let inside = self.expression()?;
                self.expect(")")?;
                Ok(inside)
            }
            Token::Sign("[") => self.list("]").map(Expr::List),
            Token::Sign("{") => self.map(),
            Token::Sign(sign) => Err(format!("{sign:?} does not stand here")),
            Token::Name(name) => self.word(name),
        }
    }

    fn map(&mut self) -> Result<Expr, String> {
        let mut all = Vec::new();
        while self.take(&["}"]).is_none() {
            let key = self.expression()?;
            self.expect(":")?;
            all.push((key, self.expression()?));
            if self.take(&[","]).is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(all))
    }

    fn word(&mut self, name: String) -> Result<Expr, String> {
        match name.as_str() {
            "true" => return Ok(Expr::Bool(true)),
            "false" => return Ok(Expr::Bool(false)),
            "null" => return Ok(Expr::Null),
            _ => {}
        }
        if self.take(&["("]).is_some() {
            let mut args = self.list(")")?;
            if name == "has" {
                let (Some(Expr::Field(of, field)), true) = (args.pop(), args.is_empty()) else {
                    return Err("has() asks for a field: has(self.name)".to_owned());
                };
                return Ok(Expr::Has(of, field));
            }
            functions::known(&name, false, args.len())?;
            return Ok(Expr::Call(None, name, args));
        }
        if self.names.contains(&name) || functions::TYPES.contains(&name.as_str()) {
            return Ok(Expr::Name(name));
        }
        Err(format!("undeclared reference to '{name}'"))
    }
}
