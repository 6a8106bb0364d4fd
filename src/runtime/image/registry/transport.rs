//! HTTP to registries: TLS with the authorities of each host, redirects that take no secret along,
//! answers that are never read further than a bound.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;

use super::endpoint::{options_of, redirected, same_origin};
use crate::runtime::image::error::ImageError;
use crate::runtime::image::{Options, Patience};

const REDIRECTS: usize = 5;
/// Of an answer that only says what went wrong.
const ERROR_MAX: u64 = 64 << 10;
const AGENT: &str = concat!("podbay/", env!("CARGO_PKG_VERSION"));

/// What is asked. Without `Debug`: the form and the authorization are secret.
#[derive(Clone)]
pub(super) struct Request {
    pub uri: Uri,
    pub accept: &'static str,
    pub authorization: Option<HeaderValue>,
    /// Where in a blob to begin.
    pub from: u64,
    /// The content of a POST.
    pub form: Option<String>,
}

impl Request {
    pub fn get(uri: Uri) -> Self {
        Self { uri, accept: "*/*", authorization: None, from: 0, form: None }
    }
}

/// What came back, its content unread.
pub(in crate::runtime::image) struct Answer {
    /// Where it came from after all redirects.
    pub uri: Uri,
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    patience: Patience,
}

impl Answer {
    /// The next piece of the content; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            let frame = tokio::time::timeout(self.patience.silence, self.body.frame()).await;
            match frame.map_err(|_| silent(&self.uri, self.patience.silence))? {
                None => return Ok(None),
                Some(Err(cause)) => return Err(unreachable(&self.uri, &cause)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The content whole, if it is not larger than `limit` and comes in reasonable time.
    pub async fn document(mut self, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let patience = self.patience.document;
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                if bytes.len() as u64 + chunk.len() as u64 > limit {
                    return Err(ImageError::TooLarge { what: what.to_owned(), limit });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        match tokio::time::timeout(patience, read).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ImageError::Unreachable(format!("{what} did not come within {} s", patience.as_secs()))),
        }
    }

    /// The beginning of a content that says what went wrong; nothing when it does not come.
    pub async fn complaint(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = self.chunk().await {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > ERROR_MAX {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        bytes
    }
}

fn silent(uri: &Uri, limit: Duration) -> ImageError {
    ImageError::Unreachable(format!("{} says nothing for {} s", host(uri), limit.as_secs()))
}

fn unreachable(uri: &Uri, cause: &(dyn std::error::Error + 'static)) -> ImageError {
    if speaks_no_tls(cause) {
        let advice = "`plain-http = true` under its [[images.registry]] allows that";
        return ImageError::Registry(format!("{} speaks plain HTTP and not HTTPS: {advice}", host(uri)));
    }
    ImageError::Unreachable(format!("{}: {}", host(uri), chain(cause)))
}

/// Whether something was said in return for a TLS handshake that is none of TLS, which is HTTP's complaint in a registry's place.
fn speaks_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) = error.downcast_ref() {
        return true;
    }
    // An error in one of I/O is not among its sources.
    let within =
        error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
    within.or_else(|| error.source()).is_some_and(speaks_no_tls)
}

fn host(uri: &Uri) -> &str {
    uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

type HttpClient = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// The connections of one pull, so that nothing secret is kept or mixed up.
pub(super) struct Transport {
    options: Arc<Options>,
    /// The system's and those configured for all registries.
    authorities: Vec<CertificateDer<'static>>,
    clients: Mutex<BTreeMap<String, HttpClient>>,
}

impl Transport {
    pub async fn new(options: &Arc<Options>) -> Result<Self, ImageError> {
        // Fails when somebody installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let files = options.ca_files.clone();
        let authorities = super::super::blocking(move || {
            // A broken certificate among the system's is left out.
            let mut found = rustls_native_certs::load_native_certs().certs;
            for path in &files {
                found.extend(certificates(path)?);
            }
            Ok(found)
        });
        Ok(Self { options: options.clone(), authorities: authorities.await?, clients: Mutex::default() })
    }

    /// Asks, and follows redirects; what is secret is left behind at the first that leads elsewhere.
    pub async fn send(&self, mut request: Request) -> Result<Answer, ImageError> {
        for _ in 0..=REDIRECTS {
            let answer = self.once(&request).await?;
            let location = answer.headers.get(header::LOCATION).filter(|_| matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308));
            let Some(location) = location else { return Ok(answer) };
            let next = location.to_str().ok().and_then(|location| redirected(&request.uri, location));
            let next = next.ok_or_else(|| ImageError::Registry(format!("{} redirects to nowhere", host(&request.uri))))?;
            if !same_origin(&request.uri, &next) {
                request.authorization = None;
            }
            request.form = None;
            request.uri = next;
        }
        Err(ImageError::Registry(format!("{}: more than {REDIRECTS} redirects", host(&request.uri))))
    }

    async fn once(&self, request: &Request) -> Result<Answer, ImageError> {
        let client = self.client(&request.uri)?;
        let method = if request.form.is_some() { Method::POST } else { Method::GET };
        let mut built = http::Request::builder().method(method).uri(&request.uri);
        built = built.header(header::USER_AGENT, AGENT).header(header::ACCEPT, request.accept);
        if let Some(authorization) = &request.authorization {
            built = built.header(header::AUTHORIZATION, authorization);
        }
        if request.from > 0 {
            built = built.header(header::RANGE, format!("bytes={}-", request.from));
        }
        if request.form.is_some() {
            built = built.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(request.form.clone().unwrap_or_default()));
        let built = built.body(body).map_err(|cause| ImageError::Registry(format!("{}: {cause}", request.uri)))?;
        let patience = self.options.patience.clone();
        let response = tokio::time::timeout(patience.silence, client.request(built)).await;
        let response = response.map_err(|_| silent(&request.uri, patience.silence))?;
        let (parts, body) = response.map_err(|cause| unreachable(&request.uri, &cause))?.into_parts();
        Ok(Answer { uri: request.uri.clone(), status: parts.status, headers: parts.headers, body, patience })
    }

    /// Plain HTTP is spoken only to hosts for which that is configured, wherever a registry points.
    fn client(&self, uri: &Uri) -> Result<HttpClient, ImageError> {
        let host = host(uri);
        let configured = options_of(host, &self.options.registries);
        let plain = configured.is_some_and(|options| options.plain_http);
        if uri.scheme_str() != Some("https") && !plain {
            return Err(ImageError::Registry(format!("{host} is to be reached by plain HTTP, which is not configured for it")));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(host) {
            return Ok(client.clone());
        }
        let own = configured.and_then(|options| options.ca_file.as_ref());
        let client = self.connect(own.map(PathBuf::as_path))?;
        clients.insert(host.to_owned(), client.clone());
        Ok(client)
    }

    fn connect(&self, ca_file: Option<&Path>) -> Result<HttpClient, ImageError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities.iter().cloned());
        if let Some(path) = ca_file {
            roots.add_parsable_certificates(certificates(path)?);
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(self.options.patience.connect));
        http.set_nodelay(true);
        let connector = Connector { direct: http, proxies: Arc::new(Matcher::from_env()) };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build(connector))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ImageError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(ImageError::format(path.display().to_string(), "it holds no certificate")),
        Ok(found) => Ok(found),
        Err(rustls::pki_types::pem::Error::Io(cause)) => Err(ImageError::io(format!("read {}", path.display()))(cause)),
        Err(cause) => Err(ImageError::format(path.display().to_string(), cause)),
    }
}

