//! Words to an expression, by the grammar of the language's definition (cel-spec, "Syntax"). PURE.

use super::functions;
use super::lex::{Token, tokens};

/// Levels of brackets: reading one goes through a level of each operator.
const DEPTH: usize = 40;
/// Levels of an expression: what asks it goes down as deep. What brackets do not bound is bounded by this:
/// `1 + 1 + 1`, `a.b.c`.
const HEIGHT: usize = 100;

/// An expression.
#[derive(Debug)]
pub(super) struct Expr {
    pub node: Node,
    height: usize,
}

#[derive(Debug)]
pub(super) enum Node {
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

impl Expr {
    fn new(node: Node) -> Result<Self, String> {
        let height = 1 + node.below();
        if height > HEIGHT { Err(format!("an expression of more than {HEIGHT} levels")) } else { Ok(Self { node, height }) }
    }
}

impl Node {
    /// The height of what is below it.
    fn below(&self) -> usize {
        fn tallest<'e>(all: impl IntoIterator<Item = &'e Expr>) -> usize {
            all.into_iter().map(|it| it.height).max().unwrap_or(0)
        }
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Double(_) | Self::Text(_) | Self::Name(_) => 0,
            Self::List(items) => tallest(items),
            Self::Map(entries) => tallest(entries.iter().flat_map(|(key, value)| [key, value])),
            Self::Field(of, _) | Self::Has(of, _) | Self::Not(of) | Self::Minus(of) => of.height,
            Self::Index(one, other) | Self::Binary(_, one, other) => one.height.max(other.height),
            Self::Call(target, _, args) => tallest(target.as_deref().into_iter().chain(args)),
            Self::If(test, then, otherwise) => tallest([&**test, then, otherwise]),
            Self::Fold(fold) => tallest([&fold.over, &fold.body].into_iter().chain(&fold.filter)),
        }
    }
}

/// `list.all(name, test)` and its kin.
#[derive(Debug)]
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

/// Reads an expression over these variables, and the patterns that are written in it.
pub(super) fn parse(text: &str, variables: &[&str]) -> Result<(Expr, Vec<String>), String> {
    let names = variables.iter().map(|name| (*name).to_owned()).collect();
    let mut parser = Parser { tokens: tokens(text)?, at: 0, names, depth: 0, patterns: Vec::new() };
    let expression = parser.expression()?;
    match parser.peek() {
        None => Ok((expression, parser.patterns)),
        Some(_) => Err("there is more than one expression".to_owned()),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// What a name may stand for.
    names: Vec<String>,
    depth: usize,
    patterns: Vec<String>,
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
            Expr::new(Node::If(Box::new(test), Box::new(then), Box::new(self.expression()?)))?
        } else {
            test
        };
        self.depth -= 1;
        Ok(whole)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
        const LEVELS: [&[&str]; 5] = [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        if level < 2 {
            return self.chain(signs[0], level);
        }
        let mut left = self.binary(level + 1)?;
        loop {
            let is_in = level == 2 && self.peek() == Some(&Token::Name("in".to_owned()));
            let sign = if is_in {
                self.at += 1;
                Some("in")
            } else {
                self.take(signs)
            };
            let Some(sign) = sign else { return Ok(left) };
            left = Expr::new(Node::Binary(sign, Box::new(left), Box::new(self.binary(level + 1)?)))?;
        }
    }

    /// `a && b && c`: as low as can be, since the order of asking does not matter.
    fn chain(&mut self, sign: &'static str, level: usize) -> Result<Expr, String> {
        let mut all = vec![self.binary(level + 1)?];
        while self.take(&[sign]).is_some() {
            all.push(self.binary(level + 1)?);
        }
        while all.len() > 1 {
            let mut pairs = Vec::with_capacity(all.len().div_ceil(2));
            let mut rest = all.into_iter();
            while let Some(one) = rest.next() {
                pairs.push(match rest.next() {
                    Some(other) => Expr::new(Node::Binary(sign, Box::new(one), Box::new(other)))?,
                    None => one,
                });
            }
            all = pairs;
        }
        all.pop().ok_or_else(|| "the expression is not complete".to_owned())
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
            value = Expr::new(match (sign, &value.node) {
                ("-", Node::Int(it)) => Node::Int(it.checked_neg().ok_or("a number does not fit")?),
                ("-", Node::Double(it)) => Node::Double(-it),
                ("-", _) => Node::Minus(Box::new(value)),
                _ => Node::Not(Box::new(value)),
            })?;
        }
        Ok(value)
    }

    fn member(&mut self) -> Result<Expr, String> {
        let mut value = self.primary()?;
        loop {
            if self.take(&["."]).is_some() {
                let name = self.name()?;
                value = if self.take(&["("]).is_some() {
                    self.method(value, name)?
                } else {
                    Expr::new(Node::Field(Box::new(value), unescape(name)))?
                };
            } else if self.take(&["["]).is_some() {
                let index = self.expression()?;
                self.expect("]")?;
                value = Expr::new(Node::Index(Box::new(value), Box::new(index)))?;
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
                return self.call(Some(Box::new(target)), name, args);
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
        Expr::new(Node::Fold(Box::new(Fold { macro_, over: target, name, filter, body })))
    }

    fn call(&mut self, target: Option<Box<Expr>>, name: String, args: Vec<Expr>) -> Result<Expr, String> {
        functions::known(&name, target.is_some(), args.len())?;
        if matches!(name.as_str(), "matches" | "find" | "findAll")
            && let Some(Node::Text(pattern)) = args.get(usize::from(target.is_none())).map(|it| &it.node)
        {
            self.patterns.push(pattern.clone());
        }
        Expr::new(Node::Call(target, name, args))
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
            Token::Int(it) => Expr::new(Node::Int(it)),
            Token::Uint(it) => Expr::new(Node::Uint(it)),
            Token::Double(it) => Expr::new(Node::Double(it)),
            Token::Text(it) => Expr::new(Node::Text(it)),
            Token::Sign("(") => {
                let inside = self.expression()?;
                self.expect(")")?;
                Ok(inside)
            }
            Token::Sign("[") => Expr::new(Node::List(self.list("]")?)),
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
        Expr::new(Node::Map(all))
    }

    fn word(&mut self, name: String) -> Result<Expr, String> {
        match name.as_str() {
            "true" => return Expr::new(Node::Bool(true)),
            "false" => return Expr::new(Node::Bool(false)),
            "null" => return Expr::new(Node::Null),
            _ => {}
        }
        if self.take(&["("]).is_some() {
            let mut args = self.list(")")?;
            if name == "has" {
                let (Some(Node::Field(of, field)), true) = (args.pop().map(|it| it.node), args.is_empty()) else {
                    return Err("has() asks for a field: has(self.name)".to_owned());
                };
                return Expr::new(Node::Has(of, field));
            }
            return self.call(None, name, args);
        }
        if self.names.contains(&name) || functions::TYPES.contains(&name.as_str()) {
            return Expr::new(Node::Name(name));
        }
        Err(format!("undeclared reference to '{name}'"))
    }
}

/// Names of fields that are no names of the language: `__dot__`, `__slash__`, `__dash__`, `__underscores__`,
/// and words such as `__in__`.
fn unescape(name: String) -> String {
    if !name.contains("__") {
        return name;
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
