//! Port-forward as kubectl sends it: SPDY/3.1 inside a WebSocket.
//!
//! For each connection to a local port kubectl opens two streams with the same `requestid`: `error` first,
//! which it only listens to, then `data`. Header blocks of both directions are compressed with SPDY's
//! dictionary; a plain zlib stream with that dictionary is what `flate2` gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::NodeApi;
use super::spdy::{self, Frame};

/// What a stream may have in flight before we say that it was taken.
const WINDOW: usize = 64 << 10;

/// Serves one tunnel to its end.
pub async fn serve(socket: WebSocket, api: Arc<NodeApi>, sandbox: String) {
    let (mut sender, mut receiver) = socket.split();
    let (output, mut frames) = mpsc::channel::<Vec<u8>>(16);
    let send = async move {
        while let Some(frame) = frames.recv().await {
            if sender.send(Message::Binary(frame.into())).await.is_err() {
                return;
            }
        }
    };
    let take_in = async move {
        let mut tunnel = Tunnel::new(api, sandbox, output);
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(bytes) => {
                    if let Err(cause) = tunnel.hear(&bytes).await {
                        tracing::debug!(cause, "a port-forward ends");
                        break;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        tunnel.tasks.shutdown().await;
    };
    tokio::select! {
        () = send => {}
        () = take_in => {}
    }
}

struct Tunnel {
    api: Arc<NodeApi>,
    sandbox: String,
    output: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
    decompress: Decompress,
    has_dictionary: bool,
    compress: Compress,
    /// Error streams by request, until their data stream comes.
    errors: BTreeMap<String, u32>,
    inputs: BTreeMap<u32, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
}

impl Tunnel {
    fn new(api: Arc<NodeApi>, sandbox: String, output: mpsc::Sender<Vec<u8>>) -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Fails only for a compressor that is already in use.
        compress.set_dictionary(&super::spdy_dictionary::dictionary()).ok();
        Self {
            api,
            sandbox,
            output,
            buffer: Vec::new(),
            decompress: Decompress::new(true),
            has_dictionary: false,
            compress,
            errors: BTreeMap::new(),
            inputs: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn hear(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.buffer.extend_from_slice(bytes);
        while let Some(frame) = spdy::take(&mut self.buffer)? {
            while self.tasks.try_join_next().is_some() {}
            match frame {
                Frame::SynStream { id, headers, .. } => self.open(id, &headers).await?,
                Frame::Data { id, fin, bytes } => self.data(id, fin, bytes).await?,
                Frame::Ping { id } => self.send(spdy::ping(id)).await?,
                Frame::RstStream { id } => {
                    self.inputs.remove(&id);
                }
                Frame::GoAway => return Err("the caller said good-bye"),
                Frame::WindowUpdate { .. } | Frame::Other => {}
            }
        }
        Ok(())
    }

    async fn send(&self, frame: Vec<u8>) -> Result<(), &'static str> {
        self.output.send(frame).await.map_err(|_| "the caller left")
    }

    async fn open(&mut self, id: u32, block: &[u8]) -> Result<(), &'static str> {
        let block = self.inflate(block)?;
        let headers = spdy::pairs(&block)?;
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default();
        let reply = self.deflate(&0u32.to_be_bytes())?;
        self.send(spdy::syn_reply(id, &reply)).await?;
        let request = header("requestid");
        match header("streamtype").as_str() {
            "error" => {
                self.errors.insert(request, id);
                Ok(())
            }
            "data" => {
                let error = self.errors.remove(&request);
                self.connect(id, error, header("port").parse().unwrap_or(0));
                Ok(())
            }
            _ => self.send(spdy::rst_stream(id, 1)).await,
        }
    }

    fn connect(&mut self, id: u32, error: Option<u32>, port: u16) {
        let (input, mut take) = mpsc::channel::<Bytes>(WINDOW / 1024);
        self.inputs.insert(id, input);
        let (api, sandbox, output) = (self.api.clone(), self.sandbox.clone(), self.output.clone());
        self.tasks.spawn(async move {
            let failed = match api.runtime.port_forward(&sandbox, port).await {
                Ok(stream) => {
                    let (mut read, mut write) = stream.into_split();
                    let inward = async {
                        while let Some(bytes) = take.recv().await {
                            if write.write_all(&bytes).await.is_err() {
                                return;
                            }
                            let taken = u32::try_from(bytes.len()).unwrap_or(0);
                            output.send(spdy::window_update(id, taken)).await.ok();
                        }
                        write.shutdown().await.ok();
                    };
                    let outward = async {
                        let mut buffer = vec![0; 16 << 10];
                        while let Ok(count) = read.read(&mut buffer).await {
                            if count == 0 || output.send(spdy::data(id, false, &buffer[..count])).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::pin!(inward);
                    tokio::select! {
                        () = outward => {}
                        () = async { (&mut inward).await; std::future::pending::<()>().await } => {}
                    }
                    None
                }
                Err(error) => Some(format!("error forwarding port {port}: {error}")),
            };
            if let (Some(error), Some(message)) = (error, &failed) {
                output.send(spdy::data(error, false, message.as_bytes())).await.ok();
            }
            output.send(spdy::data(id, true, &[])).await.ok();
            if let Some(error) = error {
                output.send(spdy::data(error, true, &[])).await.ok();
            }
        });
    }

    async fn data(&mut self, id: u32, fin: bool, bytes: Vec<u8>) -> Result<(), &'static str> {
        if !bytes.is_empty()
            && let Some(input) = self.inputs.get(&id)
        {
            input.send(bytes.into()).await.ok();
        }
        if fin {
            self.inputs.remove(&id);
        }
        Ok(())
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let broken = "a SPDY header block cannot be decompressed";
        let mut out = Vec::with_capacity(4096);
        let before = self.decompress.total_in();
        loop {
            let used = usize::try_from(self.decompress.total_in() - before).unwrap_or(block.len());
            let rest = block.get(used..).unwrap_or_default();
            match self.decompress.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(_) if out.len() == out.capacity() && out.len() < 64 << 10 => out.reserve(4096),
                Ok(_) if out.len() >= 64 << 10 => return Err(broken),
                Ok(_) => return Ok(out),
                Err(error) if error.needs_dictionary().is_some() && !self.has_dictionary => {
                    self.has_dictionary = true;
                    self.decompress.set_dictionary(&super::spdy_dictionary::dictionary()).map_err(|_| broken)?;
                }
                Err(_) => return Err(broken),
            }
        }
    }

    fn deflate(&mut self, block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::with_capacity(256);
        let status = self.compress.compress_vec(block, &mut out, FlushCompress::Sync);
        status.map(|_| out).map_err(|_| "a SPDY header block cannot be compressed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Options;
    use crate::cri::fake::FakeRuntime;
    use crate::cri::{PodSandboxConfig, PodSandboxMetadata, Runtime};
    use tokio_tungstenite::tungstenite::Message as Wire;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

    /// kubectl's side: what it sends, and the frames it gets.
    struct Kubectl {
        socket: Socket,
        compress: Compress,
        buffer: Vec<u8>,
    }

    impl Kubectl {
        async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
            let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                block.extend(text.as_bytes());
            }
            let mut packed = Vec::with_capacity(1024);
            self.compress.compress_vec(&block, &mut packed, FlushCompress::Sync).unwrap();
            let mut frame = vec![0x80, 3, 0, 1, 0];
            frame.extend(&u32::try_from(packed.len() + 10).unwrap().to_be_bytes()[1..]);
            frame.extend(id.to_be_bytes());
            frame.extend([0; 6]);
            frame.extend(packed);
            self.send(frame).await;
        }

        async fn send(&mut self, frame: Vec<u8>) {
            self.socket.send(Wire::Binary(frame.into())).await.unwrap();
        }

        /// The next data frame.
        async fn data(&mut self) -> (u32, bool, Vec<u8>) {
            loop {
                match spdy::take(&mut self.buffer).unwrap() {
                    Some(Frame::Data { id, fin, bytes }) => return (id, fin, bytes),
                    Some(_) => {}
                    None => match self.socket.next().await.unwrap().unwrap() {
                        Wire::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
                        other => panic!("{other:?}"),
                    },
                }
            }
        }
    }

    async fn kubectl() -> Kubectl {
        let runtime = Arc::new(FakeRuntime::default());
        let metadata = PodSandboxMetadata { namespace: "ns".into(), name: "p".into(), uid: "u".into(), attempt: 0 };
        runtime.run_pod_sandbox(&PodSandboxConfig { metadata, ..PodSandboxConfig::default() }).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/portForward/ns/p", listener.local_addr().unwrap());
        let router = crate::agent::node_api::router(runtime, &Options::new("n1", "/nonexistent"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io".parse().unwrap());
        let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&crate::agent::node_api::spdy_dictionary::dictionary()).unwrap();
        Kubectl { socket, compress, buffer: Vec::new() }
    }

    async fn echo() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        port.to_string()
    }

    #[tokio::test]
    async fn connections_go_through_the_tunnel() {
        let (mut kubectl, port) = (kubectl().await, echo().await);
        for (round, text) in [b"first".as_slice(), b"second"].into_iter().enumerate() {
            let (error, data) = (u32::try_from(round * 4 + 1).unwrap(), u32::try_from(round * 4 + 3).unwrap());
            let request = round.to_string();
            kubectl.open(error, &[("port", &port), ("requestid", &request), ("streamtype", "error")]).await;
            kubectl.open(data, &[("port", &port), ("requestid", &request), ("streamtype", "data")]).await;
            kubectl.send(spdy::data(data, false, text)).await;
            assert_eq!(kubectl.data().await, (data, false, text.to_vec()));
            // Its end: the answer ends too, then both streams.
            kubectl.send(spdy::data(data, true, &[])).await;
            assert_eq!(kubectl.data().await, (data, true, vec![]));
            assert_eq!(kubectl.data().await, (error, true, vec![]));
        }
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_an_error_on_the_error_stream() {
        let mut kubectl = kubectl().await;
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
        kubectl.open(1, &[("port", &free), ("requestid", "0"), ("streamtype", "error")]).await;
        kubectl.open(3, &[("port", &free), ("requestid", "0"), ("streamtype", "data")]).await;
        let (id, _, message) = kubectl.data().await;
        assert_eq!(id, 1);
        assert!(String::from_utf8(message).unwrap().contains("error forwarding port"));
    }
}
