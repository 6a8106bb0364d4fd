//! The composition root: which implementation stands behind which seam.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::args::Verb;
use crate::cli::error::Outcome;
use crate::cli::local::{Local, Previewed};

pub struct Host;

impl Local for Host {
    fn read_tree(&self, _directory: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        anyhow::bail!("not assembled")
    }
    fn preview_offline(&self, _source: &str, _directory: &Path, _snapshot: Option<&Path>) -> anyhow::Result<Previewed> {
        anyhow::bail!("not assembled")
    }
    fn preview_text(&self, _preview: &serde_json::Value) -> anyhow::Result<Previewed> {
        anyhow::bail!("not assembled")
    }
    fn waits(&self, _snapshot: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
        anyhow::bail!("not assembled")
    }
}

pub fn git_fetch_child() -> Outcome {
    anyhow::bail!("not assembled")
}

pub fn run(_verb: Verb) -> Outcome {
    anyhow::bail!("not assembled")
}
