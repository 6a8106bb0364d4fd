//! Digests: of what an object says, of a set, of a plan. PURE.
//!
//! No status, time, revision or anything the cluster assigns enters one; the values of Secrets enter
//! only as part of a digest.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::model::Object;

pub type Digest = [u8; 32];

/// The digest of a JSON value. Maps are sorted: equal values have equal digests.
pub fn of_value(value: &Value) -> Digest {
    struct Sink(Sha256);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Sha256::new());
    // A value always encodes, and the sink takes everything.
    let _ = serde_json::to_writer(&mut sink, value);
    sink.0.finalize().into()
}

/// The digest of what an object says: everything but status and what the cluster writes to metadata.
pub fn of_object(object: &Object) -> Digest {
    of_value(&said(object))
}

/// An object without status and without what the cluster writes to its metadata.
pub fn said(object: &Object) -> Value {
    let mut value = object.value();
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
        if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in [
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "selfLink",
            ] {
                meta.remove(name);
            }
        }
    }
    value
}

/// A digest over parts, each with its length before it.
#[derive(Default)]
pub struct Sum(Sha256);

impl Sum {
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// In hex.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}
