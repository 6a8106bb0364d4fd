//! `podbay snapshot`: the cluster's objects in a file, for offline previews. Secret values stay behind.

use anyhow::Context as _;

use super::args::SnapshotArgs;
use super::client::connect;
use super::error::Outcome;
use super::output;

pub const PATH: &str = "/podbay/v1/snapshot";

pub async fn run(args: &SnapshotArgs) -> Outcome {
    let client = connect(&args.client).await?;
    let text = client.request_text(http::Request::get(PATH).body(Vec::new())?).await?;
    match &args.file {
        Some(path) => std::fs::write(path, &text).with_context(|| format!("write {}", path.display()))?,
        None => output::print(&text),
    }
    Ok(0)
}
