//! Objects of the API server: kube's `Api`, with JSON inside. The client's code for lists, watches and writes is in the
//! program once and not once a kind, and so is what reads objects out of watch events.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Any object, as the server writes it.
#[derive(Clone, Debug, Default)]
struct Json {
    /// A copy of what `value` says: kube asks for it.
    meta: ObjectMeta,
    value: Value,
}

impl Json {
    fn of<T: Serialize>(object: &T) -> Result<Self, Error> {
        Ok(Self { meta: ObjectMeta::default(), value: serde_json::to_value(object).map_err(Error::SerdeError)? })
    }

    fn typed<T: DeserializeOwned>(self) -> Result<T, Error> {
        serde_json::from_value(self.value).map_err(Error::SerdeError)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let meta = value.get("metadata").cloned().map(serde_json::from_value).transpose();
        Ok(Self { meta: meta.map_err(serde::de::Error::custom)?.unwrap_or_default(), value })
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Resource for Json {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }
    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }
    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }
    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The objects of one kind, in one namespace or all. Its verbs are those of kube's `Api`, with the same errors.
pub struct Objects<T> {
    api: Api<Json>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Resource<DynamicType = ()> + DeserializeOwned + Serialize> Objects<T> {
    pub fn all(client: Client) -> Self {
        Self { api: Api::all_with(client, &ApiResource::erase::<T>(&())), kind: PhantomData }
    }

    pub fn namespaced(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced_with(client, namespace, &ApiResource::erase::<T>(&())), kind: PhantomData }
    }

    pub async fn get(&self, name: &str) -> Result<T, Error> {
        self.api.get(name).await?.typed()
    }

    /// `None`: there is none of this name.
    pub async fn get_opt(&self, name: &str) -> Result<Option<T>, Error> {
        self.api.get_opt(name).await?.map(Json::typed).transpose()
    }

    pub async fn create(&self, object: &T) -> Result<T, Error> {
        self.api.create(&PostParams::default(), &Json::of(object)?).await?.typed()
    }

    pub async fn replace(&self, name: &str, object: &T) -> Result<T, Error> {
        self.api.replace(name, &PostParams::default(), &Json::of(object)?).await?.typed()
    }

    pub async fn replace_status(&self, name: &str, object: &T) -> Result<T, Error> {
        self.api.replace_status(name, &PostParams::default(), &Json::of(object)?).await?.typed()
    }

    /// RFC 7386.
    pub async fn merge(&self, name: &str, patch: Value) -> Result<T, Error> {
        self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?.typed()
    }

    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<(), Error> {
        self.api.delete(name, params).await.map(drop)
    }

    /// Lists and then follows them, without end. A change that cannot be read is an error and passed over; a list of which
    /// one cannot be read is an error in place of its end, and all is listed anew. After an error `patience` says how long
    /// to wait, and begins anew only when a list is whole or a change is told: that a list begins says nothing yet.
    pub fn watch<B: Backoff + 'static>(
        &self,
        config: watcher::Config,
        patience: B,
    ) -> impl Stream<Item = watcher::Result<Event<T>>> + use<T, B> {
        let api = self.api.clone();
        let fresh = move || (watcher(api.clone(), config.clone()).boxed(), Listing::default());
        let begun = Watch { events: fresh(), patience, pause: None };
        stream::unfold((begun, fresh), async |(mut watch, fresh)| {
            loop {
                if let Some(pause) = watch.pause.take() {
                    tokio::time::sleep(pause).await;
                }
                let (events, listing) = &mut watch.events;
                let typed = match events.next().await? {
                    Ok(event) => listing.typed(event),
                    Err(error) => Some(Err(error)),
                };
                if listing.over {
                    watch.events = fresh();
                }
                match &typed {
                    Some(Err(_)) => watch.pause = Some(watch.patience.next()?),
                    Some(Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_))) => watch.patience.reset(),
                    _ => {}
                }
                if let Some(typed) = typed {
                    return Some((typed, (watch, fresh)));
                }
            }
        })
    }
}

