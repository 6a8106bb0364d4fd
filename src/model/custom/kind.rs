//! The names of custom kinds, as cheap to carry about as those of the kinds in the table. PURE.
//!
//! Each row is made once and stays for the life of the process: a kind is compared, hashed and
//! copied in every key. Two rows that differ only in what may change of a kind (version, short
//! names, subresources) are the same kind.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering as Access};

use crate::model::{Kind, KindInfo};

/// Rows of one process: whoever defines more is refused.
pub const ROWS: usize = 10_000;
const BUCKETS: usize = 256;

/// A kind that a CustomResourceDefinition makes, as one of its versions is served.
#[derive(Clone, Copy)]
pub struct CustomKind(&'static Row);

/// Everything the API says of a kind by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub group: String,
    pub version: String,
    /// CamelCase: `Widget`.
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether the version has a `status` subresource.
    pub has_status: bool,
}

struct Row {
    names: Names,
    info: OnceLock<KindInfo>,
    next: OnceLock<&'static Row>,
}

static TABLE: [OnceLock<&'static Row>; BUCKETS] = [const { OnceLock::new() }; BUCKETS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn bucket(group: &str, kind: &str) -> &'static OnceLock<&'static Row> {
    let bytes = group.bytes().chain([b'/']).chain(kind.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    &TABLE[hash as usize % BUCKETS]
}

/// The rows of a bucket.
fn rows(first: &'static OnceLock<&'static Row>) -> impl Iterator<Item = &'static Row> {
    std::iter::successors(first.get().copied(), |row| row.next.get().copied())
}

impl CustomKind {
    /// The kind of these names; `None` where there are [`ROWS`] others.
    pub fn intern(names: &Names) -> Option<Self> {
        let mut place = bucket(&names.group, &names.kind);
        loop {
            if place.get().is_none() {
                if COUNT.load(Access::Relaxed) >= ROWS {
                    return None;
                }
                place.get_or_init(|| {
                    COUNT.fetch_add(1, Access::Relaxed);
                    Box::leak(Box::new(Row { names: names.clone(), info: OnceLock::new(), next: OnceLock::new() }))
                });
            }
            // Somebody else may have been quicker with another row.
            let row = *place.get()?;
            if row.names == *names {
                return Some(Self(row));
            }
            place = &row.next;
        }
    }

    /// A kind that is known by its `apiVersion` and `kind`: the version itself, or another one of
    /// the same kind.
    pub fn known(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/')?;
        let of_kind = || rows(bucket(group, kind)).filter(|row| row.names.group == group && row.names.kind == kind);
        of_kind().filter(|row| row.names.version == version).last().or_else(|| of_kind().last()).map(Self)
    }

    /// The kind a person means by a word in lower case: a plural, singular or short name, of any
    /// group or of one.
    pub fn of_word(name: &str, group: Option<&str>) -> Option<Self> {
        let named = |names: &Names| names.plural == name || names.singular == name || names.short.iter().any(|short| short == name);
        let mut all = TABLE.iter().flat_map(rows);
        all.find(|row| named(&row.names) && group.is_none_or(|group| group == row.names.group)).map(Self)
    }

    pub fn names(self) -> &'static Names {
        &self.0.names
    }

    /// The row of the registry.
    pub fn info(self) -> &'static KindInfo {
        let leak = |words: &'static [String]| -> &'static [&'static str] { Vec::leak(words.iter().map(String::as_str).collect()) };
        let names = self.names();
        self.0.info.get_or_init(|| KindInfo {
            kind: Kind::Custom(self),
            group: &names.group,
            version: &names.version,
            name: &names.kind,
            plural: &names.plural,
            singular: &names.singular,
            short: leak(&names.short),
            namespaced: names.namespaced,
            has_status: names.has_status,
            counts_generation: true,
            categories: leak(&names.categories),
        })
    }

    /// What makes two rows the same kind.
    fn identity(self) -> (&'static str, &'static str, &'static str, bool) {
        let names = self.names();
        (&names.group, &names.plural, &names.kind, names.namespaced)
    }
}

impl PartialEq for CustomKind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0) || self.identity() == other.identity()
    }
}

impl Eq for CustomKind {}

impl Hash for CustomKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for CustomKind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CustomKind {
    fn cmp(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self.0, other.0) { Ordering::Equal } else { self.identity().cmp(&other.identity()) }
    }
}

impl fmt::Debug for CustomKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.names().plural, self.names().group, self.names().version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: &str, version: &str) -> Names {
        let plural = format!("{}s", kind.to_lowercase());
        let (group, singular) = ("kinds.example.com".to_owned(), kind.to_lowercase());
        Names { group, version: version.to_owned(), kind: kind.to_owned(), plural, singular, ..Names::default() }
    }

    #[test]
    fn versions_of_a_kind_are_one_kind() {
        let one = CustomKind::intern(&names("Gadget", "v1")).unwrap();
        let other = CustomKind::intern(&names("Gadget", "v2")).unwrap();
        assert_eq!(one, other);
        assert_eq!((one.info().version, other.info().version), ("v1", "v2"));
        assert_ne!(one, CustomKind::intern(&Names { namespaced: true, ..names("Gadget", "v1") }).unwrap());
        assert_ne!(one, CustomKind::intern(&names("Gizmo", "v1")).unwrap());
        assert!(std::ptr::eq(one.0, CustomKind::intern(&names("Gadget", "v1")).unwrap().0));
    }

    #[test]
    fn a_kind_is_known_by_its_name() {
        let kind = CustomKind::intern(&names("Sprocket", "v1")).unwrap();
        assert_eq!(CustomKind::known("kinds.example.com/v1", "Sprocket"), Some(kind));
        assert_eq!(CustomKind::known("kinds.example.com/v7", "Sprocket"), Some(kind));
        assert_eq!(CustomKind::known("other.example.com/v1", "Sprocket"), None);
        assert_eq!(CustomKind::of_word("sprockets", None), Some(kind));
        assert_eq!(CustomKind::of_word("sprocket", Some("kinds.example.com")), Some(kind));
        assert_eq!(CustomKind::of_word("sprocket", Some("apps")), None);
    }
}
