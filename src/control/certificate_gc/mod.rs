//! Certificate garbage: requests for certificates that were decided, or that nobody decides.

pub mod plan;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct CertificateGarbage;

impl Controller for CertificateGarbage {
    fn name(&self) -> &'static str {
        "certificate-garbage"
    }

    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        (object.kind() == Kind::CertificateSigningRequest).then(|| object.key().clone()).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        state.get(key).map(|request| plan::plan(request, now)).unwrap_or_default()
    }
}
