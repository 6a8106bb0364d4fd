//! One request for a certificate: made with a key that is on disk, found again, waited for.

use std::path::{Path, PathBuf};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::CertificateError;
use super::plan::{self, NODES, Progress, Wanted};
use crate::agent::identity::{IdentityError, pending_key};
use crate::clock::Clock;
use crate::tls::authority::Pair;
use crate::tls::connect::{self, Way};
use crate::tls::{LiveKey, Peer, TlsError, files};

/// Whom to ask, and where the key is kept until there is a certificate.
pub struct Asked<'a> {
    pub way: &'a Way,
    /// The kubeconfig that says so, for errors.
    pub file: &'a Path,
    pub key: PathBuf,
    pub clock: &'a dyn Clock,
}

/// Gets a certificate. A server that is away is asked again, and a request that nobody has decided is waited for; `None`: the
/// end came before. The key's file is the caller's to remove, once what is got is kept.
///
/// # Errors
/// A request that is refused, or a server that is another one.
pub async fn obtain(asked: &Asked<'_>, wanted: &Wanted, end: &CancellationToken) -> Result<Option<Pair>, CertificateError> {
    tokio::select! {
        () = end.cancelled() => Ok(None),
        got = asked.until_there(wanted) => got.map(Some),
    }
}

/// What one look at the request brought.
enum Look {
    Seen(Progress),
    /// Why the server did not say, for now.
    Away(String),
    /// It is there no more.
    Gone,
}

impl Asked<'_> {
    async fn until_there(&self, wanted: &Wanted) -> Result<Pair, CertificateError> {
        let (mut key, mut made, mut tries, mut told) = (pending_key(&self.key)?, false, 0, String::new());
        let mut name = wanted.name(&key.subject_public_key_info());
        let mut there = false;
        loop {
            let look = if there { self.look(&name, wanted).await? } else { self.make(&key, &name, wanted, &mut made).await? };
            there = matches!(look, Look::Seen(_)) || (there && !matches!(look, Look::Gone));
            let why = match look {
                Look::Seen(Progress::Issued(certificate)) => match self.judged(&certificate, &key, wanted, &name, made)? {
                    Some(pair) => return Ok(pair),
                    // Issued for this key long ago, when the node did not fetch it, and over since: the next is for another key.
                    None => {
                        files::remove(&self.key)?;
                        (key, there) = (pending_key(&self.key)?, false);
                        name = wanted.name(&key.subject_public_key_info());
                        continue;
                    }
                },
                Look::Seen(Progress::Refused(message)) => {
                    return Err(CertificateError::Denied { what: wanted.what(), name, message });
                }
                Look::Seen(Progress::Waiting) => {
                    format!("waiting for the request to be approved: `kubectl certificate approve {name}` (look at it first)")
                }
                Look::Seen(Progress::Approved) => format!("the request {name} is approved, and its signer has not signed it yet"),
                Look::Away(why) => format!("the server does not answer, and is asked again: {why}"),
                Look::Gone => "the request is gone, and is made anew".to_owned(),
            };
            // What a signer does by itself is done by then.
            if why != told && tries > 1 {
                tracing::info!(what = wanted.what(), "{why}");
                told = why;
            }
            tokio::time::sleep(plan::pause(tries, plan::LONGEST)).await;
            tries = tries.saturating_add(1);
        }
    }

    /// Makes the request. `made`: whether it was not there before.
    async fn make(&self, key: &KeyPair, name: &str, wanted: &Wanted, made: &mut bool) -> Result<Look, CertificateError> {
        let object = wanted.object(name, &signed(key, wanted)?);
        let request = Request::post(plan::PATH).header(header::CONTENT_TYPE, "application/json");
        let answer = match self.say(request, Body::from(object.to_string())).await? {
            Ok(answer) => answer,
            Err(why) => return Ok(Look::Away(why)),
        };
        match answer.status() {
            StatusCode::CONFLICT => self.look(name, wanted).await,
            _ => {
                let look = self.read(&answer, wanted)?;
                *made = matches!(look, Look::Seen(_));
                Ok(look)
            }
        }
    }

    async fn look(&self, name: &str, wanted: &Wanted) -> Result<Look, CertificateError> {
        match self.say(Request::get(format!("{}/{name}", plan::PATH)), Body::empty()).await? {
            Ok(answer) if answer.status() == StatusCode::NOT_FOUND => Ok(Look::Gone),
            Ok(answer) => self.read(&answer, wanted),
            Err(why) => Ok(Look::Away(why)),
        }
    }

    /// The answer, or why there is none now.
    async fn say(&self, request: http::request::Builder, body: Body) -> Result<Result<Response<Bytes>, String>, CertificateError> {
        match self.way.ask(request, body).await {
            Ok(answer) if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS => Ok(Err(said(&answer))),
            Ok(answer) => Ok(Ok(answer)),
            Err(TlsError::Connect { address, source }) if connect::is_untrusted(&source) => {
                let (file, source) = (self.file.to_owned(), Box::new(TlsError::Connect { address, source }));
                Err(CertificateError::WrongServer { url: self.url(), file, source })
            }
            Err(error @ (TlsError::Connect { .. } | TlsError::Slow(_) | TlsError::Http { .. })) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn url(&self) -> String {
        format!("https://{}", self.way.address())
    }

    fn read(&self, answer: &Response<Bytes>, wanted: &Wanted) -> Result<Look, CertificateError> {
        if answer.status().is_success() {
            let object: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
            return Ok(Look::Seen(plan::progress(&object)));
        }
        Err(CertificateError::Refused { url: self.url(), what: wanted.what(), message: said(answer) })
    }

    /// What was issued, where it is of use; `None`: it was once.
    fn judged(&self, certificate: &str, key: &KeyPair, wanted: &Wanted, name: &str, made: bool) -> Result<Option<Pair>, CertificateError> {
        let useless = |cause: String| CertificateError::Useless { what: wanted.what(), url: self.url(), name: name.to_owned(), cause };
        let pair = Pair { certificate: certificate.to_owned(), key: key.serialize_pem() };
        let peer = LiveKey::new(&pair, "").and_then(|_| Peer::read_pem(certificate)).map_err(|error| useless(error.to_string()))?;
        if peer.common_name != wanted.user() {
            return Err(useless(format!("it is one of {:?}", peer.common_name)));
        }
        let (until, now) = (peer.not_after, self.clock.now());
        match (until > now, made) {
            (true, _) => Ok(Some(pair)),
            (false, true) => Err(CertificateError::Stale { what: wanted.what(), url: self.url(), until, now }),
            (false, false) => Ok(None),
        }
    }
}

/// A signing request with the subject of a node.
fn signed(key: &KeyPair, wanted: &Wanted) -> Result<String, IdentityError> {
    let mut params = CertificateParams::new(wanted.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, NODES);
    params.distinguished_name.push(DnType::CommonName, wanted.user());
    Ok(params.serialize_request(key)?.pem()?)
}

/// What the server says instead.
fn said(answer: &Response<Bytes>) -> String {
    let value: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    let status = answer.status();
    value["message"].as_str().map_or_else(|| status.to_string(), |message| format!("{message} ({})", status.as_u16()))
}
