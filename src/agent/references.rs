//! ConfigMaps and Secrets that this node's pods name: fetched when needed, kept in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::env::References;
use super::objects::Objects;
use super::volume::plan::Names;

/// What nobody asked for this long is dropped.
const UNUSED: Duration = Duration::from_secs(600);
/// An answer this old is used without asking again: containers of one pod start together.
const FRESH: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it is not known what an object holds.
#[derive(Clone, Debug, thiserror::Error)]
#[error("fetch {kind} \"{name}\": {cause}")]
pub struct FetchError {
    pub kind: &'static str,
    pub name: String,
    pub cause: String,
}

/// Fetches, and remembers for the time when the server is away.
pub struct Fetcher {
    client: Client,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    /// A RuntimeClass' handler never changes.
    handlers: Mutex<BTreeMap<String, String>>,
}

fn keep<T>(cache: &Cache<T>, namespace: &str, names: &std::collections::BTreeSet<String>) {
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    for name in names {
        if let Some(entry) = cache.get_mut(&(namespace.to_owned(), name.clone())) {
            entry.used = Instant::now();
        }
    }
}

type Cache<T> = Mutex<BTreeMap<(String, String), Entry<T>>>;

struct Entry<T> {
    /// `None`: it does not exist.
    value: Option<T>,
    fetched: Instant,
    used: Instant,
}

impl Fetcher {
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default(), handlers: Mutex::default() }
    }

    /// The objects of these names.
    ///
    /// # Errors
    /// The server does not answer and it was never known what an object holds.
    pub async fn fetch(&self, namespace: &str, names: &Names) -> Result<References, FetchError> {
        let mut found = References::default();
        for name in &names.config_maps {
            if let Some(value) = self.one(&self.config_maps, namespace, name, "configmap").await? {
                found.config_maps.insert(name.clone(), value);
            }
        }
        for name in &names.secrets {
            if let Some(value) = self.one(&self.secrets, namespace, name, "secret").await? {
                found.secrets.insert(name.clone(), value);
            }
        }
        Ok(found)
    }

    /// The handler of a RuntimeClass.
    ///
    /// # Errors
    /// There is none of that name, or the server does not answer and it was never known.
    pub async fn handler(&self, class: &str) -> Result<String, FetchError> {
        let api: Objects<RuntimeClass> = Objects::all(self.client.clone());
        let fail = |cause: String| FetchError { kind: "RuntimeClass", name: class.to_owned(), cause };
        let lock = || self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        match tokio::time::timeout(PATIENCE, api.get_opt(class)).await {
            Ok(Ok(Some(found))) => {
                lock().insert(class.to_owned(), found.handler.clone());
                Ok(found.handler)
            }
            Ok(Ok(None)) => Err(fail("it is not found".to_owned())),
            Ok(Err(cause)) => lock().get(class).cloned().ok_or_else(|| fail(cause.to_string())),
            Err(_) => lock().get(class).cloned().ok_or_else(|| fail("no answer".to_owned())),
        }
    }

    /// Remembers what these names hold for as long as somebody says so.
    pub fn keep(&self, namespace: &str, names: &Names) {
        keep(&self.config_maps, namespace, &names.config_maps);
        keep(&self.secrets, namespace, &names.secrets);
    }

    async fn one<T>(&self, cache: &Cache<T>, namespace: &str, name: &str, kind: &'static str) -> Result<Option<T>, FetchError>
    where
        T: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = lock().get_mut(&key).filter(|entry| entry.value.is_some() && entry.fetched.elapsed() < FRESH) {
            entry.used = Instant::now();
            return Ok(entry.value.clone());
        }
        let api: Objects<T> = Objects::namespaced(self.client.clone(), namespace);
        let answer = match tokio::time::timeout(PATIENCE, api.get_opt(name)).await {
            Ok(Ok(value)) => Ok(value),
            // Denied is an answer: the pod does not name it, or not any more.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(FetchError { kind, name: name.to_owned(), cause: status.message });
            }
            Ok(Err(cause)) => Err(cause.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        let mut cache = lock();
        cache.retain(|_, entry| entry.used.elapsed() < UNUSED);
        match answer {
            Ok(value) => {
                let now = Instant::now();
                cache.insert(key, Entry { value: value.clone(), fetched: now, used: now });
                Ok(value)
            }
            Err(cause) => match cache.get_mut(&key) {
                Some(entry) => {
                    entry.used = Instant::now();
                    Ok(entry.value.clone())
                }
                None => Err(FetchError { kind, name: name.to_owned(), cause }),
            },
        }
    }
}
