//! `podbay logs`.

use std::io::Write as _;

use futures::AsyncReadExt as _;

use super::args::LogsArgs;
use super::client::{connect, path, pod_name};
use super::error::Outcome;
use super::get::form_encoded;
use crate::model::Kind;

pub async fn run(args: &LogsArgs) -> Outcome {
    let pod = pod_name(&args.pod)?;
    let client = connect(&args.client).await?;
    let namespace = args.namespace.as_deref().unwrap_or("default");
    let mut query = format!("?follow={}&previous={}&timestamps={}", args.follow, args.previous, args.timestamps);
    if let Some(container) = &args.container {
        query.push_str(&format!("&container={}", form_encoded(container)));
    }
    if let Some(lines) = args.tail.filter(|lines| *lines >= 0) {
        query.push_str(&format!("&tailLines={lines}"));
    }
    let path = format!("{}/log{query}", path(Kind::Pod, Some(namespace), Some(pod)));
    let mut stream = Box::pin(client.request_stream(http::Request::get(path).body(Vec::new())?).await?);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = stream.read(&mut buffer).await?;
        // A closed pipe ends the output, not with an error.
        if n == 0 || std::io::stdout().lock().write_all(&buffer[..n]).and_then(|()| std::io::stdout().flush()).is_err() {
            return Ok(0);
        }
    }
}
