//! gRPC's health protocol: one call of `grpc.health.v1.Health/Check`, as the kubelet makes it.

use std::sync::Arc;

use ::http::{HeaderMap, Request, Uri, header};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// More than any answer of the protocol takes.
const MOST_BYTES: usize = 64 << 10;
const UNIMPLEMENTED: &str = "12";

/// Whom to ask and about what.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub host: &'a str,
    pub port: u16,
    /// With encryption; the certificate is not verified.
    pub tls: bool,
    /// Empty: the server as a whole.
    pub service: &'a str,
}

/// Asks for the health of a service. The error is for a person.
pub async fn check(ask: Question<'_>) -> Result<(), String> {
    let Question { host, port, .. } = ask;
    let connect = TcpStream::connect((host, port)).await;
    let stream = connect.map_err(|cause| format!("connect to {host}:{port}: {cause}"))?;
    if !ask.tls {
        return exchange(stream, ask).await;
    }
    let mut client = super::http::trusting()?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| cause.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    exchange(stream.map_err(|cause| cause.to_string())?, ask).await
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ask: Question<'_>) -> Result<(), String> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|cause| cause.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request(ask)?).await.map_err(|cause| cause.to_string())?;
        let code = answer.status();
        if !code.is_success() {
            return Err(format!("HTTP status {}", code.as_u16()));
        }
        // An answer of headers alone has its status there.
        let early = verdict(answer.headers());
        let whole = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(|cause| cause.to_string())?;
        let late = whole.trailers().and_then(verdict);
        late.or(early).unwrap_or_else(|| Err("the answer has no gRPC status".to_owned()))?;
        match serving_status(&whole.to_bytes()) {
            Some(1) => Ok(()),
            status => Err(format!("service unhealthy (responded with \"{}\")", status_name(status))),
        }
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn request(Question { host, port, tls, service }: Question<'_>) -> Result<Request<Full<Bytes>>, String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let scheme = if tls { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query("/grpc.health.v1.Health/Check").build();
    let request = Request::post(uri.map_err(|cause| cause.to_string())?)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("podbay-probe/", env!("CARGO_PKG_VERSION")));
    request.body(Full::new(question(service))).map_err(|cause| cause.to_string())
}

/// One uncompressed message that holds the service's name as its first field; an empty name is left out.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// What `grpc-status` says, where it is there.
fn verdict(headers: &HeaderMap) -> Option<Result<(), String>> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let status = text("grpc-status")?;
    let message = text("grpc-message").unwrap_or_default();
    Some(match status.as_str() {
        "0" => Ok(()),
        UNIMPLEMENTED => Err(format!("this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}")),
        code => Err(format!("health rpc failed with code {code}: {message}")),
    })
}

/// The first field of the answer's message, a number; none written means 0.
fn serving_status(mut body: &[u8]) -> Option<u64> {
    let compressed = body.try_get_u8().ok()?;
    let length = usize::try_from(body.try_get_u32().ok()?).ok()?;
    let mut message = body.get(..length).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = number(&mut message)?;
        match tag & 7 {
            0 => {
                let value = number(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
            }
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn status_name(status: Option<u64>) -> &'static str {
    match status {
        Some(0) => "UNKNOWN",
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        _ => "no status that is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;

    /// Answers by the name of the service that is asked for.
    async fn answer(
        request: Request<Incoming>,
    ) -> Result<http::Response<http_body_util::combinators::BoxBody<Bytes, std::io::Error>>, std::io::Error> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()[header::TE], "trailers");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let name = asked.get(7..).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        let (status, message): (&str, &[u8]) = match name.as_str() {
            "" => ("0", &[8, 1]),
            "down" => ("0", &[8, 2]),
            "unset" => ("0", &[]),
            "odd" => ("0", &[0x12, 1, 7, 8, 1]),
            "broken" => ("0", &[8]),
            "none" => ("12", &[]),
            _ => ("5", &[]),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0], &length[..], message].concat();
        let frames = [Ok(Frame::data(Bytes::from(body))), Ok(Frame::trailers(trailers))];
        let response = http::Response::builder().header(header::CONTENT_TYPE, "application/grpc");
        Ok(response.body(StreamBody::new(futures::stream::iter(frames)).boxed()).unwrap())
    }

    fn plain(port: u16, service: &str) -> Question<'_> {
        Question { host: "127.0.0.1", port, tls: false, service }
    }

    async fn server() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        port
    }

    #[tokio::test]
    async fn a_server_says_how_its_services_are() {
        let port = server().await;
        let table = [
            ("", None),
            ("odd", None),
            ("down", Some("service unhealthy (responded with \"NOT_SERVING\")")),
            ("unset", Some("service unhealthy (responded with \"UNKNOWN\")")),
            ("broken", Some("service unhealthy")),
            ("none", Some("does not implement the grpc health protocol")),
            ("gone", Some("code 5")),
        ];
        for (service, want) in table {
            let got = check(plain(port, service)).await;
            match want {
                None => assert_eq!(got, Ok(()), "{service}"),
                Some(text) => assert!(got.as_ref().is_err_and(|cause| cause.contains(text)), "{service}: {got:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_speaks_no_http2_is_unhealthy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        assert!(check(plain(port, "")).await.is_err());
        serve.await.unwrap();
        assert!(check(plain(port, "")).await.is_err(), "nobody listens");
    }

    #[test]
    fn long_names_have_long_lengths() {
        let name = "n".repeat(300);
        assert_eq!(question(&name)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
    }
}
