//! What is passed on of the heads of a proxied request and its answer. PURE.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What is between the two ends of one connection alone (RFC 9110, 7.6.1; RFC 2616, 13.5.1). The length is that of the body,
/// which is known where it is sent anew.
const OF_CONNECTION: [&str; 8] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"];
/// What only this server is told: who asks, and as whom.
const OWN: [&str; 3] = ["authorization", "content-length", "expect"];
const IMPERSONATES: &str = "impersonate-";
/// A token in a WebSocket's list of protocols, as browsers send it (Kubernetes' `apiserver/pkg/authentication/request/websocket`).
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// The other end does not say who else may read what this server answers (`apimachinery/pkg/util/proxy`, `corsRemovingTransport`).
const SHARING: [&str; 4] =
    ["access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-origin"];

/// What is known of a request besides its headers.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The host it was sent to.
    pub host: Option<&'a str>,
    /// Its whole path here.
    pub path: &'a str,
    pub from: Option<IpAddr>,
}

/// The protocol a request wants to switch to.
pub fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let wants = words(headers, &header::CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wants)
}

/// The words of a header that is a list.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// All but what is of the connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = words(headers, &header::CONNECTION).map(str::to_ascii_lowercase).collect();
    let passes = |name: &str| !OF_CONNECTION.contains(&name) && name != "upgrade" && !named.iter().any(|it| it == name);
    headers.iter().filter(|(name, _)| passes(name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The head for the other end, which is told how it was come to (`apimachinery/pkg/util/proxy`, `Transport`).
pub fn for_backend(headers: &HeaderMap, asked: &Asked<'_>) -> HeaderMap {
    let own = |name: &HeaderName| OWN.contains(&name.as_str()) || name.as_str().starts_with(IMPERSONATES);
    let mut passed: HeaderMap = HeaderMap::new();
    for (name, value) in end_to_end(headers).iter().filter(|(name, _)| !own(name)) {
        passed.append(name.clone(), value.clone());
    }
    without_token(&mut passed);
    if let Some(protocol) = upgrade(headers) {
        passed.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        passed.insert(header::UPGRADE, protocol.clone());
    }
    let forwarded = |name| HeaderName::from_static(name);
    set(&mut passed, header::HOST, asked.host.unwrap_or_default());
    set(&mut passed, forwarded("x-forwarded-host"), asked.host.unwrap_or_default());
    set(&mut passed, forwarded("x-forwarded-uri"), asked.path);
    set(&mut passed, forwarded("x-forwarded-proto"), "https");
    let before = words(headers, &forwarded("x-forwarded-for")).map(str::to_owned);
    let all: Vec<String> = before.chain(asked.from.map(|from| from.to_string())).collect();
    set(&mut passed, forwarded("x-forwarded-for"), &all.join(", "));
    passed
}

/// Takes a token out of a WebSocket's list of protocols.
pub fn without_token(headers: &mut HeaderMap) {
    let protocols: Vec<&str> = words(headers, &header::SEC_WEBSOCKET_PROTOCOL).filter(|word| !word.starts_with(TOKEN_PROTOCOL)).collect();
    let protocols = protocols.join(", ");
    set(headers, header::SEC_WEBSOCKET_PROTOCOL, &protocols);
}

/// The token in a WebSocket's list of protocols, still in base64: the only one, beside a protocol that is to be spoken.
pub fn protocol_token(headers: &HeaderMap) -> Option<&str> {
    upgrade(headers).filter(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))?;
    let (mut tokens, others): (Vec<&str>, Vec<&str>) =
        words(headers, &header::SEC_WEBSOCKET_PROTOCOL).partition(|word| word.starts_with(TOKEN_PROTOCOL));
    let token = tokens.pop().filter(|_| tokens.is_empty() && !others.is_empty())?;
    token.strip_prefix(TOKEN_PROTOCOL)
}

/// In place of whatever was there; nothing is said where there is nothing to say.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.remove(&name);
    if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

/// The head for the client. `prefix`: before the other end's paths; `hosts`: by which it knows itself.
pub fn for_client(headers: &HeaderMap, prefix: &str, hosts: &[&str]) -> HeaderMap {
    let mut passed = end_to_end(headers);
    for name in SHARING {
        passed.remove(name);
    }
    if let Some(place) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) {
        set(&mut passed, header::LOCATION, &location(place, prefix, hosts));
    }
    passed
}

