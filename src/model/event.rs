//! Kubernetes Events: one object for all occurrences of the same thing. PURE.
//!
//! The name is a hash of what is said about whom, so that a second occurrence finds the first.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sha2::{Digest, Sha256};

use super::{Key, Kind, Object, Timestamp};

/// Kubernetes' limits for an event's texts.
pub const LONGEST_MESSAGE: usize = 1024;
const LONGEST_NAME: usize = 253;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    pub about: ObjectReference,
    pub warning: bool,
    /// CamelCase.
    pub reason: String,
    pub message: String,
    /// Who says so: `replica-set`, `kubelet`.
    pub component: String,
    /// The node it was seen on, if on one.
    pub host: Option<String>,
}

/// A reference to an object that may not be stored (any more).
pub fn reference(key: &Key, uid: Option<&str>) -> ObjectReference {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ObjectReference {
        api_version: Some(key.kind.api_version()),
        kind: Some(key.kind.name().to_owned()),
        namespace: some(&key.namespace),
        name: some(&key.name),
        uid: uid.and_then(some),
        ..ObjectReference::default()
    }
}

impl Occurrence {
    pub fn new(about: ObjectReference, warning: bool, reason: &str, message: &str, component: &str) -> Self {
        let end = message.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST_MESSAGE).last().unwrap_or(0);
        Self { about, warning, reason: reason.to_owned(), message: message[..end].to_owned(), component: component.to_owned(), host: None }
    }

    /// Where its event is stored: beside its object, or in `default` for one without a namespace.
    pub fn key(&self) -> Key {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = &self.about;
        let parts = [&text(&about.kind), &text(&about.uid), &text(&about.field_path), &self.reason, &self.message, &self.component];
        let mut hash = Sha256::new();
        hash.update([u8::from(self.warning)]);
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let suffix: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut name = named_after(&text(&about.name));
        name.truncate(LONGEST_NAME - 1 - suffix.len());
        let name = name.trim_end_matches(['-', '.']);
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        Key::new(Kind::Event, namespace, format!("{name}.{suffix}"))
    }

    /// The event after one more occurrence; `known` is the stored one, if there is one.
    pub fn happened(&self, known: Option<&Event>, now: Timestamp) -> Object {
        if let Some(known) = known {
            let count = known.count.unwrap_or(1).saturating_add(1);
            return Object::new(Event { count: Some(count), last_timestamp: Some(Time(now)), ..known.clone() });
        }
        let key = self.key();
        Object::new(Event {
            metadata: ObjectMeta { name: Some(key.name), namespace: Some(key.namespace), ..ObjectMeta::default() },
            involved_object: self.about.clone(),
            type_: Some(if self.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(self.component.clone()), host: self.host.clone() }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Event::default()
        })
    }
}

/// An event's name is a DNS subdomain (RFC 1123); that of what it is about may be any segment of a path, as a Role's.
fn named_after(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let label = |label: &str| label.to_ascii_lowercase().chars().map(allowed).collect::<String>().trim_matches('-').to_owned();
    let labels: Vec<String> = name.split('.').map(label).filter(|label| !label.is_empty()).collect();
    if labels.is_empty() { "unnamed".to_owned() } else { labels.join(".") }
}

/// When an event last happened.
pub fn last_seen(event: &Event) -> Option<Timestamp> {
    let micro = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).or(event.event_time.as_ref());
    event.last_timestamp.as_ref().map(|time| time.0).or(micro.map(|time| time.0)).or(event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_counted() {
        let about = reference(&Key::new(Kind::Pod, "web", "a"), Some("u1"));
        let occurrence = Occurrence::new(about.clone(), true, "BackOff", "again", "kubelet");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let first = occurrence.happened(None, at("2026-01-01T00:00:00Z"));
        assert_eq!(*first.key(), occurrence.key());
        let second = occurrence.happened(first.get(), at("2026-01-01T00:01:00Z"));
        let event: &Event = second.get().expect("an event");
        assert_eq!((event.count, second.key()), (Some(2), first.key()));
        assert_eq!(last_seen(event), Some(at("2026-01-01T00:01:00Z")));
        assert_ne!(Occurrence::new(about, true, "BackOff", "other", "kubelet").key(), occurrence.key());
        let node = Occurrence::new(reference(&Key::cluster(Kind::Node, "n"), None), false, "Ready", &"é".repeat(2000), "x");
        assert!(node.message.len() <= LONGEST_MESSAGE);
        assert_eq!(node.key().namespace, "default");
    }

    #[test]
    fn an_events_name_is_valid_whatever_it_is_about() {
        let long = format!("{}-{}", "a".repeat(235), "b".repeat(17));
        for (about, begins) in [
            ("web-5d8f.a", "web-5d8f.a."),
            ("system:Node-x", "system-node-x."),
            ("shop:reader.", "shop-reader."),
            (":", "unnamed."),
            (long.as_str(), &long[..234]),
        ] {
            let name = Occurrence::new(reference(&Key::cluster(Kind::ClusterRole, about), None), false, "X", "", "x").key().name;
            assert!(name.starts_with(begins), "{about}: {name}");
            assert!(crate::model::validate::names::dns_subdomain(&name).is_empty(), "{about}: {name}");
        }
    }
}
