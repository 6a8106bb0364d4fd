//! Sorted walks side by side. PURE.

use crate::model::Key;

/// A walk over what is sorted by key, that answers rising keys.
pub(super) struct Cursor<'k, V, I: Iterator<Item = (&'k Key, V)>> {
    rest: I,
    next: Option<(&'k Key, V)>,
}

impl<'k, V: Copy, I: Iterator<Item = (&'k Key, V)>> Cursor<'k, V, I> {
    pub fn new(mut rest: I) -> Self {
        let next = rest.next();
        Self { rest, next }
    }

    /// The value of a key, which must not be less than the one asked for before.
    pub fn seek(&mut self, key: &Key) -> Option<V> {
        while let Some((at, value)) = self.next {
            if at >= key {
                return (at == key).then_some(value);
            }
            self.next = self.rest.next();
        }
        None
    }
}
