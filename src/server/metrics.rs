//! `GET /metrics`: what the server holds and what is asked of it, in Prometheus' text format. For admins, as in Kubernetes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;

use super::ServerState;
use crate::model::Kind;
use crate::store::Store;

pub const PATH: &str = "/metrics";

pub async fn metrics(State(state): State<Arc<ServerState>>) -> Response {
    let all = [text(state.store.as_ref()), state.tally.text(), state.flow.text()].concat();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], all).into_response()
}

fn text(store: &dyn Store) -> String {
    let (snapshot, history) = (store.snapshot(), store.history());
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    };
    gauge("podbay_store_size_bytes", "Bytes the store takes on disk.", store.size_bytes());
    gauge("podbay_store_revision", "The newest revision.", snapshot.revision());
    gauge(
        "podbay_store_degraded",
        "1 while the store is short of space and takes deletes and status only.",
        store.degraded().is_some().into(),
    );
    gauge("podbay_watch_history_bytes", "JSON of the changes kept for watchers.", history.bytes as u64);
    gauge("podbay_watch_history_changes", "Changes kept for watchers.", history.changes as u64);
    gauge("podbay_watch_history_oldest_revision", "Watches may start here or later.", history.oldest);
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    for object in snapshot.iter() {
        *kinds.entry(object.kind()).or_default() += 1;
    }
    out.push_str("# HELP podbay_objects Stored objects by kind.\n# TYPE podbay_objects gauge\n");
    for (kind, count) in kinds {
        let _ = writeln!(out, "podbay_objects{{apiVersion=\"{}\",kind=\"{kind}\"}} {count}", kind.api_version());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::model::Object;
    use crate::store::memory::MemoryStore;
    use crate::store::{Transaction, Write};
    use serde_json::json;

    #[tokio::test]
    async fn the_size_of_what_is_held_is_told() {
        let store = MemoryStore::new(Arc::new(SystemClock));
        for name in ["a", "b"] {
            let namespace = Object::from_value(Kind::Namespace, json!({"metadata": {"name": name}})).unwrap();
            store.commit(Transaction::new("admin").with(Write::Create(namespace))).await.unwrap();
        }
        let text = text(&store);
        for line in ["podbay_objects{apiVersion=\"v1\",kind=\"Namespace\"} 2", "podbay_watch_history_changes 2", "podbay_store_revision 2"]
        {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
        assert!(!text.contains("podbay_watch_history_bytes 0\n"), "{text}");
    }
}
