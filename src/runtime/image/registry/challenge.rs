//! What a registry asks for with status 401: the `WWW-Authenticate` header (RFC 9110, section 11). PURE.

/// A way to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token is to be fetched from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The first challenge among the headers' values that is understood; a token before a password.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, parameters) in headers.flat_map(parse) {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "bearer" => {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
            }
            "basic" => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// Challenges of one header value; what cannot be read ends the list.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        let (word, after) = rest.split_at(end);
        let after_blank = after.trim_start_matches([' ', '\t']);
        match (after_blank.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A token or a quoted text, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:library/nginx:pull")),
            ),
            (r#"bearer realm = "https://a/t" , scope="a,b""#, bearer("https://a/t", None, Some("a,b"))),
            (r#"Basic realm="say \"please\"""#, Some(Challenge::Basic)),
            (r#"Basic realm="x", Bearer realm="https://a/t",service=s"#, bearer("https://a/t", Some("s"), None)),
            ("Negotiate, Basic", Some(Challenge::Basic)),
            ("Bearer", None),
            (r#"Bearer realm="https://a/t"#, None),
            (r#"realm="x""#, None),
            ("", None),
        ] {
            assert_eq!(choose([header].into_iter()), expected, "{header}");
        }
        assert_eq!(choose(["Basic", r#"Bearer realm="https://a/t""#].into_iter()), bearer("https://a/t", None, None));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_without_a_panic(text in "[ ,=\"\\\\A-Za-z/:é]{0,60}") {
            let _ = choose([text.as_str()].into_iter());
        }
    }
}