/// Where a redirect of the other end leads for the client: a path of the other end's own is found below `prefix`. What is
/// relative and what is elsewhere stays (`apimachinery/pkg/util/proxy`, `Transport.rewriteURL`).
fn location(place: &str, prefix: &str, hosts: &[&str]) -> String {
    let after = ["http://", "https://", "//"].iter().find_map(|start| place.strip_prefix(start));
    let path = match after {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
                return place.to_owned();
            }
            path
        }
        None if place.starts_with('/') => place,
        None => return place.to_owned(),
    };
    let is_below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let (prefix, slash) = (if is_below { "" } else { prefix }, if path.starts_with('/') { "" } else { "/" });
    format!("{prefix}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn who_asks_and_what_is_of_the_connection_is_not_passed_on() {
        let sent = map(&[
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("impersonate-extra-scopes", "x"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("accept", "image/png"),
            ("x-forwarded-host", "forged"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-uri", "/forged"),
            ("x-forwarded-for", "192.0.2.1"),
        ]);
        let from = Some([192, 0, 2, 9].into());
        let passed = for_backend(&sent, &Asked { host: Some("10.0.0.1:6443"), path: "/api/v1/nodes/n/proxy/x", from });
        assert_eq!(
            text(&passed),
            [
                "accept: image/png",
                "cookie: a=b",
                "host: 10.0.0.1:6443",
                "x-forwarded-for: 192.0.2.1, 192.0.2.9",
                "x-forwarded-host: 10.0.0.1:6443",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /api/v1/nodes/n/proxy/x",
            ]
        );
    }

    #[test]
    fn upgrades_are_passed_on_without_the_token_of_a_browser() {
        let token = format!("{TOKEN_PROTOCOL}c2VjcmV0, chat");
        let sent = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", &token),
        ]);
        let passed = for_backend(&sent, &Asked { host: None, path: "/p", from: None });
        assert_eq!(
            text(&passed),
            [
                "connection: Upgrade",
                "sec-websocket-key: k",
                "sec-websocket-protocol: chat",
                "upgrade: websocket",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /p"
            ]
        );
        assert_eq!(upgrade(&map(&[("connection", "close"), ("upgrade", "websocket")])), None);
    }

    #[test]
    fn redirects_lead_back_through_the_server() {
        for (place, expected) in [
            ("/login?next=%2F", "/P/proxy/login?next=%2F"),
            ("/", "/P/proxy/"),
            ("/P/proxy/x", "/P/proxy/x"),
            ("/P/proxyx", "/P/proxy/P/proxyx"),
            ("http://10.0.0.1:8080/a#b", "/P/proxy/a#b"),
            ("http://10.0.0.1:8080", "/P/proxy/"),
            ("https://LOCALHOST:6443/P/proxy/x", "/P/proxy/x"),
            ("//10.0.0.1:8080/a", "/P/proxy/a"),
            ("//elsewhere.example/a", "//elsewhere.example/a"),
            ("https://elsewhere.example/a", "https://elsewhere.example/a"),
            ("next", "next"),
            ("?page=2", "?page=2"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(location(place, "/P/proxy", &["10.0.0.1:8080", "localhost:6443"]), expected, "{place}");
        }
        let answer = map(&[
            ("location", "/a"),
            ("access-control-allow-origin", "*"),
            ("set-cookie", "a=b"),
            ("connection", "close"),
            ("content-length", "3"),
        ]);
        assert_eq!(text(&for_client(&answer, "/p", &[])), ["content-length: 3", "location: /p/a", "set-cookie: a=b"]);
    }
}
