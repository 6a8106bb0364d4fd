//! Sessions of commands against a whole cluster on fakes: `tests/scripts/*.txt`, readable as
//! documentation. `UPDATE=1 cargo test --test it scripts` writes what is printed now into them.
//!
//! - `session`: the format, and how one is played
//! - `cluster`: the cluster, and when it is at rest
//! - `foretold`: a preview against what then happened
//! - `filter`: what differs from run to run

mod cluster;
mod filter;
mod foretold;
mod session;

use std::collections::BTreeSet;
use std::path::PathBuf;

use session::{Session, parse};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

async fn play(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let wanted = std::fs::read_to_string(&path).unwrap();
    let printed = Session::play(parse(&wanted)).await;
    if printed == wanted {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&path, printed).unwrap();
    }
    let diff = similar::TextDiff::from_lines(&wanted, &printed);
    panic!("{}:\n{}", path.display(), diff.unified_diff().context_radius(3).header("wanted", "printed"));
}

macro_rules! sessions {
    ($($name:ident)*) => {
        const SESSIONS: &[&str] = &[$(stringify!($name)),*];
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            play(stringify!($name)).await;
        })*
    };
}

sessions! {
    account_token
    adoption
    autoscale
    autoscale_custom
    bad_manifest
    custom_kind
    drain
    drift
    empty_source
    exported
    failed_wave
    first_rollout
    immutable_field
    job
    local_path
    moved_plan
    namespace
    namespace_needed
    new_image
    offline
    old_image
    old_version
    pending_pod
    persistent_volume
    prune
    refused_file
    refused_tree
    resize
    scale
    secret
    source_end
    two_sources
    unsupported_kind
    vanished_path
    waves
    webhook
    words
}

#[test]
fn every_session_is_played() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".txt").to_owned())
        .collect();
    assert_eq!(files, SESSIONS.iter().map(|name| (*name).to_owned()).collect());
}