/// Straight to a host, or for HTTPS through the proxy of the environment (`HTTPS_PROXY`, `NO_PROXY`).
#[derive(Clone)]
struct Connector {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let proxy = match proxy_of(&self.proxies, &target) {
            Ok(Some(proxy)) => proxy,
            Ok(None) => {
                let connecting = self.direct.call(target);
                return Box::pin(async move { connecting.await.map_err(Into::into) });
            }
            Err(refusal) => return Box::pin(async move { Err(refusal.into()) }),
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let connecting = tower::Service::call(&mut tunnel, target);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// What stands between us and a target; `None`: nothing.
fn proxy_of(proxies: &Matcher, target: &Uri) -> Result<Option<Intercept>, String> {
    let Some(proxy) = proxies.intercept(target).filter(|_| target.scheme_str() == Some("https")) else { return Ok(None) };
    // TLS to the proxy and SOCKS are not spoken here: its password would go in the clear, or nobody would understand.
    match proxy.uri().scheme_str().unwrap_or_default() {
        "http" => Ok(Some(proxy)),
        scheme => Err(format!("the proxy of HTTPS_PROXY is {scheme}://: only http:// proxies are used")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_that_speaks_plain_http_is_called_so() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
        });
        let transport = Transport::new(&Arc::new(Options::default())).await.unwrap();
        let answer = transport.send(Request::get(format!("https://{address}/v2/").parse().unwrap())).await;
        let text = answer.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(&format!("{address} speaks plain HTTP")) && text.contains("plain-http = true"), "{text}");
        server.await.unwrap();
        // Nobody listens any more.
        let answer = transport.send(Request::get(format!("https://{address}/v2/").parse().unwrap())).await;
        assert!(answer.err().is_some_and(|error| error.to_string().contains("does not answer")));
    }

    #[test]
    fn only_https_goes_through_a_proxy_and_only_through_one_by_http() {
        let through = |proxy: &str, target: &str| {
            let proxies = Matcher::builder().http(proxy).https(proxy).no("inside.test,10.0.0.0/8").build();
            proxy_of(&proxies, &target.parse().expect("a target")).map(|proxy| proxy.map(|proxy| proxy.uri().to_string()))
        };
        let by_http = "http://proxy.test:3128/";
        assert_eq!(through(by_http, "https://registry.test/v2/"), Ok(Some(by_http.to_owned())));
        // Without a scheme it is this one.
        assert_eq!(through("proxy.test:3128", "https://registry.test/v2/"), Ok(Some(by_http.to_owned())));
        for direct in ["http://registry.test/v2/", "https://inside.test/v2/", "https://10.1.2.3:5000/v2/"] {
            assert_eq!(through(by_http, direct), Ok(None), "{direct}");
        }
        for scheme in ["https", "socks5", "socks5h", "socks4"] {
            let refusal = through(&format!("{scheme}://user:secret@proxy.test:1080"), "https://registry.test/v2/");
            assert!(refusal.as_ref().is_err_and(|text| text.contains(&format!("{scheme}://")) && !text.contains("secret")), "{refusal:?}");
        }
        assert_eq!(through("https://proxy.test:1080", "http://registry.test/v2/"), Ok(None), "it is not asked at all");
    }
}
