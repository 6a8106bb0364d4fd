//! ConfigMaps and Secrets that this node's pods name: fetched when needed, kept in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::env::References;
use super::objects::Objects;
use super::volume::plan::{Names, TokenWanted};
use crate::model::volume::{self, PersistentVolume};

/// What nobody asked for this long is dropped.
const UNUSED: Duration = Duration::from_secs(600);
/// An answer this old is used without asking again: containers of one pod start together.
const FRESH: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
/// The part of its life after which a token is asked for anew, and the longest time: as the kubelet.
const RENEWED: f64 = 0.8;
const RENEWED_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// The server's own words, where it answered: the error prints its whole answer.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// An answer of the server, if it comes in time.
async fn asked<T>(answer: impl Future<Output = Result<T, kube::Error>>, kind: &'static str, name: &str) -> Result<T, FetchError> {
    let cause = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(cause)) => said(&cause),
        Err(_) => "no answer".to_owned(),
    };
    Err(FetchError { kind, name: name.to_owned(), cause })
}

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
    tokens: Mutex<BTreeMap<TokenWanted, Token>>,
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

/// A token and since when it is good for how long.
#[derive(Clone)]
struct Token {
    text: String,
    fetched: Instant,
    life: Duration,
}

impl Token {
    /// Most of its life is left.
    fn is_fresh(&self) -> bool {
        self.fetched.elapsed() < self.life.mul_f64(RENEWED).min(RENEWED_WITHIN)
    }
}

impl Fetcher {
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default(), tokens: Mutex::default(), handlers: Mutex::default() }
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
        for name in &names.claims {
            if let Some(claimed) = self.claim(namespace, name).await? {
                found.claims.insert(name.clone(), claimed);
            }
        }
        for wanted in &names.tokens {
            found.tokens.insert(wanted.clone(), self.token(namespace, wanted).await?);
        }
        Ok(found)
    }

    /// A claim and its volume, as they are now: a pod asks once.
    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<(PersistentVolumeClaim, Option<PersistentVolume>)>, FetchError> {
        let claims: Objects<PersistentVolumeClaim> = Objects::namespaced(self.client.clone(), namespace);
        let Some(claim) = asked(claims.get_opt(name), "persistentvolumeclaim", name).await? else { return Ok(None) };
        if !volume::is_bound(&claim) {
            return Ok(Some((claim, None)));
        }
        let volumes: Objects<PersistentVolume> = Objects::all(self.client.clone());
        let volume = volume::volume_name(&claim);
        let volume = asked(volumes.get_opt(volume), "persistentvolume", volume).await?;
        Ok(Some((claim, volume)))
    }

    /// A token that most of its life is left of; one that is older where no other is to be had.
    async fn token(&self, namespace: &str, wanted: &TokenWanted) -> Result<String, FetchError> {
        let lock = || self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let held = lock().get(wanted).cloned();
        if let Some(token) = held.as_ref().filter(|token| token.is_fresh()) {
            return Ok(token.text.clone());
        }
        let fetched = Instant::now();
        let answer = match tokio::time::timeout(PATIENCE, self.ask_token(namespace, wanted)).await {
            Ok(answer) => answer.map_err(|error| said(&error)),
            Err(_) => Err("no answer".to_owned()),
        };
        match (answer, held) {
            (Ok((text, life)), _) => {
                let mut tokens = lock();
                tokens.retain(|_, token| token.fetched.elapsed() < token.life);
                tokens.insert(wanted.clone(), Token { text: text.clone(), fetched, life });
                Ok(text)
            }
            (Err(_), Some(token)) if token.fetched.elapsed() < token.life => Ok(token.text),
            (Err(cause), _) => Err(FetchError { kind: "token of serviceaccount", name: wanted.account.clone(), cause }),
        }
    }

    async fn ask_token(&self, namespace: &str, wanted: &TokenWanted) -> Result<(String, Duration), kube::Error> {
        let audiences: Vec<&str> = Some(wanted.audience.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {
            "audiences": audiences, "expirationSeconds": wanted.seconds,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": wanted.pod, "uid": wanted.uid},
        }});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{}/token", wanted.account);
        let request = http::Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes());
        let answer: Value = self.client.request(request.map_err(kube::Error::HttpError)?).await?;
        let seconds = answer["spec"]["expirationSeconds"].as_u64().unwrap_or_default();
        Ok((answer["status"]["token"].as_str().unwrap_or_default().to_owned(), Duration::from_secs(seconds)))
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
            Ok(Err(cause)) => lock().get(class).cloned().ok_or_else(|| fail(said(&cause))),
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
            Ok(Err(cause)) => Err(said(&cause)),
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