/// A watch under way.
struct Watch<S, B> {
    events: (S, Listing),
    patience: B,
    /// Before the next event is asked for.
    pause: Option<Duration>,
}

/// A list on its way: what is missing in it must not look as if it were gone.
#[derive(Default)]
struct Listing {
    /// Why it is not whole.
    lacks: Option<Error>,
    /// It ended so.
    over: bool,
}

impl Listing {
    /// `None`: there is nothing to say before the list's end.
    fn typed<T: Resource<DynamicType = ()> + DeserializeOwned>(&mut self, event: Event<Json>) -> Option<watcher::Result<Event<T>>> {
        let typed = match event {
            Event::Init => {
                self.lacks = None;
                Ok(Event::Init)
            }
            Event::InitApply(object) => match (object.meta.name.clone(), object.typed()) {
                (_, Ok(object)) => Ok(Event::InitApply(object)),
                (name, Err(error)) => {
                    // What it is: all that waits for this list waits for it.
                    tracing::warn!(kind = T::kind(&()).as_ref(), name, %error, "an object of the server cannot be read");
                    self.lacks.get_or_insert(error);
                    return None;
                }
            },
            Event::InitDone => match self.lacks.take() {
                None => Ok(Event::InitDone),
                Some(error) => {
                    self.over = true;
                    Err(error)
                }
            },
            Event::Apply(object) => object.typed().map(Event::Apply),
            Event::Delete(object) => object.typed().map(Event::Delete),
        };
        Some(typed.map_err(watcher::Error::WatchFailed))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use k8s_openapi::api::core::v1::Pod;
    use kube::client::Body;
    use kube::core::WatchEvent;
    use serde_json::json;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it was asked and how often it began anew.
    #[derive(Clone, Default)]
    struct Counts(Arc<[AtomicUsize; 2]>);

    impl Iterator for Counts {
        type Item = Duration;
        fn next(&mut self) -> Option<Duration> {
            self.0[0].fetch_add(1, Ordering::Relaxed);
            Some(Duration::ZERO)
        }
    }

    impl Backoff for Counts {
        fn reset(&mut self) {
            self.0[1].fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_list_that_cannot_all_be_read_has_no_end_and_is_asked_for_more_and_more_seldom() {
        let pod = |name: &str, containers: Value| json!({"metadata": {"name": name}, "spec": {"containers": containers}});
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
            "items": [pod("bad", json!(5)), pod("good", json!([]))]})
        .to_string();
        let answer = move |_: http::Request<Body>| {
            let answer = http::Response::new(Body::from(list.clone().into_bytes()));
            async { Ok::<_, Infallible>(answer) }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let counts = Counts::default();
        let events = Objects::<Pod>::all(client).watch(watcher::Config::default(), counts.clone());
        let told = events.take(6).map(|event| match event {
            Ok(Event::Init) => "begin".to_owned(),
            Ok(Event::InitApply(pod)) => pod.metadata.name.unwrap_or_default(),
            Err(_) => "error".to_owned(),
            other => format!("{other:?}"),
        });
        let told = tokio::time::timeout(Duration::from_secs(60), told.collect::<Vec<_>>()).await.unwrap();
        assert_eq!(told, ["begin", "good", "error", "begin", "good", "error"]);
        assert_eq!(counts.0.each_ref().map(|count| count.load(Ordering::Relaxed)), [2, 0], "waited for, and never begun anew");
    }

    #[test]
    fn an_event_of_a_watch_is_read() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}], "priority": -5, "terminationGracePeriodSeconds": 30}});
        let event = serde_json::from_value(json!({"type": "ADDED", "object": pod.clone()})).unwrap();
        let WatchEvent::Added(object) = event else { panic!("{event:?}") };
        let object: Json = object;
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
        let typed: Pod = object.typed().unwrap();
        assert_eq!(Json::of(&typed).unwrap().value, pod);
    }
}
