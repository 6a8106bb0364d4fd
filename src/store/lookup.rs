//! What a snapshot's maps are asked for, in borrowed words: a look makes no key. PURE.

use std::cmp::Ordering;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};

use crate::model::{Key, Kind};

/// A key that is only asked for.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Named<'_> {
    /// Before every key.
    pub const FIRST: Named<'static> = Named { kind: Kind::Namespace, namespace: "", name: "" };

    fn order(&self, key: &Key) -> Ordering {
        let kind = self.kind.cmp(&key.kind);
        kind.then_with(|| self.namespace.cmp(key.namespace.as_str())).then_with(|| self.name.cmp(key.name.as_str()))
    }
}

impl Equivalent<Arc<Key>> for Named<'_> {
    fn equivalent(&self, key: &Arc<Key>) -> bool {
        self.order(key).is_eq()
    }
}

impl Comparable<Arc<Key>> for Named<'_> {
    fn compare(&self, key: &Arc<Key>) -> Ordering {
        self.order(key)
    }
}

/// A place in an index: a word, and a key under it.
#[derive(Clone, Copy)]
pub(super) struct Under<'a> {
    pub word: &'a str,
    pub key: Named<'a>,
}

impl Equivalent<(Arc<str>, Arc<Key>)> for Under<'_> {
    fn equivalent(&self, entry: &(Arc<str>, Arc<Key>)) -> bool {
        self.compare(entry).is_eq()
    }
}

impl Comparable<(Arc<str>, Arc<Key>)> for Under<'_> {
    fn compare(&self, (word, key): &(Arc<str>, Arc<Key>)) -> Ordering {
        self.word.cmp(&**word).then_with(|| self.key.order(key))
    }
}
