//! Ports of a pod over a WebSocket, as `v4.channel.k8s.io`: for the i-th port channel 2i carries data and
//! channel 2i+1 an error; each begins with the port, little-endian.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{NodeApi, Parameters, Refusal};

const PROTOCOL: &str = "v4.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

pub async fn forward(
    State(api): State<Arc<NodeApi>>,
    Path((namespace, pod)): Path<(String, String)>,
    query: RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let only = format!("this node speaks port-forward over WebSocket ({PROTOCOL}, {TUNNEL}), not plain SPDY");
    let upgrade = upgrade.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, only))?.protocols([TUNNEL, PROTOCOL]);
    let sandbox = api.ready_sandbox(&namespace, &pod).await?;
    let tunnelled = upgrade.selected_protocol().is_some_and(|protocol| protocol.as_bytes() == TUNNEL.as_bytes());
    if tunnelled {
        return Ok(upgrade.on_upgrade(move |socket| super::tunnel::serve(socket, api, sandbox)));
    }
    let query = Parameters::of(query);
    let words = query.all("port").into_iter().chain(query.all("ports"));
    let ports: Option<Vec<u16>> =
        words.flat_map(|word| word.split(',').map(str::to_owned).collect::<Vec<_>>()).map(|w| w.parse().ok()).collect();
    let ports = ports.filter(|ports| !ports.is_empty() && ports.len() < 120 && !ports.contains(&0));
    let ports = ports.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "query parameter \"port\" has to name ports"))?;
    Ok(upgrade.on_upgrade(move |socket| serve(socket, api, sandbox, ports)))
}

fn frame(channel: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    bytes.freeze()
}

async fn serve(socket: WebSocket, api: Arc<NodeApi>, sandbox: String, ports: Vec<u16>) {
    let (mut sender, mut receiver) = socket.split();
    let (output, mut frames) = mpsc::channel::<Bytes>(16);
    let mut inputs = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(0);
        let (input, take) = mpsc::channel::<Bytes>(16);
        inputs.push(Some(input));
        let (api, sandbox, output) = (api.clone(), sandbox.clone(), output.clone());
        tasks.spawn(async move {
            for announced in [channel, channel + 1] {
                output.send(frame(announced, &port.to_le_bytes())).await.ok();
            }
            match api.runtime.port_forward(&sandbox, port).await {
                Ok(stream) => copy(stream, channel, take, &output).await,
                Err(error) => {
                    output.send(frame(channel + 1, format!("forward to port {port}: {error}").as_bytes())).await.ok();
                }
            }
        });
    }
    drop(output);
    let send = async move {
        while let Some(frame) = frames.recv().await {
            if sender.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
        sender.send(super::exec::goodbye()).await.ok();
    };
    let take_in = async move {
        while let Some(Ok(message)) = receiver.next().await {
            match message {
                Message::Binary(data) if data.len() > 1 => {
                    let input = inputs.get_mut(usize::from(data[0] / 2)).and_then(Option::as_mut);
                    if let Some(input) = input.filter(|_| data[0] % 2 == 0) {
                        input.send(data.slice(1..)).await.ok();
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = take_in => {}
    }
    tasks.shutdown().await;
}

async fn copy(stream: TcpStream, channel: u8, mut input: mpsc::Receiver<Bytes>, output: &mpsc::Sender<Bytes>) {
    let (mut read, mut write) = stream.into_split();
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        write.shutdown().await.ok();
    };
    let outward = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count) = read.read(&mut buffer).await {
            if count == 0 || output.send(frame(channel, &buffer[..count])).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(inward);
    tokio::select! {
        () = outward => {}
        // The caller's end is no end of the answer.
        () = async { (&mut inward).await; std::future::pending::<()>().await } => {}
    }
}
