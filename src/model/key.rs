//! What an object is called: kind, namespace, name.

use std::fmt;

use super::Kind;

/// The identity of an object in the store. Ordered by kind, namespace, name; the namespace of a
/// cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.stored(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self::new(kind, "", name)
    }

    /// A key that stands for every object of a kind, for reconcilers that look at all of them at
    /// once. No object has it: names are never empty.
    pub fn every(kind: Kind) -> Self {
        Self::new(kind, "", "")
    }
}

/// `Deployment web/nginx`, `Node n1`: the form of every message.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
