//! Sources named in the daemon's configuration, as Source objects. PURE.

use std::collections::BTreeMap;

use crate::model::{Key, Kind, Object, Source, SourceSpec};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Transaction, Write};

/// Marks a Source that the configuration made: it is suspended when the configuration drops it.
pub const CONFIGURED: &str = "podbay.dev/configured";

/// Annotation of a Source that the configuration made and names no longer: why it is suspended.
pub const DROPPED: &str = "podbay.dev/dropped";

/// What makes the Source objects say what the configuration says. A source that is no longer
/// configured is suspended and its objects stay; one that a person added is left alone.
pub fn plan(state: &Snapshot, configured: &BTreeMap<String, SourceSpec>) -> Transaction {
    let mut transaction = Transaction::new("podbay-config");
    for (name, spec) in configured {
        match state.get(&Key::cluster(Kind::Source, name)) {
            None => transaction.writes.push(new(name, spec)),
            // Its end goes on; after it see `returning`.
            Some(current) if current.is_deleting() => {}
            Some(current) => transaction.writes.extend(changed(current, |source| {
                source.spec = spec.clone();
                source.metadata.labels.get_or_insert_default().insert(CONFIGURED.to_owned(), "true".to_owned());
                if let Some(annotations) = &mut source.metadata.annotations {
                    annotations.remove(DROPPED);
                }
            })),
        }
    }
    for current in state.list(Kind::Source) {
        let ours = current.labels().get(CONFIGURED).is_some_and(|value| value == "true");
        if ours && !configured.contains_key(&current.key().name) {
            transaction.writes.extend(changed(current, |source| {
                source.spec.suspend = Some(true);
                source.metadata.annotations.get_or_insert_default().insert(DROPPED.to_owned(), "true".to_owned());
            }));
        }
    }
    transaction
}

/// The configured sources that somebody has removed and that are not gone yet: they come back when they are.
pub fn returning(state: &Snapshot, configured: &BTreeMap<String, SourceSpec>) -> BTreeMap<String, SourceSpec> {
    let is_going = |name: &String| state.get(&Key::cluster(Kind::Source, name)).is_some_and(Object::is_deleting);
    configured.iter().filter(|(name, _)| is_going(name)).map(|(name, spec)| (name.clone(), spec.clone())).collect()
}

/// Makes those of them anew that are gone.
pub fn anew(state: &Snapshot, returning: &BTreeMap<String, SourceSpec>) -> Transaction {
    let gone = returning.iter().filter(|(name, _)| state.get(&Key::cluster(Kind::Source, *name)).is_none());
    gone.fold(Transaction::new("podbay-config"), |transaction, (name, spec)| transaction.with(new(name, spec)))
}

fn new(name: &str, spec: &SourceSpec) -> Write {
    let mut source = Source::new(name, spec.clone());
    source.metadata.labels = Some([(CONFIGURED.to_owned(), "true".to_owned())].into());
    Write::Create(Object::new(source))
}

fn changed(current: &Object, change: impl FnOnce(&mut Source)) -> Option<Write> {
    let after = current.edit(change)?;
    (after != *current).then(|| Write::Update(after, Precondition::seen(current)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::model::Timestamp;

    fn directory(path: &str) -> SourceSpec {
        SourceSpec { directory: Some(path.to_owned()), ..SourceSpec::default() }
    }

    fn state(sources: Vec<Source>) -> Snapshot {
        let mut state = Snapshot::default();
        sources.into_iter().for_each(|source| state.insert(Object::new(source)));
        state
    }

    fn configured(name: &str, spec: SourceSpec) -> Source {
        let mut source = Source::new(name, spec);
        source.metadata.labels = Some([(CONFIGURED.to_owned(), "true".to_owned())].into());
        source
    }

    #[test]
    fn what_is_configured_is_made_once() {
        let wanted = BTreeMap::from([("web".to_owned(), directory("/srv/web"))]);
        assert_eq!(plan(&Snapshot::default(), &wanted).writes.len(), 1);
        let there = state(vec![configured("web", directory("/srv/web"))]);
        assert!(plan(&there, &wanted).writes.is_empty());
    }

    #[test]
    fn what_is_dropped_is_suspended_and_what_a_person_added_stays() {
        let there = state(vec![configured("old", directory("/srv/old")), Source::new("mine", directory("/srv/mine"))]);
        let writes = plan(&there, &BTreeMap::new()).writes;
        let [Write::Update(after, _)] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!(after.key().name, "old");
        assert_eq!(after.get::<Source>().unwrap().spec.suspend, Some(true));
        assert_eq!(after.annotation(DROPPED), Some("true"));
        assert!(plan(&state(vec![after.get::<Source>().unwrap().clone()]), &BTreeMap::new()).writes.is_empty(), "once");
    }

    #[test]
    fn what_is_going_comes_back_once_it_is_gone() {
        let wanted = BTreeMap::from([("web".to_owned(), directory("/srv/new")), ("db".to_owned(), directory("/srv/db"))]);
        let mut going = configured("web", directory("/srv/web"));
        going.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let there = state(vec![going, configured("db", directory("/srv/db"))]);
        assert!(plan(&there, &wanted).writes.is_empty());
        let back = returning(&there, &wanted);
        assert_eq!(back.keys().collect::<Vec<_>>(), ["web"]);
        assert!(anew(&there, &back).writes.is_empty());
        let writes = anew(&state(vec![configured("db", directory("/srv/db"))]), &back).writes;
        let [Write::Create(made)] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!(*made, Object::new(configured("web", directory("/srv/new"))));
        // Somebody was faster.
        assert!(anew(&state(vec![Source::new("web", directory("/srv/mine"))]), &back).writes.is_empty());
    }

    #[test]
    fn what_is_configured_again_goes_on() {
        let mut suspended = configured("web", directory("/srv/web"));
        suspended.spec.suspend = Some(true);
        suspended.metadata.annotations = Some([(DROPPED.to_owned(), "true".to_owned())].into());
        let writes = plan(&state(vec![suspended]), &BTreeMap::from([("web".to_owned(), directory("/srv/web"))])).writes;
        let [Write::Update(after, _)] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!((after.get::<Source>().unwrap().spec.suspend, after.annotation(DROPPED)), (None, None));
    }
}
