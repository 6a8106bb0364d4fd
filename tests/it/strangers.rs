//! What those without a certificate cannot do to those who have one.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use podbay::tls::connection::Patience;
use podbay::tls::places::Bound;
use podbay::tls::serve::Bounds;
use podbay::tls::{SERVER_NAME, connect};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::Rig;

/// Long enough for any machine; nothing is measured by it.
const AT_LAST: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(3600);

fn address(rig: &Rig) -> &str {
    rig.url.trim_start_matches("https://")
}

fn stranger(rig: &Rig) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rig.pki.authority().der().clone()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

async fn open(rig: &Rig, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    connect::open(address(rig), SERVER_NAME, config).await.unwrap()
}

/// Comes back when the server has closed the connection.
async fn closed(mut stream: TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    // With or without the proper farewell.
    let _ = tokio::time::timeout(AT_LAST, stream.read_to_end(&mut rest)).await.expect("the server closes the connection");
}

async fn is_served(rig: &Rig, config: Arc<ClientConfig>, path: &str) -> StatusCode {
    let request = http::Request::get(path).header("host", "s").body(axum::body::Body::empty()).unwrap();
    connect::ask(address(rig), SERVER_NAME, config, request).await.unwrap().status()
}

/// Nobody is ever sent away for being slow.
fn patient(connections: usize) -> Bounds {
    let patience = Patience { headers: NEVER, idle: NEVER, life: Some(NEVER) };
    let bound = |each| Bound { total: each, each, arriving: 16 };
    Bounds { connections: bound(connections), strangers: bound(8), known: patience, stranger: patience }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_hold_every_place_lock_nobody_out() {
    let rig = Rig::with_bounds(patient(8)).await;
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(open(&rig, stranger(&rig)).await);
    }
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(address(&rig)).await.unwrap());
    }
    let known = rig.pki.node_client_config().unwrap();
    assert_eq!(is_served(&rig, stranger(&rig), "/healthz").await, StatusCode::OK, "not even other strangers");
    assert_eq!(is_served(&rig, Arc::clone(&known), "/healthz").await, StatusCode::OK);
    // Who has shown a certificate keeps its connection, whatever strangers do.
    let mut mine = open(&rig, known).await;
    mine.write_all(b"GET /healthz HTTP/1.1\r\nhost: s\r\n\r\n").await.unwrap();
    let mut buffer = [0; 8];
    mine.read_exact(&mut buffer).await.unwrap();
    for _ in 0..32 {
        held.push(open(&rig, stranger(&rig)).await);
    }
    mine.write_all(b"GET /healthz HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    mine.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
    closed(held.remove(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_cannot_hold_every_place() {
    let connections = Bound { each: 4, ..patient(8).connections };
    let rig = Rig::with_bounds(Bounds { connections, ..patient(8) }).await;
    let greedy = rig.pki.node_client_config().unwrap();
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(open(&rig, Arc::clone(&greedy)).await);
    }
    closed(held.remove(0)).await;
    let output = rig.kubectl("get --raw /healthz --request-timeout 60s").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_one_address_that_comes_at_once_gets_in() {
    let rig = Rig::with_bounds(Bounds::default()).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(address(&rig)).await.unwrap());
    }
    // They are taken up in their order: all of them are there before the first of them speaks.
    assert_eq!(is_served(&rig, stranger(&rig), "/healthz").await, StatusCode::OK);
    let mut held = Vec::new();
    for stream in crowd {
        let connector = TlsConnector::from(rig.pki.node_client_config().unwrap());
        let mut stream = connector.connect(SERVER_NAME.try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: s\r\n\r\n").await.unwrap();
        let mut buffer = [0; 12];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"HTTP/1.1 200");
        held.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed() {
    let moment = Patience { headers: Duration::from_millis(50), idle: NEVER, life: None };
    let rig = Rig::with_bounds(Bounds { known: moment, stranger: moment, ..Bounds::default() }).await;
    closed(open(&rig, stranger(&rig)).await).await;
    closed(open(&rig, rig.pki.node_client_config().unwrap()).await).await;
    // HTTP/2: the greeting is no request.
    let mut config = ClientConfig::clone(&stranger(&rig));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut stream = open(&rig, Arc::new(config)).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_sends_its_request_drop_by_drop_is_cut_off() {
    let stranger_patience = Patience { headers: NEVER, idle: NEVER, life: Some(Duration::from_millis(50)) };
    let rig = Rig::with_bounds(Bounds { stranger: stranger_patience, ..Bounds::default() }).await;
    let mut stream = open(&rig, stranger(&rig)).await;
    let head = b"POST /podbay/v1/join HTTP/1.1\r\nhost: s\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    closed(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_the_time_for_idle_connections() {
    let short = Patience { headers: NEVER, idle: Duration::from_millis(20), life: None };
    let rig = Rig::with_bounds(Bounds { known: short, ..Bounds::default() }).await;
    let text = rig.kubectl_ok("get --raw /api/v1/namespaces?watch=1&timeoutSeconds=2&resourceVersion=1&allowWatchBookmarks=true").await;
    assert!(text.contains("BOOKMARK"), "the watch went on to its own end: {text}");
}
