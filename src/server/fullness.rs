//! A store that is short of space, as a condition of every node: who looks at the nodes sees it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::model::{Kind, Timestamp};
use crate::store::{Precondition, Snapshot, Store, Transaction, Write};

/// The condition's type: `True` while writes are refused.
pub const CONDITION: &str = "StoreFull";
/// Between looks at the store; asking costs nothing and writes nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Makes every node's condition say what the store says. A node that never had it gets it only when
/// there is something to say. PURE.
pub fn plan(state: &Snapshot, short: Option<&str>, now: Timestamp) -> Transaction {
    let mut transaction = Transaction::new("podbay");
    for object in state.list(Kind::Node) {
        let Some(node) = object.get::<Node>() else { continue };
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let told = conditions.iter().find(|condition| condition.type_ == CONDITION);
        let told_full = told.is_some_and(|condition| condition.status == "True");
        if told_full == short.is_some() {
            continue;
        }
        let fresh = NodeCondition {
            type_: CONDITION.to_owned(),
            status: if short.is_some() { "True" } else { "False" }.to_owned(),
            reason: Some(if short.is_some() { "ShortOfSpace" } else { "SpaceEnough" }.to_owned()),
            message: Some(short.unwrap_or("the server's store has space again").to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        };
        let after = object.edit::<Node>(|node| {
            let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.retain(|condition| condition.type_ != CONDITION);
            conditions.push(fresh);
        });
        transaction.writes.extend(after.map(|after| Write::UpdateStatus(after, Precondition::seen(object))));
    }
    transaction
}

/// Keeps the condition true for as long as the server runs.
pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    loop {
        let short = store.degraded();
        let transaction = plan(&store.snapshot(), short.as_deref(), clock.now());
        if !transaction.writes.is_empty() {
            match store.commit(transaction).await {
                Ok(_) => match &short {
                    Some(why) => tracing::warn!(why, "the store is short of space: only deletes and status are taken"),
                    None => tracing::info!("the store has space again"),
                },
                // Somebody was faster, or not even a status fits: the next look tries again.
                Err(error) => tracing::debug!(%error, "the nodes' condition is not written"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Object;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn node(conditions: Vec<(&str, &str)>) -> Snapshot {
        let conditions = conditions.into_iter().map(|(type_, status)| NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            ..NodeCondition::default()
        });
        let mut node = Node { metadata: ObjectMeta { name: Some("n1".into()), ..ObjectMeta::default() }, ..Node::default() };
        node.status.get_or_insert_default().conditions = Some(conditions.collect());
        let mut state = Snapshot::default();
        state.insert(Object::new(node));
        state
    }

    fn said(state: &Snapshot, short: Option<&str>) -> Option<(String, String)> {
        let transaction = plan(state, short, Timestamp::UNIX_EPOCH);
        let Some(Write::UpdateStatus(object, _)) = transaction.writes.first() else { return None };
        let status = object.get::<Node>()?.status.clone()?;
        let condition = status.conditions?.into_iter().find(|condition| condition.type_ == CONDITION)?;
        Some((condition.status, condition.message?))
    }

    #[test]
    fn the_condition_comes_and_goes_with_the_shortage() {
        assert_eq!(said(&node(vec![("Ready", "True")]), None), None, "nothing to say");
        assert_eq!(said(&node(vec![("Ready", "True")]), Some("4 MiB left")), Some(("True".into(), "4 MiB left".into())));
        assert_eq!(said(&node(vec![(CONDITION, "True")]), Some("4 MiB left")), None, "said already");
        assert_eq!(said(&node(vec![(CONDITION, "True")]), None), Some(("False".into(), "the server's store has space again".into())));
    }
}
