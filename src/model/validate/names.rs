//! What a name may look like: Kubernetes' small grammars and their messages. PURE.
//!
//! Each function returns what is wrong with a text, in Kubernetes' words; nothing when it is fine.

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORM: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// What is wrong, if anything.
pub type Wrong = Vec<String>;

fn form(message: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|it| format!("'{it}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{form}')", examples.join(" or "))
}

fn longer(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} bytes"))
}

fn is_label(text: &str, first: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(|byte| first(*byte))
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// RFC 1123 label: names of namespaces and containers.
pub fn dns_label(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 63).into_iter().collect();
    if !is_label(text, lower_or_digit) {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        wrong.push(form(message, LABEL_FORM, &["my-name", "123-abc"]));
    }
    wrong
}

/// One segment of a path: names of roles and their bindings.
pub fn path_segment(text: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if matches!(text, "." | "..") {
        wrong.push(format!("may not be '{text}'"));
    }
    wrong.extend(["/", "%"].into_iter().filter(|part| text.contains(part)).map(|part| format!("may not contain '{part}'")));
    wrong
}

/// RFC 1123 subdomain: names of most objects.
pub fn dns_subdomain(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 253).into_iter().collect();
    if !text.split('.').all(|part| is_label(part, lower_or_digit)) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        wrong.push(form(message, SUBDOMAIN_FORM, &["example.com"]));
    }
    wrong
}

/// RFC 1035 label: names of Services.
pub fn dns_1035_label(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 63).into_iter().collect();
    if !is_label(text, |byte| byte.is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        wrong.push(form(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    wrong
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// `name` or `example.com/name`: label and annotation keys, finalizers.
pub fn qualified_name(text: &str) -> Wrong {
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = text.split('/').collect();
    let mut wrong = Wrong::new();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns_subdomain(prefix).into_iter().map(|it| format!("prefix part {it}")));
            }
            name
        }
        _ => {
            let message = form(&format!("a qualified name {QUALIFIED}"), QUALIFIED_FORM, &examples);
            return vec![format!("{message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if let Some(message) = longer(name, 63) {
        wrong.push(format!("name part {message}"));
    }
    if !is_qualified_part(name) {
        wrong.push(form(&format!("name part {QUALIFIED}"), QUALIFIED_FORM, &examples));
    }
    wrong
}

/// The value of a label.
pub fn label_value(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 63).into_iter().collect();
    if !text.is_empty() && !is_qualified_part(text) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        wrong.push(form(message, &format!("({QUALIFIED_FORM})?"), &["MyValue", "my_value", "12345"]));
    }
    wrong
}

/// The name of a port: IANA service name.
pub fn port_name(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 15).into_iter().collect();
    if !text.bytes().all(|byte| lower_or_digit(byte) || byte == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// The number of a port.
pub fn port_number(number: i32) -> Wrong {
    if (1..=65_535).contains(&number) { Wrong::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Wrong {
    let mut wrong = Wrong::new();
    if text.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        wrong.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    wrong
}

/// The key of a ConfigMap or Secret: it becomes a file name.
pub fn config_key(text: &str) -> Wrong {
    let mut wrong: Wrong = longer(text, 253).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        wrong.push(form(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// An IP address.
pub fn ip_address(text: &str) -> Wrong {
    if text.parse::<std::net::IpAddr>().is_ok() {
        Wrong::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
    }
}

/// An address that traffic of a cluster may be sent to: not one that means the sender's own host
/// or link.
pub fn endpoint_address(address: std::net::IpAddr) -> Wrong {
    use std::net::IpAddr;
    let (v4, v6) = match address {
        IpAddr::V4(it) => (Some(it), None),
        IpAddr::V6(it) => (it.to_ipv4_mapped(), Some(it)),
    };
    let mut wrong = Wrong::new();
    if address.is_unspecified() || v4.is_some_and(|it| it.is_unspecified()) {
        wrong.push(format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() || v4.is_some_and(|it| it.is_loopback()) {
        wrong.push("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    if v4.is_some_and(|it| it.is_link_local()) || v6.is_some_and(|it| it.is_unicast_link_local()) {
        wrong.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if v4.is_some_and(|it| it.octets()[..3] == [224, 0, 0]) || v6.is_some_and(|it| it.segments()[0] & 0xff0f == 0xff02) {
        wrong.push("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
    wrong
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Wrong {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        Wrong::new()
    } else {
        vec![form("a valid HTTP header must consist of alphanumeric characters or '-'", "[-A-Za-z0-9]+", &["X-Header-Name"])]
    }
}

/// `25%`
pub fn percent(text: &str) -> Wrong {
    let is_percent = text.strip_suffix('%').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if is_percent {
        Wrong::new()
    } else {
        let message = "a valid percent string must be a numeric string followed by an ending '%'";
        vec![form(message, "[0-9]+%", &["1%", "93%"])]
    }
}

/// The name of a sysctl, with dots or slashes.
pub fn sysctl(text: &str) -> Wrong {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|byte| lower_or_digit(*byte))
            && bytes.last().is_some_and(|byte| lower_or_digit(*byte))
            && bytes.iter().all(|byte| lower_or_digit(*byte) || b"-_".contains(byte))
    };
    if text.len() <= 253 && text.split(['.', '/']).all(part) {
        Wrong::new()
    } else {
        vec![
            "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
                .to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars_accept_and_refuse() {
        type Grammar = fn(&str) -> Wrong;
        let long = "a".repeat(64);
        let cases: &[(Grammar, &[&str], &[&str])] = &[
            (dns_label, &["a", "1-a", "a--b"], &["", "-a", "a-", "A", "a.b", "a_b", &long]),
            (dns_subdomain, &["a", "a.b-c.d"], &["", ".", "a..b", "a.-b", "A", "a.", "a_b"]),
            (dns_1035_label, &["a", "a1"], &["", "1a", "a-", "A"]),
            (qualified_name, &["a", "A.b_c-d", "x.y/Z"], &["", "/", "a/", "/a", "a/b/c", "-a", "a b", "X/a", &long]),
            (label_value, &["", "A", "a.b_c-1"], &["-", "a-", "a b", "a/b", &long]),
            (port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]),
            (env_name, &["A", "a.b", "my var"], &["", "A=B", "Ä", "A\n"]),
            (config_key, &["a", "A_b.c-d", ".a", "a..b"], &["", ".", "..", "..a", "a/b", "a b"]),
            (ip_address, &["10.0.0.1", "::1"], &["", "10.0.0", "10.0.0.256", "x"]),
            (percent, &["0%", "25%"], &["", "%", "25", "-1%", "1.5%"]),
            (sysctl, &["net.core.somaxconn", "net/ipv4/ip_forward", "kernel.shm_rmid_forced"], &["", ".a", "A", "a b"]),
        ];
        for (grammar, good, bad) in cases {
            for text in *good {
                assert_eq!(grammar(text), Wrong::new(), "{text}");
            }
            for text in *bad {
                assert_ne!(grammar(text), Wrong::new(), "{text}");
            }
        }
    }

    #[test]
    fn messages_are_kubernetes_own() {
        assert_eq!(
            dns_subdomain("Foo"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            dns_label("a_b"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    }
}
