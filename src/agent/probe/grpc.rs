//! gRPC's health protocol: one call of `grpc.health.v1.Health/Check`, as the kubelet makes it.

use std::sync::Arc;

use ::http::Uri;
use ::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::tls::anyone;

/// More than any answer of the protocol takes.
const MOST_BYTES: usize = 64 << 10;
/// Of a server's message.
const MOST_WORDS: usize = 1024;

/// `grpc.health.v1.HealthCheckRequest` of the gRPC health checking protocol.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

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
    let mut client = anyone::client_config().map_err(|cause| cause.to_string())?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| cause.to_string())?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    exchange(stream.map_err(|cause| cause.to_string())?, ask).await
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ask: Question<'_>) -> Result<(), String> {
    let Question { host, port, tls, service } = ask;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let origin =
        format!("{}://{authority}", if tls { "https" } else { "http" }).parse().map_err(|cause| format!("{authority}: {cause}"))?;
    let endpoint = Endpoint::from_static("http://probe").origin(origin);
    let endpoint = endpoint.user_agent(concat!("podbay-probe/", env!("CARGO_PKG_VERSION"))).map_err(|cause| cause.to_string())?;
    // One connection is made already; there is no other.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        std::future::ready(stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(|cause| said(&cause))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MOST_BYTES);
    client.ready().await.map_err(|cause| said(&cause))?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, path, codec).await.map_err(|status| match status.code() {
        Code::Unimplemented => {
            format!("this server does not implement the grpc health protocol (grpc.health.v1.Health): {}", start(status.message()))
        }
        code => format!("health rpc failed with code {}: {}", code as i32, start(status.message())),
    })?;
    match answer.get_ref().status {
        SERVING => Ok(()),
        status => Err(format!("service unhealthy (responded with \"{}\")", status_name(status))),
    }
}

/// As much of a server's own words as belongs into an event.
fn start(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST_WORDS)]
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

const SERVING: i32 = 1;

fn status_name(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "no status that is known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{HeaderMap, Request, header};
    use bytes::Bytes;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;

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
            ("broken", Some("health rpc failed with code 13")),
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
}
