//! Two walks over what is sorted by key, side by side. PURE.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::Key;

/// The keys of what is not the same in both: there or not, or not `same`. What the two share is not
/// looked at, and no key is compared before the first difference.
pub(super) fn differing<'a, V>(
    one: impl IntoIterator<Item = (&'a Key, &'a Arc<V>)>,
    other: impl IntoIterator<Item = (&'a Key, &'a Arc<V>)>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<&'a Key>
where
    V: 'a,
{
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let (mut left, mut right) = (one.next(), other.next());
    let mut found = Vec::new();
    loop {
        let order = match (left, right) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // A value belongs to its key: the same value is under the same key.
            (Some((_, a)), Some((_, b))) if Arc::ptr_eq(a, b) => {
                (left, right) = (one.next(), other.next());
                continue;
            }
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        match (order, left, right) {
            (Ordering::Equal, Some((key, a)), Some((_, b))) if !same(a, b) => found.push(key),
            (Ordering::Less, Some((key, _)), _) | (Ordering::Greater, _, Some((key, _))) => found.push(key),
            _ => {}
        }
        if order != Ordering::Greater {
            left = one.next();
        }
        if order != Ordering::Less {
            right = other.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Kind;

    fn map(of: &BTreeMap<u8, u8>) -> BTreeMap<Key, Arc<u8>> {
        of.iter().map(|(name, value)| (Key::cluster(Kind::Node, format!("{name:03}")), Arc::new(*value))).collect()
    }

    proptest! {
        /// As looking at every key, whether values are shared or only equal.
        #[test]
        fn finds_what_differs(one in prop::collection::btree_map(0_u8..40, 0_u8..4, 0..30), other in prop::collection::btree_map(0_u8..40, 0_u8..4, 0..30)) {
            let plain = (map(&one), map(&other));
            let shared: BTreeMap<Key, Arc<u8>> = plain.1.iter().map(|(key, value)| {
                let same = plain.0.get(key).filter(|there| *there == value && **value > 1);
                (key.clone(), same.unwrap_or(value).clone())
            }).collect();
            let expected: Vec<&Key> = {
                let mut keys: Vec<&Key> = plain.0.keys().chain(plain.1.keys()).filter(|key| plain.0.get(key) != plain.1.get(key)).collect();
                keys.sort_unstable();
                keys.dedup();
                keys
            };
            prop_assert_eq!(differing(&plain.0, &plain.1, |a, b| a == b), expected.clone());
            prop_assert_eq!(differing(&plain.0, &shared, |a, b| a == b), expected);
        }
    }
}
