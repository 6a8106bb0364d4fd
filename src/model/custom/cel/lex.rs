//! A rule's text to words. PURE.

/// One word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
}

const SIGNS: [&str; 24] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]", "{", "}"];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut rest = text;
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let Some(first) = rest.chars().next() else { return Ok(found) };
        let (token, after) = if let Some(token) = string(rest) {
            token?
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (Token::Name(rest[..end].to_owned()), &rest[end..])
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign)).ok_or_else(|| format!("{first:?} has no meaning here"))?;
            (Token::Sign(sign), &rest[sign.len()..])
        };
        found.push(token);
        rest = after;
    }
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let wrong = |text: &str| format!("{text} is no number that fits");
    if let Some(hex) = text.strip_prefix("0x") {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let value = i64::from_str_radix(&hex[..end], 16).map_err(|_| wrong(&text[..end + 2]))?;
        return Ok((Token::Int(value), &hex[end..]));
    }
    let mut end = 0;
    let bytes = text.as_bytes();
    let mut whole = true;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {}
            b'.' if whole && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => whole = false,
            b'e' | b'E' => {
                whole = false;
                end += usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            }
            _ => break,
        }
        end += 1;
    }
    let (digits, after) = text.split_at(end);
    if !whole {
        return Ok((Token::Double(digits.parse().map_err(|_| wrong(digits))?), after));
    }
    match after.strip_prefix(['u', 'U']) {
        Some(after) => Ok((Token::Uint(digits.parse().map_err(|_| wrong(digits))?), after)),
        None => Ok((Token::Int(digits.parse().map_err(|_| wrong(digits))?), after)),
    }
}

/// A string with its quotes; none where the text begins with something else.
fn string(text: &str) -> Option<Result<(Token, &str), String>> {
    let (raw, rest) = match text.strip_prefix(['r', 'R']) {
        Some(rest) if rest.starts_with(['"', '\'']) => (true, rest),
        _ => (false, text),
    };
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote))?;
    Some(quoted(&rest[quote.len()..], quote, raw))
}

fn quoted<'a>(text: &'a str, quote: &str, raw: bool) -> Result<(Token, &'a str), String> {
    let mut value = String::new();
    let mut rest = text;
    while !rest.starts_with(quote) {
        let c = rest.chars().next().ok_or("a string does not end")?;
        rest = &rest[c.len_utf8()..];
        if c != '\\' || raw {
            value.push(c);
            continue;
        }
        let escape = rest.chars().next().ok_or("a string does not end")?;
        rest = &rest[escape.len_utf8()..];
        let digits = match escape {
            'x' | 'X' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code = rest.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
            value.push(code.and_then(char::from_u32).ok_or("an escape in a string is no character")?);
            rest = &rest[digits..];
            continue;
        }
        value.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => escape,
            other => return Err(format!("\\{other} in a string has no meaning")),
        });
    }
    Ok((Token::Text(value), &rest[quote.len()..]))
}
