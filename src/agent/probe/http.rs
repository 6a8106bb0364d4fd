//! The small HTTP client of probes and hooks: one GET, the status code, redirects on the same host
//! followed as the kubelet does, certificates not verified (the kubelet does not either).

use std::sync::Arc;

use ::http::{Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::anyone;

const MOST_REDIRECTS: usize = 10;

/// A question.
#[derive(Clone, Debug)]
pub struct Get {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// With its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// The status code. A redirect to another host is an answer like any other.
pub async fn get(first: &Get) -> Result<u16, String> {
    let mut next = first.clone();
    for _ in 0..=MOST_REDIRECTS {
        let (code, location) = once(&next).await?;
        let followed = location.filter(|_| (300..400).contains(&code)).and_then(|location| redirect(&next, &location));
        match followed {
            Some(to) => next = to,
            None => return Ok(code),
        }
    }
    Err(format!("more than {MOST_REDIRECTS} redirects"))
}

/// Where a redirect leads, if that is the same host.
fn redirect(from: &Get, location: &str) -> Option<Get> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query()?.as_str().to_owned();
    if uri.host().is_some_and(|host| host != from.host) || !path.starts_with('/') {
        return None;
    }
    let tls = uri.scheme_str().map_or(from.tls, |scheme| scheme == "https");
    let default = if tls == from.tls {
        from.port
    } else if tls {
        443
    } else {
        80
    };
    let port = if uri.host().is_some() { uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) } else { default };
    Some(Get { path, tls, port, ..from.clone() })
}

async fn once(get: &Get) -> Result<(u16, Option<String>), String> {
    let stream = TcpStream::connect((get.host.as_str(), get.port)).await.map_err(|cause| cause.to_string())?;
    if !get.tls {
        return exchange(stream, get).await;
    }
    let name = ServerName::try_from(get.host.clone()).map_err(|cause| cause.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(anyone::client_config().map_err(|cause| cause.to_string())?));
    let stream = connector.connect(name, stream).await.map_err(|cause| cause.to_string())?;
    exchange(stream, get).await
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, get: &Get) -> Result<(u16, Option<String>), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|cause| cause.to_string())?;
    // Ended with the set, also when the probe's time is up meanwhile.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let mut request = Request::get(&get.path);
    let given = |name: &str| get.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !given("host") {
        request = request.header(header::HOST, format!("{}:{}", get.host, get.port));
    }
    if !given("user-agent") {
        request = request.header(header::USER_AGENT, concat!("podbay-probe/", env!("CARGO_PKG_VERSION")));
    }
    if !given("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    for (name, value) in &get.headers {
        request = request.header(name, value);
    }
    let request = request.header(header::CONNECTION, "close").body(Empty::<bytes::Bytes>::new()).map_err(|cause| cause.to_string())?;
    let answer = sender.send_request(request).await.map_err(|cause| cause.to_string());
    let answer = answer?;
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok((answer.status().as_u16(), location))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the text for its path.
    async fn server(answer: fn(&str) -> String) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut seen = Vec::new();
                let mut chunk = [0; 1024];
                while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk).await {
                        Ok(read) if read > 0 => seen.extend_from_slice(&chunk[..read]),
                        _ => break,
                    }
                }
                let text = answer(&String::from_utf8_lossy(&seen));
                stream.write_all(text.as_bytes()).await.ok();
            }
        });
        port
    }

    fn to(port: u16, path: &str) -> Get {
        Get { host: "127.0.0.1".into(), port, tls: false, path: path.into(), headers: vec![("X-Own".into(), "1".into())] }
    }

    #[tokio::test]
    async fn codes_headers_and_redirects() {
        let port = server(|request| {
            let line = request.lines().next().unwrap_or_default();
            let (code, extra) = match line.split(' ').nth(1) {
                Some("/ok") if request.to_lowercase().contains("x-own: 1") => ("200 OK", ""),
                Some("/bad") => ("500 Bad", ""),
                Some("/to-bad") => ("302 Found", "Location: /bad\r\n"),
                Some("/away") => ("302 Found", "Location: http://192.0.2.1/x\r\n"),
                Some("/round") => ("302 Found", "Location: /round\r\n"),
                _ => ("404 Not Found", ""),
            };
            format!("HTTP/1.1 {code}\r\n{extra}Content-Length: 0\r\nConnection: close\r\n\r\n")
        })
        .await;
        assert_eq!(get(&to(port, "/ok")).await, Ok(200));
        assert_eq!(get(&to(port, "/bad")).await, Ok(500));
        assert_eq!(get(&to(port, "/to-bad")).await, Ok(500), "followed on the same host");
        assert_eq!(get(&to(port, "/away")).await, Ok(302), "not followed elsewhere");
        assert!(get(&to(port, "/round")).await.is_err());
    }

    #[test]
    fn redirects_keep_host_and_port_unless_told() {
        let from = to(8080, "/a");
        assert_eq!(redirect(&from, "/b?x=1").map(|get| (get.port, get.path)), Some((8080, "/b?x=1".into())));
        assert_eq!(redirect(&from, "https://127.0.0.1:8443/b").map(|get| (get.port, get.tls)), Some((8443, true)));
        assert!(redirect(&from, "http://elsewhere/b").is_none());
    }
}
