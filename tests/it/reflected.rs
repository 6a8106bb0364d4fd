//! The `kube` crate's watcher and reflector against the server: through watches that end, and through a history that
//! has moved on.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use podbay::server::{Identity, local_client};
use serde_json::{Value, json};

use crate::api::{MAPS, map, outrun_history};
use crate::rig::Rig;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The reflector's store becomes what the server has, whatever happens to the watch.
async fn follows(config: watcher::Config, prefix: &str) {
    let rig = Rig::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(local_client(rig.router.clone(), Identity::admin()));
    let (reader, writer) = reflector::store();
    // The server ends each watch after a second.
    let mut stream = pin!(reflector(writer, watcher(maps, config.timeout(1))).default_backoff());
    let mut becomes = async |wanted: &[&str]| {
        let names = || reader.state().iter().map(|it| it.name_any()).collect::<BTreeSet<String>>();
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while names() != set(wanted) {
            let next = tokio::time::timeout_at(end, stream.next()).await;
            assert!(next.is_ok(), "{prefix}: {:?} does not become {wanted:?}", names());
        }
    };
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    becomes(&["a"]).await;
    for name in ["b", "c"] {
        rig.ask("POST", MAPS, map(name, json!({}))).await;
    }
    becomes(&["a", "b", "c"]).await;
    // More than one watch long nothing but bookmarks; then what changed while nobody looked, and is forgotten.
    rig.ask("DELETE", &format!("{MAPS}/b"), Value::Null).await;
    outrun_history(&rig, prefix).await;
    rig.ask("POST", MAPS, map("d", json!({}))).await;
    becomes(&["a", "c", "d"]).await;
    rig.ask("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    becomes(&["c", "d"]).await;
}

#[tokio::test]
async fn a_reflector_that_lists_in_pages_keeps_up() {
    follows(watcher::Config::default().page_size(1), "l").await;
}

#[tokio::test]
async fn a_reflector_that_watches_from_the_start_keeps_up() {
    follows(watcher::Config::default().streaming_lists(), "s").await;
}
