//! Our runtime on a socket: CRI v1's RuntimeService and ImageService over the seam's traits.
//!
//! - `runtime`, `images`: the two services, a verb a method
//! - `filter`: what lists keep (pure)
//! - `events`: the stream of container events, from what is there before and after (its `kinds` is pure)
//! - `metrics`: figures by name, for Prometheus (pure)
//! - `rates`: how much of the CPU is used, from two looks (pure)
//! - `socket`: the socket and who may use it
//! - `stream`: where callers come for exec, attach and port-forward; `tokens`: what each may have there (pure)
//!
//! What this runtime cannot do is refused by name; README lists it.

mod events;
mod filter;
mod images;
mod metrics;
mod rates;
mod runtime;
mod socket;
mod stream;
mod tokens;

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::wire::image_service_server::ImageServiceServer;
use super::wire::runtime_service_server::RuntimeServiceServer;
use super::{CriError, Images, Runtime};

pub use socket::{SocketError, bind};

/// Nobody's requests are larger.
const REQUEST_LIMIT_BYTES: usize = 16 << 20;
/// Requests that are under way at the end get this long.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// After a connection that could not be taken in.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the verbs work on.
#[derive(Clone)]
pub(super) struct Core {
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub streams: Arc<stream::Streams>,
    pub rates: Arc<Mutex<rates::Rates>>,
    /// Ends what would go on for good.
    pub end: CancellationToken,
}

/// The next connection. What fails, as for want of descriptors, is told once and tried again.
async fn accept(listener: &UnixListener) -> UnixStream {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(cause) if !told => {
                told = true;
                tracing::warn!(%cause, "take in a connection; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves both services until the token is cancelled; requests that are under way are finished. Exec, attach and
/// port-forward are answered with addresses at `streams`.
///
/// # Errors
/// When a socket fails.
pub async fn serve(
    listener: UnixListener,
    streams: TcpListener,
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    end: CancellationToken,
) -> Result<(), CriError> {
    let at = streams.local_addr().map_err(|cause| CriError::failed("listen for streams", cause))?;
    let core = Core { runtime, images, streams: Arc::new(stream::Streams::new(at)), rates: Arc::default(), end: end.clone() };
    tokio::spawn(stream::listen(streams, Arc::clone(&core.streams), Arc::clone(&core.runtime), end.clone()));
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let stream = accept(&listener).await;
        Some((Ok::<_, std::io::Error>(stream), listener))
    });
    let served = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(core.clone()).max_decoding_message_size(REQUEST_LIMIT_BYTES))
        .add_service(ImageServiceServer::new(core).max_decoding_message_size(REQUEST_LIMIT_BYTES))
        .serve_with_incoming_shutdown(incoming, end.clone().cancelled_owned());
    let late = async {
        end.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served.map_err(|cause| CriError::failed("serve the CRI", cause)),
        // Whoever still waits for an answer asks again.
        () = late => Ok(()),
    }
}
