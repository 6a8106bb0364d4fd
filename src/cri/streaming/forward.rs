//! Ports of a pod over SPDY, `portforward.k8s.io`: for each connection two streams with the same `requestid` and
//! `port`, `error`, which the caller only listens to, and `data`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{Connection, Side, Stream};
use super::lane::{Inlet, Outlet, PIECE_BYTES};
use super::remote::STREAMS_WITHIN;
use crate::cri::{Duplex, Runtime};

pub const PROTOCOL: &str = "portforward.k8s.io";

/// Connections at once.
const PAIRS: usize = 512;

/// A stream that waits for its other one, and how long.
struct Half {
    is_data: bool,
    port: u16,
    until: Instant,
    stream: Stream,
}

/// Serves connections until the caller leaves.
pub async fn serve<T: AsyncRead + AsyncWrite + Send + 'static>(io: T, runtime: &Arc<dyn Runtime>, sandbox: &str) {
    let mut connection = Connection::start(io, Side::Server);
    let gone = connection.gone();
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let mut pairs = JoinSet::new();
    loop {
        let earliest = halves.values().map(|half| half.until).min();
        let late = async {
            match earliest {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = connection.accept() => {
                let Some(stream) = stream else { break };
                if let Some((port, data, error)) = take(&mut halves, stream, pairs.len()).await {
                    pairs.spawn(serve_pair(Arc::clone(runtime), sandbox.to_owned(), port, data, error));
                }
            }
            Some(_) = pairs.join_next() => {}
            () = late => {
                let now = Instant::now();
                for (_, half) in halves.extract_if(.., |_, half| half.until <= now) {
                    half.stream.outlet.reset().await;
                }
            }
        }
    }
    // No more will come; what goes on may.
    tokio::select! {
        () = async { while pairs.join_next().await.is_some() {} } => connection.end().await,
        () = gone.cancelled() => {}
    }
}

/// Both streams of a connection and its port, once they are there.
async fn take(halves: &mut BTreeMap<String, Half>, stream: Stream, pairs: usize) -> Option<(u16, Stream, Stream)> {
    let (kind, port) = (stream.header("streamtype").to_owned(), stream.header("port").parse().unwrap_or(0));
    let is_data = kind == "data";
    if (!is_data && kind != "error") || port == 0 || halves.len() + pairs >= PAIRS {
        stream.outlet.reset().await;
        return None;
    }
    // Callers of long ago name no request: they open `data` right after `error`.
    let request = match stream.header("requestid") {
        "" if is_data => stream.id.saturating_sub(2).to_string(),
        "" => stream.id.to_string(),
        named => named.to_owned(),
    };
    match halves.remove(&request) {
        None => {
            let until = Instant::now() + STREAMS_WITHIN;
            halves.insert(request, Half { is_data, port, until, stream });
            None
        }
        Some(half) if half.is_data == is_data => {
            stream.outlet.reset().await;
            halves.insert(request, half);
            None
        }
        Some(half) if is_data => Some((port, stream, half.stream)),
        Some(half) => Some((half.port, half.stream, stream)),
    }
}

async fn serve_pair(runtime: Arc<dyn Runtime>, sandbox: String, port: u16, data: Stream, error: Stream) {
    let Stream { mut inlet, outlet, given_up, .. } = data;
    let forwarded = async {
        match runtime.port_forward(&sandbox, port).await {
            Ok(wire) => copy(wire, &mut inlet, &outlet).await.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    };
    let failed = tokio::select! {
        failed = forwarded => failed,
        // Kubectl does so when its own client has gone, whatever the pod still has to say.
        _ = given_up => return error.outlet.finish().await,
    };
    if let Some(cause) = failed {
        error.outlet.send(format!("error forwarding port {port}: {cause}").as_bytes()).await;
    }
    outlet.finish().await;
    error.outlet.finish().await;
}

/// Copies both ways until the pod's side has ended: the caller's end is no end of the answer.
pub(super) async fn copy(wire: Box<dyn Duplex>, inlet: &mut Inlet, outlet: &Outlet) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(wire);
    let inward = async {
        while let Some(bytes) = inlet.next().await {
            if write.write_all(&bytes).await.is_err() {
                // It may still say something.
                return;
            }
        }
        write.shutdown().await.ok();
    };
    let outward = async {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = read.read(&mut buffer).await?;
            if count == 0 || !outlet.send(&buffer[..count]).await {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = outward => ended,
        () = async { inward.await; std::future::pending().await } => Ok(()),
    }
}
