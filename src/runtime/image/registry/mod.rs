//! The distribution protocol as a reader needs it (opencontainers/distribution-spec): manifests and blobs,
//! signing in, mirrors. Nothing a registry sends is read further than a bound.
//!
//! - `endpoint`, `challenge` (pure): which hosts, redirects; what status 401 asks for
//! - `transport`: HTTP and TLS
//! - `sign_in`: passwords and tokens

pub(super) mod challenge;
mod endpoint;
mod sign_in;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Uri, header};
use serde::Deserialize;

pub use endpoint::RegistryOptions;
pub(super) use endpoint::{Endpoint, endpoints, redirected};
pub(super) use transport::Answer;

use super::archive::DOCUMENT_MAX;
use super::error::{ImageError, TEXT_MAX, brief};
use super::reference::{Digest, Reference};
use super::{Options, credentials};
use crate::cri::RegistryAuth;
use endpoint::same_origin;
use sign_in::Session;
use transport::{Request, Transport};

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// One image's repository, at every place that may have it.
pub(super) struct Registry {
    transport: Transport,
    places: Vec<Place>,
}

/// One of the places, and how far we are signed in there.
struct Place {
    endpoint: Endpoint,
    session: Session,
}

impl Registry {
    pub async fn new(options: &Arc<Options>, reference: &Reference, auth: Option<&RegistryAuth>) -> Result<Self, ImageError> {
        let transport = Transport::new(options).await?;
        let mut places = Vec::new();
        for endpoint in endpoints(reference.registry(), reference.path(), &options.registries) {
            let session = Session::new(credentials::of(options, &endpoint, auth).await);
            places.push(Place { endpoint, session });
        }
        Ok(Self { transport, places })
    }

    /// How many places there are: mirrors first, the registry itself last.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// `docker.io`, `mirror.test:5000`
    pub fn host(&self, place: usize) -> &str {
        &self.places[place].endpoint.host
    }

    /// A manifest or index by tag or digest, unverified.
    pub async fn manifest(&self, place: usize, name: &str, what: &str) -> Result<Vec<u8>, ImageError> {
        let answer = self.get(place, &format!("manifests/{name}"), ACCEPTED, 0, what).await?;
        answer.document(&format!("manifest of {what}"), DOCUMENT_MAX).await
    }

    /// A blob's content, unverified; from an offset if the registry can (then its status is 206; 416 when
    /// it does not serve that part).
    pub async fn blob(&self, place: usize, digest: &Digest, from: u64, what: &str) -> Result<Answer, ImageError> {
        self.get(place, &format!("blobs/{digest}"), "*/*", from, what).await
    }

    async fn get(&self, place: usize, path: &str, accept: &'static str, from: u64, what: &str) -> Result<Answer, ImageError> {
        let place = &self.places[place];
        let namespace = place.endpoint.mirror_of.as_ref().map(|registry| format!("?ns={registry}")).unwrap_or_default();
        let text = format!("{}/{path}{namespace}", place.endpoint.base);
        let uri: Uri = text.parse().map_err(|cause| ImageError::Registry(format!("{text}: {cause}")))?;
        let mut authorization = place.session.current().await;
        for _ in 0..place.session.tries() {
            let request = Request { accept, from, authorization: authorization.clone(), ..Request::get(uri.clone()) };
            let answer = self.transport.send(request).await?;
            // 416: it does not serve that part, which is for the caller to settle.
            let elsewhere = answer.status == StatusCode::RANGE_NOT_SATISFIABLE && from > 0;
            if elsewhere || matches!(answer.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
                return Ok(answer);
            }
            // Who we are is the business of the registry alone, not of where it redirects.
            let asks = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && same_origin(&answer.uri, &uri);
            if !asks {
                return Err(refusal(answer, what).await);
            }
            match place.session.next(&self.transport, &place.endpoint, &answer, authorization.as_ref()).await? {
                Some(next) => authorization = Some(next),
                None => return Err(refusal(answer, what).await),
            }
        }
        Err(ImageError::Denied(format!("{what}: it takes no credentials for longer than it takes to ask")))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Complaint {
    errors: Vec<ComplaintEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ComplaintEntry {
    code: String,
    message: String,
}

/// Which of three things it is: not there, not allowed, or not now.
async fn refusal(answer: Answer, what: &str) -> ImageError {
    let status = answer.status;
    let after = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    let body = answer.complaint().await;
    let complaint = serde_json::from_slice::<Complaint>(&body).unwrap_or_default();
    let said = match complaint.errors.first() {
        Some(first) => brief(&format!("{} {}", first.code, first.message), TEXT_MAX),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let text = format!("{what}: HTTP {} {said}", status.as_u16());
    match status.as_u16() {
        401 => ImageError::Denied(format!("{what} needs other credentials, or does not exist ({said})")),
        403 => ImageError::Denied(text),
        404 => ImageError::NoSuchImage(text),
        408 | 429 | 500..=599 => ImageError::Busy { what: text, after },
        _ => ImageError::Registry(text),
    }
}
