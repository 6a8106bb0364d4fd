//! The formats of strings that Kubernetes validates; others mean nothing. PURE.
//!
//! From "Extend the Kubernetes API with CustomResourceDefinitions", section Validation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

/// Whether a text is of a format; of an unknown one, everything is.
pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "date-time" | "datetime" => text.parse::<crate::model::Timestamp>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "hostname" => is_hostname(text),
        "email" => text.split_once('@').is_some_and(|(local, host)| !local.is_empty() && is_hostname(host)),
        "uri" => text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)) && !text.contains(char::is_whitespace),
        "duration" => is_duration(text),
        "hexcolor" => text.strip_prefix('#').is_some_and(|hex| matches!(hex.len(), 3 | 6) && hex.bytes().all(|it| it.is_ascii_hexdigit())),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|it| it.is_ascii_hexdigit()))
}

fn is_uuid(format: &str, text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let shape = lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|it| it == b'-' || it.is_ascii_hexdigit());
    shape && format.strip_prefix("uuid").is_none_or(|version| version.is_empty() || text[14..].starts_with(version))
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let word = !label.is_empty() && label.len() <= 63 && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        word && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic()) && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it))
}

/// Go's durations (`1h30m`), and numbers with a word (`2 weeks`) as go-openapi takes them.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 24] = [
        "ns",
        "us",
        "µs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nanosecond",
        "nanoseconds",
        "microsecond",
        "microseconds",
        "millisecond",
        "milliseconds",
        "second",
        "seconds",
        "minute",
        "minutes",
        "hour",
        "hours",
        "day",
        "days",
        "weeks",
    ];
    let mut rest = text.trim().trim_start_matches(['+', '-']);
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|it: char| !(it.is_ascii_digit() || it == '.')).unwrap_or(rest.len());
        let after = rest[number..].trim_start();
        let unit = after.find(|it: char| !it.is_alphabetic()).unwrap_or(after.len());
        let zero = parts == 0 && unit == 0 && after.is_empty() && rest[..number].bytes().all(|it| it == b'0');
        if rest[..number].parse::<f64>().is_err() || !(zero || UNITS.contains(&&after[..unit])) {
            return false;
        }
        rest = after[unit..].trim_start();
        parts += 1;
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn texts_are_of_their_format() {
        for (format, good, bad) in [
            ("date", "2026-11-26", "2026-13-01"),
            ("date-time", "2026-11-26T10:00:00Z", "yesterday"),
            ("byte", "aGk=", "%%"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "1::2::3"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11:22:33:44"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "www.example.com", "-a.example.com"),
            ("email", "a@example.com", "example.com"),
            ("uri", "https://example.com/a", "no uri"),
            ("duration", "1h30m", "soon"),
            ("duration", "0", "5"),
            ("hexcolor", "#a0b1c2", "red"),
        ] {
            assert!(fits(format, good), "{good} is a {format}");
            assert!(!fits(format, bad), "{bad} is no {format}");
        }
        assert!(fits("nonsense", "anything") && fits("", "anything") && fits("duration", "2 weeks"));
    }
}
