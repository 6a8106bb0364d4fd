//! Exec and attach over SPDY: a stream each for the outcome, the standard streams and the terminal's size.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Side, Stream};
use super::session::{self, Ends, Report};
use super::{Remote, Verb};
use crate::cri::{ExecRequest, Runtime};

/// What we speak; the caller's first that is among them is taken.
pub const PROTOCOLS: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// For a caller to open its streams.
pub const STREAMS_WITHIN: Duration = Duration::from_secs(30);

const OUTCOME: &str = "error";

/// The streams a caller opens.
fn expected(request: &ExecRequest, protocol: &str) -> Vec<&'static str> {
    let sized = request.tty && ["v4.channel.k8s.io", "v3.channel.k8s.io"].contains(&protocol);
    let all = [(true, OUTCOME), (request.stdin, "stdin"), (request.stdout, "stdout"), (request.stderr, "stderr"), (sized, "resize")];
    all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
}

/// Serves a session to its end.
pub async fn serve<T: AsyncRead + AsyncWrite + Send + 'static>(io: T, runtime: &dyn Runtime, remote: Remote, protocol: &str) {
    let mut connection = Connection::start(io, Side::Server);
    let gone = connection.gone();
    let gathered = tokio::time::timeout(STREAMS_WITHIN, gather(&mut connection, &expected(&remote.request, protocol))).await;
    let Ok(Some(streams)) = gathered else {
        tracing::debug!("a caller does not open its streams");
        return;
    };
    connection.refuse_more();
    let report = if protocol == PROTOCOLS[0] { Report::Status } else { Report::Text };
    let Some(ends) = ends(streams, report) else { return };
    tokio::select! {
        () = join(runtime, &remote, ends) => connection.end().await,
        // Its input ends, and with it whoever reads it.
        () = gone.cancelled() => {}
    }
}

/// Every stream once. `None`: the caller left.
async fn gather(connection: &mut Connection, expected: &[&'static str]) -> Option<BTreeMap<&'static str, Stream>> {
    let mut streams = BTreeMap::new();
    while streams.len() < expected.len() {
        let stream = connection.accept().await?;
        let kind = stream.header("streamtype").to_owned();
        match expected.iter().find(|name| **name == kind && !streams.contains_key(*name)) {
            Some(name) => drop(streams.insert(*name, stream)),
            None => stream.outlet.reset().await,
        }
    }
    Some(streams)
}

fn ends(mut streams: BTreeMap<&'static str, Stream>, report: Report) -> Option<Ends> {
    let mut silent = Vec::new();
    let mut inward = |name| {
        let stream: Stream = streams.remove(name)?;
        silent.push(stream.outlet);
        Some(stream.inlet)
    };
    let (stdin, resize) = (inward("stdin"), inward("resize"));
    let mut outward = |name| streams.remove(name).map(|stream| stream.outlet);
    let (stdout, stderr, outcome) = (outward("stdout"), outward("stderr"), outward(OUTCOME)?);
    Some(Ends { stdin, stdout, stderr, resize, outcome, report, silent })
}

/// Begins what is wanted and joins it with its caller.
pub(super) async fn join(runtime: &dyn Runtime, remote: &Remote, ends: Ends) {
    let session = match remote.verb {
        Verb::Exec => runtime.exec(&remote.container, &remote.request).await,
        Verb::Attach => runtime.attach(&remote.container, &remote.request).await,
    };
    session::run(ends, session, remote.verb).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_open_what_they_asked_for() {
        let request = ExecRequest { stdin: true, stdout: true, tty: true, ..ExecRequest::default() };
        assert_eq!(expected(&request, "v4.channel.k8s.io"), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(expected(&request, "v2.channel.k8s.io"), ["error", "stdin", "stdout"]);
    }
}
