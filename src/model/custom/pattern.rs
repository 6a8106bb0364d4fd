//! The regular expressions of schemas and rules. PURE.
//!
//! They mean what they mean to Go's RE2, which Kubernetes uses (its "Syntax" page): `\d`, `\w`, `\s` and `\b`
//! are of ASCII, and brackets and braces that open nothing stand for themselves.

use std::sync::OnceLock;

use regex::{Error, Regex, RegexBuilder};

use super::budget::{Budget, Spent};

/// Bytes of one expression: its classes of characters are read whole before its size is known.
const TEXT: usize = 4 << 10;
/// Bytes that one may take, compiled. The least that suffices says what it costs to use it.
const SIZES: [usize; 4] = [2 << 10, 16 << 10, 128 << 10, 512 << 10];
/// Bytes in which one that is in use remembers where it was.
const CACHE: usize = 64 << 10;
/// Bytes of a compiled expression that take a step with each byte of a text, at worst.
const BYTES_A_STEP: usize = 4 << 10;

/// A regular expression, compiled at its first use.
#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    compiled: OnceLock<Option<(Regex, usize)>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// `None` for what is no expression, or one of too much memory.
    fn compiled(&self) -> Option<&(Regex, usize)> {
        self.compiled.get_or_init(|| compile(&self.text)).as_ref()
    }

    pub fn is_valid(&self) -> bool {
        self.compiled().is_some()
    }

    /// The bytes it takes, compiled; of one that is not valid, the bytes that it took to find out.
    pub fn weight(&self) -> usize {
        self.compiled().map_or(SIZES[SIZES.len() - 1], |(_, size)| *size)
    }

    /// The expression, paid for a text of so many bytes.
    pub fn over(&self, bytes: usize, budget: &mut Budget) -> Result<Option<&Regex>, Spent> {
        let Some((regex, size)) = self.compiled() else { return Ok(None) };
        budget.steps(1 + bytes.saturating_mul(*size) / BYTES_A_STEP)?;
        Ok(Some(regex))
    }

    /// Whether it is found in a text; one that is not valid holds nobody back.
    pub fn matches(&self, text: &str, budget: &mut Budget) -> Result<bool, Spent> {
        Ok(self.over(text.len(), budget)?.is_none_or(|regex| regex.is_match(text)))
    }
}

fn compile(text: &str) -> Option<(Regex, usize)> {
    if text.len() > TEXT {
        return None;
    }
    let text = translate(text);
    for size in SIZES {
        match RegexBuilder::new(&text).size_limit(size).dfa_size_limit(CACHE).build() {
            Ok(regex) => return Some((regex, size)),
            Err(Error::CompiledTooBig(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

/// An expression of RE2 as our library reads it.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => escape(rest, in_class, &mut out),
            '[' if in_class && !rest.starts_with("[:") => literal(c, &mut out),
            '[' if in_class => copy(rest, rest.find(":]").map_or(1, |end| end + 2), &mut out),
            '[' => {
                in_class = true;
                // A bracket that closes at once does not.
                let start = 1 + usize::from(rest[1..].starts_with('^'));
                copy(rest, start + usize::from(rest[start..].starts_with(']')), &mut out)
            }
            ']' if in_class => {
                in_class = false;
                copy(rest, 1, &mut out)
            }
            '&' | '~' if in_class => literal(c, &mut out),
            '{' if !in_class && !is_count(&rest[1..]) => literal(c, &mut out),
            c => copy(rest, c.len_utf8(), &mut out),
        };
        rest = &rest[taken..];
    }
    out
}

fn copy(text: &str, bytes: usize, out: &mut String) -> usize {
    out.push_str(&text[..bytes]);
    bytes
}

fn literal(c: char, out: &mut String) -> usize {
    out.push('\\');
    out.push(c);
    1
}

/// `3}`, `3,}`, `3,5}`
fn is_count(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|it| it.is_ascii_digit());
    let Some((inside, _)) = text.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    !least.is_empty() && digits(least) && digits(most)
}

/// Takes a backslash and what belongs to it.
fn escape(text: &str, in_class: bool, out: &mut String) -> usize {
    let Some(what) = text[1..].chars().next() else { return copy(text, 1, out) };
    let members = match what.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\f\r ",
        'p' | 'x' if text[2..].starts_with('{') => return copy(text, text.find('}').map_or(2, |end| end + 1), out),
        'b' if what == 'b' && !in_class => {
            out.push_str(r"(?-u:\b)");
            return 2;
        }
        _ => return copy(text, 1 + what.len_utf8(), out),
    };
    match (what.is_ascii_uppercase(), in_class) {
        (true, _) => out.extend(["[^", members, "]"]),
        (false, true) => out.push_str(members),
        (false, false) => out.extend(["[", members, "]"]),
    }
    // No range begins with many.
    if in_class && text[2..].starts_with('-') {
        out.push_str(r"\-");
        return 3;
    }
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> Option<bool> {
        let pattern = Pattern::new(pattern);
        pattern.is_valid().then(|| pattern.matches(text, &mut Budget::new(usize::MAX, 0)).unwrap())
    }

    #[test]
    fn patterns_mean_what_they_mean_to_kubernetes() {
        for (pattern, yes, no) in [
            (r"^\d+$", "42", "٤٢"),
            (r"^\w+$", "a_B9", "é"),
            (r"^\W$", "é", "a"),
            (r"^\s$", "\t", "\u{a0}"),
            (r"^\S+$", "\u{a0}", " "),
            (r"^[\w.-]+$", "a.b-c", "é"),
            (r"^[\w-.]+$", "a.b-c", "a/b"),
            (r"^[^\s\d]+$", "é", "1"),
            (r"^[\D]$", "x", "1"),
            (r"\bfoo\b", "éfoo", "afoo"),
            ("^{a}$", "{a}", "a"),
            ("^a{2,3}$", "aa", "a"),
            ("^[[a]$", "[", "b"),
            ("^[]a]$", "]", "b"),
            ("^[^]a]$", "b", "]"),
            ("^[a&&b]+$", "&a", "c"),
            ("^[[:alpha:]]+$", "ab", "é"),
            (r"^\p{Greek}+\x{61}$", "αa", "aa"),
            (r"^\{\[\\$", r"{[\", "x"),
        ] {
            assert_eq!((matches(pattern, yes), matches(pattern, no)), (Some(true), Some(false)), "{pattern}");
        }
        assert_eq!(matches("(", ""), None);
        assert_eq!(matches(r"\", ""), None);
    }

    #[test]
    fn patterns_are_of_bounded_size() {
        // With Unicode's letters these would be refused.
        assert!(Pattern::new(r"^[\w.-]{1,253}$").is_valid());
        assert!(Pattern::new("^[a-z]+$").weight() <= 2 << 10);
        assert!(!Pattern::new(r"((a{1,100}){1,100}){1,100}").is_valid());
        // What is long is not even read: its classes would take a thousand times its size.
        assert_eq!(matches(&"a".repeat(TEXT), "b"), Some(false));
        assert_eq!(matches(&r"\pL".repeat(2_000), "b"), None);
        assert_eq!(matches(&"a".repeat(TEXT + 1), "b"), None);
    }

    #[test]
    fn a_long_text_is_paid_by_what_the_pattern_may_take_on_it() {
        let text = "a".repeat(1_000_000);
        let mut budget = Budget::new(2_000_000, 0);
        assert_eq!(Pattern::new("^a+$").matches(&text, &mut budget), Ok(true));
        assert_eq!(Pattern::new("(a?){400}b").matches(&text, &mut budget), Err(Spent));
    }
}
