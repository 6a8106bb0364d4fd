//! Writes the tokens without an end into the Secrets that lack one.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::issue::signed;
use super::lasting;
use crate::control::token_secret::plan::{TOKEN, is_token};
use crate::model::{Key, Object, Timestamp};
use crate::plan::{Controller, Op, Plan};
use crate::store::Snapshot;
use crate::tls::Pki;

/// A controller that needs the server's key, and so is none of `control`'s. What it signs differs from time to time.
pub struct Mint(pub Arc<Pki>);

impl Controller for Mint {
    fn name(&self) -> &'static str {
        "mint"
    }

    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        is_token(object).then(|| object.key().clone()).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = state.get(key) else { return plan };
        let Some(claims) = lasting::lacking(secret, state) else { return plan };
        match signed(&claims, self.0.signer()) {
            Ok(token) => {
                let add = |it: &mut Secret| drop(it.data.get_or_insert_default().insert(TOKEN.to_owned(), ByteString(token.into_bytes())));
                plan.ops.extend(secret.edit(add).map(|after| Op::Update { before: secret.clone(), after }));
            }
            Err(error) => tracing::warn!(%key, %error, "a Secret gets no token"),
        }
        plan
    }
}
