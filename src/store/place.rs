//! Where an object stands among all, in one piece of memory: a map's step down compares bytes, once. PURE.
//!
//! A place orders as the key does: kind, namespace, name. No kind's part and no namespace holds a NUL, so what
//! begins alike is of one kind, or of one namespace.

use smallvec::SmallVec;

use crate::model::{Key, Kind};

/// Long enough for most; no look makes an allocation for them.
pub(super) type Bytes = SmallVec<[u8; 128]>;

/// After every built-in kind.
const CUSTOM: u8 = 0xff;

/// The place of an object.
pub(super) fn of(key: &Key) -> Bytes {
    named(key.kind, &key.namespace, &key.name)
}

pub(super) fn named(kind: Kind, namespace: &str, name: &str) -> Bytes {
    let mut bytes = Bytes::new();
    push_kind(&mut bytes, kind);
    // No namespace has such a name, and none is found by one: this is no text.
    push(&mut bytes, if namespace.contains('\0') { &[CUSTOM] } else { namespace.as_bytes() });
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

/// How the places of a kind's objects in a namespace begin.
pub(super) fn in_namespace(kind: Kind, namespace: &str) -> Bytes {
    named(kind, namespace, "")
}

/// How the places of a kind's objects begin.
pub(super) fn of_kind(kind: Kind) -> Bytes {
    let mut bytes = Bytes::new();
    push_kind(&mut bytes, kind);
    bytes
}

fn push_kind(bytes: &mut Bytes, kind: Kind) {
    match (kind.place(), kind) {
        // The table has fewer rows than a byte has values.
        (Some(place), _) => bytes.push(u8::try_from(place).unwrap_or(CUSTOM - 1)),
        (None, Kind::Custom(custom)) => {
            let names = custom.names();
            bytes.push(CUSTOM);
            [&names.group, &names.plural, &names.kind].into_iter().for_each(|word| push(bytes, word.as_bytes()));
            bytes.push(u8::from(names.namespaced));
        }
        (None, _) => {}
    }
}

fn push(bytes: &mut Bytes, word: &[u8]) {
    bytes.extend_from_slice(word);
    bytes.push(0);
}

/// An index's entry, or how entries begin: a word, and a place under it. Its length comes first: no word is mistaken
/// for another's beginning, whatever it holds.
pub(super) fn under(word: &str, place: &[u8]) -> Bytes {
    let mut bytes = Bytes::from_slice(&length(word));
    bytes.extend_from_slice(word.as_bytes());
    bytes.extend_from_slice(place);
    bytes
}

/// Where the place begins in the entries under a word.
pub(super) fn start(word: &str) -> usize {
    length(word).len() + word.len()
}

/// No request is as long.
fn length(word: &str) -> [u8; 4] {
    u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::custom::{CustomKind, Names};

    fn custom(group: &str, kind: &str, namespaced: bool) -> Kind {
        let (group, kind, plural) = (group.to_owned(), kind.to_owned(), format!("{}s", kind.to_lowercase()));
        Kind::Custom(CustomKind::intern(&Names { group, kind, plural, namespaced, ..Names::default() }).expect("room"))
    }

    fn keys() -> impl Strategy<Value = Key> {
        let mut kinds: Vec<Kind> = Kind::all().iter().map(|info| info.kind).collect();
        kinds.extend([custom("a.places", "Dot", true), custom("a.places", "Dots", true), custom("a.place", "Dot", false)]);
        (prop::sample::select(kinds), "(|a|a-b|ab|b)", "[ab.\\-\u{0}]{0,3}")
            .prop_map(|(kind, namespace, name)| Key::new(kind, namespace, name))
    }

    proptest! {
        #[test]
        fn places_order_as_keys_do(one in keys(), other in keys()) {
            prop_assert_eq!(of(&one).cmp(&of(&other)), one.cmp(&other), "{} {}", one, other);
        }

        #[test]
        fn what_begins_alike_is_together(one in keys(), other in keys()) {
            let place = of(&other);
            prop_assert_eq!(place.starts_with(&of_kind(one.kind)), one.kind == other.kind);
            let together = one.kind == other.kind && one.namespace == other.namespace;
            prop_assert_eq!(place.starts_with(&in_namespace(one.kind, &one.namespace)), together);
        }

        #[test]
        fn an_entry_is_of_one_word(one in "[a\u{0}]{0,3}", other in "[a\u{0}]{0,3}", key in keys()) {
            let entry = under(&other, &of(&key));
            prop_assert_eq!(entry.starts_with(&under(&one, &[])), one == other);
            prop_assert_eq!(&entry[start(&other)..], &*of(&key));
        }
    }

    #[test]
    fn no_namespace_is_taken_for_a_part_of_a_name() {
        let hidden = Key::new(Kind::Role, "web", "x\0y");
        assert_ne!(of(&hidden), of(&Key::new(Kind::Role, "web\0x", "y")));
        assert!(!of(&hidden).starts_with(&in_namespace(Kind::Role, "web\0x")));
    }
}
